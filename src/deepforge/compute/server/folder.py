"""What Server Compute keeps on the disk. Every state is a file, so it survives every process.

    lock                held by the one supervisor of this folder; holds its pid
    socket              where the supervisor listens
    supervisor.log      what went wrong in it
    staging/<name>/     a job folder that an adapter is still writing
    jobs/<key>/
        request.json    what to run
        process         who runs it: made by the job's first process before it runs anything, or by
                        the supervisor for "nobody ever will". Made exclusively, so there is only one
        ended_by        `cancel` or `walltime`, written before the first signal is sent
        exit.json       the exit code: the last act of the job's first process
        platform.log    standard output and error
        work/           the request's files; the command starts here
    trash/<name>/       released, being deleted
    cache/              the runner's data cache

Nothing is synced to the disk: records must survive our processes, and no job survives the machine.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

EndedBy = Literal["cancel", "walltime"]


@dataclass(frozen=True)
class Process:
    """A process known for good: its pid, its start time (clock ticks), the machine's boot."""

    pid: int
    started: int
    boot: str


NOBODY = Process(0, 0, "")
"""The process of a job that was cancelled before it started."""


class Folder:
    """The paths of one host folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = root / "lock"
        self.socket = root / "socket"
        self.log = root / "supervisor.log"
        self.staging = root / "staging"
        self.jobs = root / "jobs"
        self.trash = root / "trash"
        self.cache = root / "cache"

    def make(self) -> None:
        """Make what is missing, closed to other users."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        for one in (self.staging, self.jobs, self.trash):
            one.mkdir(mode=0o700, exist_ok=True)

    def job(self, key: str) -> JobFolder:
        return JobFolder(self.jobs / key)


class JobFolder:
    """The paths and records of one job."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.request = root / "request.json"
        self.process = root / "process"
        self.ended_by = root / "ended_by"
        self.exit = root / "exit.json"
        self.log = root / "platform.log"
        self.work = root / "work"

    def claim(self, process: Process) -> bool:
        """Say who runs this job. False when that was said before; it cannot be changed.

        A symbolic link that points nowhere is the one thing a file system makes exclusively and
        with its content in one step.
        """
        text = f"{process.pid} {process.started} {time.time():.3f} {process.boot}"
        try:
            self.process.symlink_to(text)
        except FileExistsError:
            return False
        return True

    def read_process(self) -> tuple[Process, float] | None:
        """Return who runs or ran this job and since when (seconds since 1970); None: nobody yet."""
        try:
            pid, started, at, boot = str(self.process.readlink()).split(" ", 3)
        except FileNotFoundError:
            return None
        return Process(int(pid), int(started), boot), float(at)

    def read_ended_by(self) -> EndedBy | None:
        try:
            text = self.ended_by.read_text()
        except FileNotFoundError:
            return None
        return "walltime" if text == "walltime" else "cancel"


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a record; None when it is absent, empty or damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a record so that nobody sees half of it."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)
