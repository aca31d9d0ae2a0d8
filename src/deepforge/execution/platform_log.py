"""The log of a job that cannot call us, as its platform shows it.

Such a runner prints the log between two marks (`runner.protocol.log_marks`), so its bytes are known from
all else that a platform shows, and count as those of the log that is stored in the end.
"""

from __future__ import annotations

from deepforge.compute.client import ComputeClient
from deepforge.execution.access import Address
from deepforge.execution.model import Attempt
from deepforge.runner import protocol

LONGEST_LOG_BYTES = protocol.Limits().log_bytes + 1024 * 1024
"""What a runner keeps of a log, and its own notes."""


class LogFinder:
    """Takes what a platform shows, piece by piece, and gives what of it is the log of an attempt.

    `passed_bytes`: the first piece begins behind so many bytes of the log; None: at the beginning.
    """

    def __init__(self, attempt: str, passed_bytes: int | None = None) -> None:
        self._first, self._last = protocol.log_marks(attempt)
        self._is_inside = passed_bytes is not None
        self._is_over = False
        self._held = b""
        self._before_bytes = 0
        self.size_bytes = passed_bytes or 0
        """How much of the log was given so far."""

    @property
    def before_bytes(self) -> int | None:
        """How much of what was taken stood before the log, the mark with it; None: all of it."""
        return self._before_bytes if self._is_inside else None

    def feed(self, data: bytes) -> bytes:
        """Return the bytes of the log that `data` brings. What may be a part of a mark waits."""
        if self._is_over:
            return b""
        data, self._held = self._held + data, b""
        if not self._is_inside:
            before, mark, data = data.partition(self._first)
            if not mark:
                self._held = before[1 - len(self._first) :]
                self._before_bytes += len(before) - len(self._held)
                return b""
            self._before_bytes += len(before) + len(mark)
            self._is_inside = True
        data, mark, _ = data.partition(self._last)
        self._is_over = bool(mark)
        if not mark:
            end = len(data) - _shared(data, self._last)
            data, self._held = data[:end], data[end:]
        return self._given(data)

    def rest(self) -> bytes:
        """Return what waited, when nothing more will come."""
        held, self._held = self._held, b""
        return self._given(held) if self._is_inside and not self._is_over else b""

    def _given(self, data: bytes) -> bytes:
        data = data[: max(0, LONGEST_LOG_BYTES - self.size_bytes)]
        self.size_bytes += len(data)
        return data


def _shared(data: bytes, mark: bytes) -> int:
    """How many bytes at the end of `data` may be the beginning of the mark."""
    longest = min(len(data), len(mark) - 1)
    return next((size for size in range(longest, 0, -1) if data.endswith(mark[:size])), 0)


def has_no_line(attempt: Attempt, compute: ComputeClient, address: Address) -> bool:
    """Whether the job of this attempt cannot call us, so that its platform alone shows its log."""
    return attempt.runner is None and address.channel(compute, "any", "") is None
