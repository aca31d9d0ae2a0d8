"""What jobs leave on the compute is given back when their results are in."""

from __future__ import annotations

from shell import EXAMPLES, Shell


def test_no_job_folder_stays_behind(shell: Shell) -> None:
    shell("run", EXAMPLES / "wide")
    folder = shell.home / "computes" / "server" / "jobs"

    assert list(folder.iterdir()) == []
