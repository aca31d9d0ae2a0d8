"""What Server Compute keeps on the disk. Every state is a file, so it survives every process.

lock                held by the one supervisor of this folder; holds its pid
socket              where the supervisor listens
supervisor.log      what went wrong in it
staging/<name>/     a job folder that an adapter is still writing
jobs/<key>/
    request.json    what to run
    process.json    made empty *before* the fork; the job's first process writes who it is
                    *before* it runs anything. Still empty and not locked: never started
    ended_by        `cancel` or `walltime`, written before the first signal is sent
    exit.json       the exit code: the last act of the job's first process
    platform.log    standard output and error
    work/           the request's files; the command starts here
trash/<name>/       released, being deleted
cache/              the runner's data cache
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any, Literal

EndedBy = Literal["cancel", "walltime"]


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
        self.process = root / "process.json"
        self.ended_by = root / "ended_by"
        self.exit = root / "exit.json"
        self.log = root / "platform.log"
        self.work = root / "work"

    def read_ended_by(self) -> EndedBy | None:
        try:
            text = self.ended_by.read_text()
        except FileNotFoundError:
            return None
        return "walltime" if text == "walltime" else "cancel"

    def is_locked(self) -> bool:
        """Whether a process between the claim and its own record holds `process.json`."""
        try:
            descriptor = os.open(self.process, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a record; None when it is absent, empty or damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a record so that nobody sees half of it.

    It is not synced: a record must survive our processes, and no job survives the machine.
    """
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(json.dumps(value, separators=(",", ":")).encode())
    temporary.replace(path)
