"""The log of one attempt, kept in a file while it grows.

What an operation prints is kept byte for byte, with one exception: of a line that overwrites itself
with carriage returns, as progress bars do, only the state that is current when the log is flushed
is kept, and the longer the line goes on, the rarer that is: an hour of a progress bar leaves some
hundred states instead of megabytes. Each kept state after the first begins with a carriage return,
so a terminal shows the log as it was.
"""

from __future__ import annotations

import os
from typing import Any, Optional, Tuple

from deepforge.runner.files import write_all
from deepforge.runner.protocol import Log

FLUSH_EVERY_S = 0.5
_RARER = 50.0  # a line that goes on for t seconds is flushed every t / 50 seconds
_LONGEST_STATE = 64 * 1024


class Spool:
    """Append with `feed`; call `flush` when `flush_at_s` has come.

    `size_bytes` of the file may be read at any time, by other threads too. With `marks` what is in the
    file is printed, too, between these two (see `protocol.log_marks`).
    """

    def __init__(
        self, path: str, limit_bytes: int, *, marks: Optional[Tuple[bytes, bytes]] = None
    ) -> None:
        self.path = path
        self.size_bytes = 0
        self.lines = 0
        self.dropped_bytes = 0
        self._limit_bytes = limit_bytes
        self._marks = marks
        self._printed = False
        self._file: Optional[Any] = None
        self._inside = False  # the file ends within a line
        self._held = b""  # the newest state of that line, not written yet
        self._line_since_s = 0.0
        self._flushed_at_s = 0.0

    @property
    def flush_at_s(self) -> Optional[float]:
        """When `flush` has something to do, on the clock of `feed`."""
        if not self._held.strip(b"\r"):
            return None
        return self._flushed_at_s + max(
            FLUSH_EVERY_S, (self._flushed_at_s - self._line_since_s) / _RARER
        )

    def feed(self, data: bytes, now_s: float) -> None:
        """Take the next bytes that were printed."""
        begins = not self._inside and not self._held
        data, self._held = self._held + data, b""
        if b"\r" not in data:
            self._write(data)
            return
        whole, newline, rest = data.rpartition(b"\n")
        if newline:
            first, *others = whole.split(b"\n")
            lines = [_last_state(first, self._inside)]
            lines.extend(_last_state(line, False) for line in others)
            self._write(b"\n".join(lines) + b"\n")
        if newline or begins:
            self._line_since_s = self._flushed_at_s = now_s
        if rest:
            self._held = _last_state(rest, self._inside) + _end(rest)
            if len(self._held) > _LONGEST_STATE:
                self._write_held()

    def flush(self, now_s: float) -> None:
        """Write the current state of a line that overwrites itself, if it is time."""
        due_s = self.flush_at_s
        if due_s is not None and now_s >= due_s:
            self._flushed_at_s = now_s
            self._write_held()

    def note(self, text: str) -> None:
        """Add a line of our own, whatever the limit."""
        self._write_held()
        start = b"\n" if self._inside else b""
        self._append(start + b"[deepforge] " + text.encode("utf-8", "replace") + b"\n")
        self._held = b""

    def close(self) -> None:
        """Write what is held and say what was dropped. Nothing may be fed afterwards."""
        self._write_held()
        if self.dropped_bytes:
            self.note(
                "%d more bytes were printed and not kept; a log may have %d."
                % (self.dropped_bytes, self._limit_bytes)
            )
        if self._printed:
            self._print((self._marks or (b"", b""))[1])
        if self._file is not None:
            self._file.close()

    def summary(self, digest: Optional[str]) -> Log:
        lines = self.lines + (1 if self._inside else 0)
        return Log(self.size_bytes, lines, digest, self.dropped_bytes)

    def _write_held(self) -> None:
        held, self._held = self._held, b""
        self._write(held[:-1] if _end(held) else held)
        self._held = _end(held)

    def _write(self, data: bytes) -> None:
        room = max(0, self._limit_bytes - self.size_bytes)
        self.dropped_bytes += max(0, len(data) - room)
        self._append(data[:room])

    def _append(self, data: bytes) -> None:
        if not data:
            return
        try:
            if self._file is None:
                self._file = open(self.path, "wb", buffering=0)
            write_all(self._file, memoryview(data))
        except OSError:  # a full disk: the operation goes on, the log says how much is missing
            self.dropped_bytes += len(data)
            return
        self.size_bytes += len(data)
        self.lines += data.count(b"\n")
        self._inside = not data.endswith(b"\n")
        if self._marks is not None:
            self._print(data if self._printed else self._marks[0] + data)
            self._printed = True

    def _print(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(1, data) :]
        except OSError:
            self._marks = None  # nobody is there any more to see it


def _last_state(line: bytes, inside: bool) -> bytes:
    """What is left of a line that overwrote itself; `inside`: the file has a part of it already."""
    states = line.split(b"\r")
    while len(states) > 1 and not states[-1]:
        states.pop()
    return b"\r" + states[-1] if inside and len(states) > 1 else states[-1]


def _end(text: bytes) -> bytes:
    """The carriage return at the end, if there is one: what comes next overwrites the line."""
    return b"\r" if text.endswith(b"\r") else b""
