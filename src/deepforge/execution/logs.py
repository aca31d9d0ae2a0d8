"""Live logs: what jobs print while they run, kept in files until the log is in the storage."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class LiveLogs:
    """One file an attempt, under one folder. Short blocking calls on a local disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def append(self, execution: str, job: str, attempt: int, start: int, data: bytes) -> bytes:
        """Keep the part of `data` that is new and return it.

        `data` begins at byte `start` of the log. Bytes that are there already are skipped, so a
        repeated call changes nothing, also by two processes at once; bytes behind a gap are left out:
        the sender's next call begins where we are.
        """
        path = self._path(execution, job, attempt)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
            size_bytes = file.seek(0, os.SEEK_END)
            new = data[size_bytes - start :] if start <= size_bytes else b""
            file.write(new)  # there, not wherever the end is by now: somebody may write the same
            return new

    def size_bytes(self, execution: str, job: str, attempt: int) -> int | None:
        """How much is kept, or None when nothing was ever sent (or it was dropped)."""
        try:
            return self._path(execution, job, attempt).stat().st_size
        except FileNotFoundError:
            return None

    def read(
        self, execution: str, job: str, attempt: int, start: int, limit_bytes: int
    ) -> bytes | None:
        """The bytes from `start`, at most `limit_bytes`; None when nothing is kept."""
        try:
            with self._path(execution, job, attempt).open("rb") as file:
                file.seek(start)
                return file.read(limit_bytes)
        except FileNotFoundError:
            return None

    def drop(self, execution: str, job: str, attempt: int) -> None:
        """The log is in the storage now. Absent is fine."""
        path = self._path(execution, job, attempt)
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # other logs are still there
            path.parent.rmdir()

    def _path(self, execution: str, job: str, attempt: int) -> Path:
        return self._folder / execution / f"{job}-{attempt}.log"
