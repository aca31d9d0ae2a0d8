"""Live progress on a terminal: what stays in view, and that it ends with the last word."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from typing import Any

import pytest

from deepforge.cli.live import fitting
from shell import EXAMPLES, Shell


def jobs(*states: str) -> list[dict[str, Any]]:
    return [{"id": str(number), "status": state} for number, state in enumerate(states)]


@pytest.mark.parametrize(
    ("states", "rows", "shown"),
    [
        (["running", "waiting"], 5, "01"),
        (["waiting", "running", "succeeded", "failed"], 3, "123"),
        (["waiting", "running", "succeeded", "failed"], 2, "13"),
        (["running", "running", "running"], 2, "012"),
        (["succeeded", "running", "succeeded"], 2, "12"),
        (["waiting"], 0, "0"),
    ],
)
def test_what_matters_now_stays_in_view(states: list[str], rows: int, shown: str) -> None:
    assert "".join(one["id"] for one in fitting(jobs(*states), rows)) == shown


def test_a_terminal_shows_one_line_for_each_job(shell: Shell) -> None:
    told = _on_a_terminal(shell, "run", str(EXAMPLES / "hello"))

    last = told.rpartition("execution ")[0]
    assert "✓  greeting" in last
    assert "✓  shouted" in last
    assert "hello succeeded after" in told
    assert "ARTIFACT" in told


def _on_a_terminal(shell: Shell, *arguments: str) -> str:
    """Run to the end with a terminal for all three streams; return what it showed, without colors."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        shell.command(*arguments),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=shell.folder,
        env={**shell.environ(), "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
    ) as process:
        os.close(theirs)
        told = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # nobody has the other end any more
                break
            told += chunk
        os.close(ours)
        assert process.wait(timeout=60) == 0
    return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", told.decode())
