"""Cancelling: the signals that end a job, and the places that look whether one has come."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType
from typing import Any, Callable, Dict, Iterator, Mapping, Optional

from deepforge.runner.failures import Cancelled
from deepforge.runner.protocol import ENV_PATIENCE

PATIENCE_S = 60.0


class Watch:
    """Whether the job was cancelled. `trap` belongs to the main thread, the rest to every thread.

    While `interrupts` is true a signal raises `Cancelled` right where the main thread is, so that
    it need not wait for a silent server; otherwise it only sets `cancelled` and wakes `wake_fd`.
    """

    def __init__(self) -> None:
        self.cancelled = False
        self.interrupts = False
        self.wake_fd = -1
        self.tick: Optional[Callable[[], None]] = None
        self._wake_writer = -1
        self._before: Dict[int, Any] = {}
        self._wakeup_before = -1

    def trap(self) -> None:
        """Answer TERM and INT from now on. Undo with `release`."""
        self.wake_fd, self._wake_writer = os.pipe()
        os.set_blocking(self.wake_fd, False)
        os.set_blocking(self._wake_writer, False)
        self._wakeup_before = signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._on_end)
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _on_child)

    def release(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self.wake_fd)
        os.close(self._wake_writer)

    def cancel(self) -> None:
        """Cancel from any thread: as if TERM had come, so that the main thread wakes up."""
        if self.cancelled:
            return
        self.cancelled = True
        os.kill(os.getpid(), signal.SIGTERM)

    def check(self) -> None:
        """Raise `Cancelled` if it is time to. Long work calls this every second or so."""
        if self.cancelled:
            raise Cancelled()
        if self.tick is not None:
            self.tick()

    def drain(self) -> None:
        """Empty the wake-up pipe."""
        try:
            while os.read(self.wake_fd, 512):
                pass
        except BlockingIOError:
            pass

    def _on_end(self, number: int, frame: Optional[FrameType]) -> None:
        self.cancelled = True
        if self.interrupts:
            self.interrupts = False  # once: what follows is cleaning up
            raise Cancelled()


def _on_child(number: int, frame: Optional[FrameType]) -> None:
    """Nothing to do: the signal wakes the loop through the wake-up pipe."""


def pause(seconds: float, check: Callable[[], None]) -> None:
    """Sleep, unless `check` raises."""
    end = time.monotonic() + seconds
    while True:
        check()
        left = end - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, 0.2))


class Patience:
    """How long to try again: `silent_s` while nobody is reached, no longer than usual with one who
    answers, but with trouble."""

    def __init__(self, silent_s: float) -> None:
        self._silent_s = silent_s
        self._silent = growing_pauses(silent_s)
        self._answered = self._usual()

    def next_pause(self, *, answered: bool) -> Optional[float]:
        """The seconds to wait before the next try. None: it was tried for long enough."""
        if answered:
            return next(self._answered, None)
        self._answered = self._usual()  # whoever comes back after an outage may need a moment
        return next(self._silent, None)

    def _usual(self) -> Iterator[float]:
        return growing_pauses(min(self._silent_s, PATIENCE_S))


def patience_of(settings: Mapping[str, str]) -> float:
    """For how many seconds this machine tries to reach whoever is silent."""
    try:
        return max(0.0, float(settings.get(ENV_PATIENCE, PATIENCE_S)))
    except ValueError:
        return PATIENCE_S


def growing_pauses(total_s: float, first_s: float = 0.1, longest_s: float = 8.0) -> Iterator[float]:
    """Pauses between attempts, doubling, a little random, while less than `total_s` have passed."""
    end, pause = time.monotonic() + total_s, first_s
    while time.monotonic() < end:
        yield min(pause, longest_s) * (0.75 + os.urandom(1)[0] / 512)
        pause *= 2
