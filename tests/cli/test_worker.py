"""`deepforge worker` is the worker program."""

from __future__ import annotations

from deepforge.worker.options import OPTIONS
from runner.far_side import until
from shell import Shell
from worker.fake_server import FakeServer


def test_it_has_the_options_of_the_program(shell: Shell) -> None:
    told = shell("worker", "--help").out

    assert not [option.name for option in OPTIONS if f"\n  {option.name} " not in told]


def test_without_a_server_it_says_the_next_step(shell: Shell) -> None:
    told = shell("worker", code=3).err

    assert "error: no server is named" in told
    assert "hint: say which one with --url" in told


def test_the_unit_calls_this_command(shell: Shell) -> None:
    unit = shell("worker", "--url", "https://s", "--label", "a", "--label", "b", "--service").out

    assert "/deepforge worker --url https://s --label a --label b\n" in unit


def test_it_works_until_told_to_end(shell: Shell) -> None:
    with (
        FakeServer() as server,
        shell.begin("worker", "--url", server.url, "--folder", shell.folder / "w") as process,
    ):
        until(lambda: len(server.polls) > 1)
        process.terminate()
        assert 0 == process.wait(20)
        assert process.stderr is not None
        assert b"connected to" in process.stderr.read()


def test_a_token_that_is_refused_ends_with_the_exit_code_of_a_wrong_setup(shell: Shell) -> None:
    with (
        FakeServer(token="right") as server,
        shell.begin("worker", "--url", server.url, "--folder", shell.folder / "w") as process,
    ):
        assert 3 == process.wait(20)
        assert process.stderr is not None
        assert b"does not accept the access token" in process.stderr.read()
