"""What Server Compute keeps on the disk, so that it survives every process.

    lock                        held by the one supervisor of this folder; holds its pid
    socket                      where the supervisor listens
    supervisor.log              what went wrong in it
    staging/<name>/             a job folder that an adapter is still writing, for a job with files
    jobs/<key>/                 the request's files; the command starts here
        .deepforge-record       what is known about the job
        .deepforge-log          standard output and error
    spare/<name>/               released, emptied, and waiting for the next job
    trash/<name>/               released; adapters delete it some seconds later
    cache/                      the runner's data cache

Nothing is synced to the disk: a record must survive our processes, and no job survives the machine.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

OWN_PREFIX = ".deepforge-"
"""Files of this prefix in a job's folder are ours."""

LOG_NAME = f"{OWN_PREFIX}log"
RECORD_NAME = f"{OWN_PREFIX}record"

WORK_NAME = "work"
"""The folder in it where our runner lets an operation work; it is there again when that has ended."""

EndedBy = Literal["cancel", "walltime"]


@dataclass(frozen=True)
class Process:
    """A job's first process: pid and start time (clock ticks) within one boot of the machine."""

    pid: int
    started: int
    boot: str


NOBODY = Process(0, 0, "")
"""The process of a job that was cancelled before it started."""


@dataclass(frozen=True)
class Recorded:
    """What a record says so far."""

    request: dict[str, Any]
    process: Process | None
    """Who runs the job, or did."""
    since: float
    """When that process began, in seconds since 1970."""
    ended_by: EndedBy | None
    """Why the job was asked to end; recorded before the first signal is sent."""
    exit: dict[str, Any] | None
    """Its `code`, and a `reason` where the code does not tell: recorded as its last act."""


class Folder:
    """The paths of one host folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = root / "lock"
        self.socket = root / "socket"
        self.log = root / "supervisor.log"
        self.staging = root / "staging"
        self.jobs = root / "jobs"
        self.spare = root / "spare"
        self.trash = root / "trash"
        self.cache = root / "cache"

    def make(self) -> None:
        """Make what is missing, closed to other users."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        for one in (self.staging, self.jobs, self.spare, self.trash):
            one.mkdir(mode=0o700, exist_ok=True)

    def job(self, key: str) -> JobFolder:
        return JobFolder(self.jobs / key)


class JobFolder:
    """The folder of one job and its record.

    A record is one file of JSON lines. Everybody appends, nobody rewrites, and the first line that
    says a thing is the one that counts: so two processes can both claim a job and agree on who has
    it, and a line that a full disk cut short says nothing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / LOG_NAME
        self._record = root / RECORD_NAME

    def begin_record(self, request: dict[str, Any]) -> None:
        """Start the record, in a staged folder."""
        self._write(
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC, json.dumps({"request": request}).encode()
        )

    def record(self, **said: Any) -> None:
        """Append one line. Raises `OSError` when it could not be written whole."""
        # the line's end is in front, so that a line cut short ends here
        self._write(os.O_WRONLY | os.O_APPEND, b"\n" + json.dumps(said).encode())

    def claim(self, process: Process, since: float) -> bool:
        """Say who runs this job, for good. False when somebody said it before."""
        self.record(process=[process.pid, process.started, process.boot, since])
        recorded = self.read()
        return recorded is not None and recorded.process == process

    def read(self) -> Recorded | None:
        """Read the record; None when there is none, or nothing can be made of it."""
        try:
            file = self._open(os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            text = bytearray()
            while data := os.read(file, 65536):
                text += data
        finally:
            os.close(file)
        said: dict[str, Any] = {}
        for line in text.splitlines():
            for name, value in _line(bytes(line)).items():
                said.setdefault(name, value)
        if "request" not in said:
            return None
        pid, started, boot, since = said.get("process", (None, 0, "", 0.0))
        process = None if pid is None else Process(pid, started, boot)
        return Recorded(said["request"], process, since, said.get("ended_by"), said.get("exit"))

    def empty(self) -> bool:
        """Make the folder what it was before its job, for another one.

        False when the job has left anything in it, or changed what is ours. To make files and folders
        anew takes much longer, above all where some were just deleted: ext4 passes over what was in
        use minutes ago, one by one.
        """
        work, ours = self.root / WORK_NAME, (self.log.name, self._record.name)
        with os.scandir(self.root) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                if entry.name == WORK_NAME:
                    if found.st_mode != stat.S_IFDIR | 0o700 or any(work.iterdir()):
                        return False
                elif entry.name not in ours or not stat.S_ISREG(found.st_mode):
                    return False
                elif found.st_nlink > 1:
                    return False  # somebody could go on reading it elsewhere
        for path in (self.log, self._record):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600))
        return True

    def unlock(self) -> None:
        """Undo what the job may have done to its folder, so that we may enter and move it."""
        self.root.chmod(0o700)

    def _write(self, flags: int, data: bytes) -> None:
        file = self._open(flags)
        try:
            if os.write(file, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._record))
        finally:
            os.close(file)

    def _open(self, flags: int) -> int:
        try:
            return os.open(self._record, flags, 0o600)
        except PermissionError:
            self.unlock()
            self._record.chmod(0o600)
            return os.open(self._record, flags, 0o600)


def _line(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
