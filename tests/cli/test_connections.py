"""`deepforge storage` and `deepforge compute`: options of adapters, secrets, checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from shell import Shell

SECRET = "wJalrXUtnFEMI-not-a-real-key"


def test_the_defaults_are_there_from_the_first_start(shell: Shell) -> None:
    assert [one["name"] for one in shell("storage", "list", "--json").json] == ["local"]
    assert [one["name"] for one in shell("compute", "list", "--json").json] == ["server"]


def test_adding_checking_and_removing(shell: Shell) -> None:
    (shell.folder / "data").mkdir()
    shell("storage", "add", "local", "mine", "--folder", str(shell.folder / "data"))

    names = [line.split()[0] for line in shell("storage", "list").out.splitlines()]
    assert names == ["NAME", "local", "mine"]
    assert "mine works" in shell("storage", "check", "mine").err

    shell("storage", "remove", "mine")
    assert [one["name"] for one in shell("storage", "list", "--json").json] == ["local"]


def test_a_storage_with_artifacts_goes_only_by_force(shell: Shell) -> None:
    shell("storage", "add", "local", "mine", "--folder", str(shell.folder / "data"))
    (shell.folder / "file").write_text("content")
    shell("artifacts", "put", "file", "--name", "kept", "--storage", "mine")

    told = shell("storage", "remove", "mine", code=5).err
    assert "1 artifact lies in the storage 'mine'" in told
    assert "deepforge storage remove mine --force" in told

    shell("storage", "remove", "mine", "--force")
    shell("storage", "add", "local", "mine", "--folder", str(shell.folder / "data"))
    assert shell("artifacts", "get", "kept", "-").out == "content"


def test_a_compute_is_removed_with_its_folder(shell: Shell) -> None:
    shell("compute", "add", "server", "box", "--slots", "1")
    shell("compute", "check", "box")
    assert len(list((shell.home / "computes").iterdir())) == 1

    shell("compute", "remove", "box")
    assert list((shell.home / "computes").iterdir()) == []


def test_the_checks_of_the_defaults_pass(shell: Shell) -> None:
    assert shell("storage", "check", "local", "--json").json["ok"]
    assert shell("compute", "check", "server", "--json").json["ok"]


@pytest.mark.parametrize("port", ["storage", "compute"])
def test_help_lists_the_adapters(shell: Shell, port: str) -> None:
    assert "\nAdapters:\n" in shell(port, "add", "--help").out


def test_help_of_an_adapter_explains_every_setting_with_examples(shell: Shell) -> None:
    told = shell("storage", "add", "s3", "--help").out

    for option in ("--endpoint-url", "--bucket", "--region", "--secret-access-key"):
        assert option in told
    assert "Examples:" in told


def test_all_missing_settings_are_named_at_once(shell: Shell) -> None:
    told = shell("storage", "add", "s3", "lab", code=3).err

    assert "--bucket" in told


def test_a_secret_is_read_from_standard_input_and_never_shown(shell: Shell) -> None:
    result = shell(*_add_s3("-"), "--json", input=f"{SECRET}\n".encode())

    assert "secret_access_key" in result.json["secrets"]
    listed = shell("storage", "list", "--json")
    shown = result.out + result.err + listed.out + shell("storage", "list").out
    assert SECRET not in shown
    assert not _files_holding(shell.home, SECRET)


def test_a_secret_on_the_command_line_works_with_a_warning(shell: Shell) -> None:
    told = shell(*_add_s3(SECRET)).err

    assert "warning: --secret-access-key on the command line can be seen" in told
    assert SECRET not in told
    assert not _files_holding(shell.home, SECRET)


def test_an_empty_secret_is_an_error(shell: Shell) -> None:
    assert "read nothing" in shell(*_add_s3("-"), code=2).err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["storage", "add", "nothing", "x"], 2, "nothing"),
        (["storage", "add", "local", "local", "--folder", "/x"], 5, "local"),
        (["storage", "add", "local", "a/b", "--folder", "/x"], 2, "a/b"),
        (["storage", "check", "nothing"], 4, "nothing"),
        (["storage", "remove", "nothing"], 4, "nothing"),
        (["storage", "remove", "local"], 2, "cannot be removed"),
        (["compute", "remove", "server"], 2, "cannot be removed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_requests_are_told(shell: Shell, arguments: list[str], code: int, words: str) -> None:
    assert words in shell(*arguments, code=code).err


def test_a_storage_that_does_not_answer_fails_its_check_with_a_reason(shell: Shell) -> None:
    shell(*_add_s3("-"), input=SECRET.encode())

    result = shell("storage", "check", "lab", code=1)

    assert "failed" in result.out
    assert "lab does not work" in result.err
    assert SECRET not in result.out + result.err


def _add_s3(secret: str) -> list[str]:
    return [
        "storage", "add", "s3", "lab", "--bucket", "data", "--endpoint-url", "http://127.0.0.1:9",
        "--access-key-id", "me", "--secret-access-key", secret,
    ]  # fmt: skip


def _files_holding(folder: Path, text: str) -> list[Path]:
    return [
        path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()
    ]
