"""The command line as a whole: help, exit codes, how errors are told."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import deepforge
from deepforge.cli import main
from deepforge.cli.main import run_command
from deepforge.errors import ConfigError, DeepForgeError, InvalidProject, NotFound
from shell import Shell


def test_help_names_every_command(shell: Shell) -> None:
    told = shell("--help").out

    for name in ("run", "executions", "artifacts", "storage", "compute", "start", "demo"):
        assert f"\n  {name} " in told


def test_the_version_is_that_of_the_package(shell: Shell) -> None:
    assert shell("--version").out == f"deepforge {deepforge.__version__}\n"


def test_a_wrong_option_names_the_help_and_ends_with_2(shell: Shell) -> None:
    told = shell("run", "--nonsense", code=2).err

    assert "error: No such option" in told
    assert "hint: deepforge run --help" in told


@pytest.mark.parametrize("group", [[], ["storage"], ["storage", "add"], ["executions"]])
def test_a_missing_command_shows_the_help_once(shell: Shell, group: list[str]) -> None:
    told = shell(*group, code=2)

    assert told.err == shell(*group, "--help").out
    assert told.err.count("Usage:") == 1


def test_commands_that_need_nothing_leave_nothing_behind(shell: Shell) -> None:
    shell("--help")
    shell("storage", "add", "--help")
    shell("run", "--help")

    assert not shell.home.exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DeepForgeError("m"), 1),
        (InvalidProject("m", findings=[]), 2),
        (ConfigError("m"), 3),
        (NotFound("m"), 4),
    ],
)
def test_an_error_ends_with_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, error: DeepForgeError, code: int
) -> None:
    assert _run_raising(monkeypatch, error) == code


def test_an_error_is_told_with_its_hint_and_its_findings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    findings: list[dict[str, object]] = [
        {"file": "pipelines/a.py", "line": 3, "message": "no loops here", "hint": "write it out"},
        {"file": "deepforge.toml", "line": None, "message": "has no name"},
    ]
    _run_raising(monkeypatch, InvalidProject("2 findings", findings=findings, hint="mend them"))

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "error: 2 findings",
        "  pipelines/a.py:3: no loops here (write it out)",
        "  deepforge.toml: has no name",
        "hint: mend them",
    ]


def test_with_json_an_error_is_json_too(shell: Shell) -> None:
    result = shell("executions", "show", "nothing", "--json", code=4)

    assert result.json["error"]["code"] == "not_found"
    assert result.err.startswith("error: ")


def test_wrong_usage_with_json_is_json_too(shell: Shell) -> None:
    assert shell("run", "--json", code=2).json["error"]["code"] == "usage"


def test_a_reader_that_leaves_early_is_fine(shell: Shell) -> None:
    """As in `deepforge --help | head -1`."""
    done = subprocess.run(
        ["bash", "-c", '"$0" --help | head -1; echo "${PIPESTATUS[0]}"', shell.command()[0]],
        capture_output=True,
        text=True,
        env=shell.environ(),
        timeout=60,
        check=True,
    )

    assert done.stderr == ""
    assert done.stdout.splitlines()[0].startswith("Usage: deepforge")


def test_a_home_that_cannot_be_made_is_told(shell: Shell) -> None:
    shell.home.write_text("a file is in the way")

    told = shell("executions", "list", code=3).err

    assert str(shell.home) in told
    assert "DEEPFORGE_HOME" in told


def _run_raising(monkeypatch: pytest.MonkeyPatch, error: DeepForgeError) -> int:
    def fail(**options: object) -> None:
        raise error

    monkeypatch.setattr(main.cli, "main", fail)
    return run_command([])


def test_output_that_cannot_be_written_is_told_in_one_line(shell: Shell) -> None:
    with open("/dev/full", "wb") as full:
        told = subprocess.run(
            shell.command("storage", "list"),
            env=shell.environ(),
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )

    assert told.returncode == 1
    assert b"No space left on device" in told.stderr
    assert b"Traceback" not in told.stderr


def test_a_target_whose_name_is_too_long_is_told_in_one_line(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"x")
    shell("artifacts", "put", tmp_path / "data", "--name", "data")
    told = shell("artifacts", "get", "data", "x" * 300, code=1)

    assert "File name too long" in told.err
    assert "Traceback" not in told.err


def test_a_password_in_the_server_url_is_not_shown(shell: Shell) -> None:
    told = subprocess.run(
        shell.command("executions", "list"),
        env=shell.environ() | {"DEEPFORGE_URL": "http://user:hunter2@127.0.0.1:1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )

    assert told.returncode == 3
    assert b"hunter2" not in told.stderr
    assert b"DEEPFORGE_TOKEN" in told.stderr
