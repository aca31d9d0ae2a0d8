"""`deepforge artifacts`: bytes in and out, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from pathlib import Path

import pytest

from shell import Shell

CONTENT = bytes(range(256)) * 40_000  # 10 MB: several chunks


@pytest.fixture
def data(shell: Shell) -> Path:
    """A file that is kept as the artifact `data`, version 1."""
    path = shell.folder / "data.bin"
    path.write_bytes(CONTENT)
    shell("artifacts", "put", "data.bin", "--name", "data")
    return path


def test_what_was_put_comes_back(shell: Shell, data: Path) -> None:
    result = shell("artifacts", "get", "data", "copy.bin")

    assert (shell.folder / "copy.bin").read_bytes() == CONTENT
    assert result.out == ""
    assert stat.S_IMODE((shell.folder / "copy.bin").stat().st_mode) == 0o666 & ~_umask()


def test_a_dash_is_standard_input_and_output(shell: Shell) -> None:
    made = shell("artifacts", "put", "-", "--name", "text", "--json", input=b"a\0b\n").json

    assert made["size_bytes"] == 4
    assert made["digest"] == "sha256:" + hashlib.sha256(b"a\0b\n").hexdigest()
    assert shell("artifacts", "get", "text", "-").data == b"a\0b\n"


def test_nothing_at_all_is_data_too(shell: Shell) -> None:
    shell("artifacts", "put", "-", "--name", "empty")

    assert shell("artifacts", "get", "empty", "-").data == b""


def test_a_name_in_use_gets_a_new_version_and_the_old_one_stays(shell: Shell) -> None:
    for text in (b"one", b"two"):
        shell("artifacts", "put", "-", "--name", "text", input=text)

    assert shell("artifacts", "get", "text", "-").data == b"two"
    assert shell("artifacts", "get", "text@1", "-").data == b"one"
    versions = [one["version"] for one in shell("artifacts", "list", "--json").json]
    assert sorted(versions) == [1, 2]


@pytest.mark.parametrize("name", ["it's ours", 'say "hi"', "🦊", "a b  c", "数据", "-", "%2F?#&=+"])
def test_names_may_hold_almost_anything(shell: Shell, name: str) -> None:
    shell("artifacts", "put", "-", f"--name={name}", input=b"x")

    assert shell("artifacts", "get", "--", name, "-").data == b"x"
    assert shell("artifacts", "show", "--json", "--", name).json["name"] == name


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a\nb", "x" * 101, " a", "a@b", "."])
def test_names_that_lead_elsewhere_are_refused(shell: Shell, name: str) -> None:
    told = shell("artifacts", "put", "-", f"--name={name}", code=2, input=b"x").err

    assert "error: " in told
    assert "hint: " in told
    assert shell("artifacts", "list", "--json").json == []


def test_a_file_is_not_overwritten_unless_asked(shell: Shell, data: Path) -> None:
    target = shell.folder / "copy.bin"
    target.write_text("mine")

    told = shell("artifacts", "get", "data", "copy.bin", code=5).err
    assert "--force" in told
    assert target.read_text() == "mine"

    shell("artifacts", "get", "data", "copy.bin", "--force")
    assert target.read_bytes() == CONTENT


def test_a_damaged_object_is_an_error_and_leaves_no_file(shell: Shell, data: Path) -> None:
    for path in (shell.home / "storage").rglob("*"):
        if path.is_file() and path.stat().st_size == len(CONTENT):
            with path.open("r+b") as file:
                file.seek(len(CONTENT) // 2)
                file.write(b"damaged")

    shell("artifacts", "get", "data", "copy.bin", code=1)

    assert _names(shell.folder) == ["data.bin"]


def test_a_truncated_object_is_an_error_and_leaves_no_file(shell: Shell, data: Path) -> None:
    for path in (shell.home / "storage").rglob("*"):
        if path.is_file() and path.stat().st_size == len(CONTENT):
            os.truncate(path, 1000)

    shell("artifacts", "get", "data", "copy.bin", code=1)

    assert _names(shell.folder) == ["data.bin"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["get", "nothing", "x"], 4, "nothing"),
        (["get", "data@7", "x"], 4, "7"),
        (["get", "data@new", "x"], 2, "new"),
        (["get", "data", "."], 2, "is a folder"),
        (["get", "data", "no/such/folder/x"], 4, "no folder"),
        (["show", "nothing"], 4, "nothing"),
        (["put", "nothing", "--name", "x"], 4, "there is no file nothing"),
        (["put", ".", "--name", "x"], 3, "cannot be read"),
        (["put", "data.bin", "--name", "x", "--storage", "nowhere"], 4, "nowhere"),
        (["import", "x", "--storage", "local", "--key", "no/such"], 4, "no/such"),
        (["import", "x", "--storage", "local", "--key", "../../etc/passwd"], 2, "key"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_requests_are_told(
    shell: Shell, data: Path, arguments: list[str], code: int, words: str
) -> None:
    told = shell("artifacts", *arguments, code=code).err

    assert words in told
    assert _names(shell.folder) == ["data.bin"]


def test_a_full_disk_is_told_and_leaves_no_file(shell: Shell, data: Path) -> None:
    script = 'ulimit -f 1000; exec "$0" artifacts get data copy.bin'

    done = subprocess.run(
        ["bash", "-c", script, *shell.command()],
        capture_output=True,
        text=True,
        cwd=shell.folder,
        env=shell.environ(),
        timeout=60,
    )

    assert done.returncode == 1
    assert "copy.bin could not be written: File too large" in done.stderr
    assert _names(shell.folder) == ["data.bin"]


def test_devices_are_written_to_and_a_full_one_is_told(shell: Shell, data: Path) -> None:
    shell("artifacts", "get", "data", "/dev/null", "--force")

    assert "No space left" in shell("artifacts", "get", "data", "/dev/full", "--force", code=1).err
    assert Path("/dev/null").is_char_device()


def test_a_reader_that_leaves_early_is_fine(shell: Shell, data: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", '"$0" artifacts get data - | head -c 10', *shell.command()],
        capture_output=True,
        env=shell.environ(),
        timeout=60,
    )

    assert done.stdout == CONTENT[:10]
    assert done.stderr == b""


def test_data_that_lie_there_already_can_be_named(shell: Shell) -> None:
    (shell.home / "storage" / "raw").mkdir(parents=True)
    (shell.home / "storage" / "raw" / "photo.bin").write_bytes(b"photo")
    shell.home.chmod(0o700)

    made = shell(
        "artifacts", "import", "photo", "--storage", "local", "--key", "raw/photo.bin", "--json"
    ).json

    assert (made["size_bytes"], made["digest"]) == (5, None)
    assert shell("artifacts", "get", "photo", "-").data == b"photo"
    known = shell("artifacts", "show", "photo", "--json").json["digest"]
    assert known == f"sha256:{hashlib.sha256(b'photo').hexdigest()}"


def test_lists_are_tables_for_people(shell: Shell, data: Path) -> None:
    lines = shell("artifacts", "list").out.splitlines()

    assert lines[0].split() == ["ARTIFACT", "VERSION", "TYPE", "SIZE", "STORAGE", "MADE"]
    assert lines[1].startswith("data")
    assert "9.8 MiB" in lines[1]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
