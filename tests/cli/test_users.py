"""`deepforge users`: accounts in a home, without a server."""

from __future__ import annotations

import os
import pty
import subprocess
import time

import pytest

from shell import Shell

PASSWORD = b"correct horse\n"


def test_accounts_are_made_and_changed_without_a_server(shell: Shell) -> None:
    first = shell("users", "add", "ada", input=PASSWORD)
    shell("users", "add", "bob", "--server-compute", "--json", input=PASSWORD)
    shell("users", "add", "eve", "--admin", input=PASSWORD)
    shell("users", "permit", "bob", "--no-server-compute")
    shell("users", "permit", "eve", "--no-admin")
    shell("users", "disable", "eve")
    listed = {one["name"]: one for one in shell("users", "list", "--json").json}
    table = shell("users", "list").out

    assert "an administrator" in first.err
    assert [(one["is_admin"], one["is_disabled"]) for one in listed.values()] == [
        (True, False), (False, False), (False, True),
    ]  # fmt: skip
    assert not listed["bob"]["server_compute"]
    assert "administrator" in table
    assert "disabled" in table

    shell("users", "enable", "eve")
    assert not shell("users", "list", "--json").json[2]["is_disabled"]


def test_a_new_password_counts_and_the_old_one_no_longer(shell: Shell) -> None:
    shell("users", "add", "ada", input=PASSWORD)
    shell("users", "passwd", "ada", input=b"another horse\n")

    shell("login", "ada", input=PASSWORD, code=3)
    assert shell("login", "ada", input=b"another horse\n").out.startswith("df_")


@pytest.mark.parametrize(
    ("arguments", "input", "code", "words"),
    [
        (["add", "ada"], PASSWORD, 5, "passwd ada"),
        (["add", "Ada"], PASSWORD, 2, "cannot be the name"),
        (["add", "bob"], b"short\n", 2, "characters"),
        (["add", "bob"], b"", 2, "read no password"),
        (["add", "bob", "password"], b"", 2, "unexpected"),
        (["disable", "nobody"], b"", 4, "no user 'nobody'"),
        (["permit", "ada"], b"", 2, "--server-compute"),
        (["passwd"], b"wrong horse\nnew password\n", 3, "is wrong"),
    ],
)
def test_what_cannot_be_is_told(
    shell: Shell, arguments: list[str], input: bytes, code: int, words: str
) -> None:
    shell("users", "add", "ada", input=PASSWORD)

    told = shell("users", *arguments, input=input, code=code)
    assert words in told.err
    assert "short" not in told.err


def test_on_a_terminal_the_password_is_asked_twice_and_not_shown(shell: Shell) -> None:
    terminal, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            shell.command("users", "add", "ada"),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=shell.folder,
            env=shell.environ(),
            start_new_session=True,
        ) as process:
            os.close(theirs)
            shown = _dialogue(terminal, [b"New password: ", b"Once more: "], PASSWORD)
            assert process.wait(30) == 0
    finally:
        os.close(terminal)

    assert PASSWORD.strip() not in shown
    assert shell("login", "ada", input=PASSWORD).out.startswith("df_")


def _dialogue(terminal: int, questions: list[bytes], answer: bytes) -> bytes:
    """Answer each question when it comes; return all that was shown until the other side left."""
    shown = b""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if questions and questions[0] in shown:
            questions.pop(0)
            os.write(terminal, answer)
        try:
            shown += os.read(terminal, 1000)
        except OSError:  # how a terminal says that nobody is there any more
            break
    assert not questions, shown
    return shown
