"""The first processes that wait for a job: forked before they are needed, taken back after it."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

from deepforge.compute.server.launch import FirstProcess, News, Runner, Start


class Pool:
    """Some waiting processes, all alike."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._news = News()
        self._waiting: list[FirstProcess] = []

    @property
    def news(self) -> int:
        """A descriptor that is readable when a job has ended in a process that waits again."""
        return self._news.reader

    @property
    def pids(self) -> Iterator[int]:
        return (first.pid for first in self._waiting)

    def prepare(self) -> None:
        """Fork one more. Where that cannot be, it is tried again when a job needs it."""
        try:
            self._waiting.append(FirstProcess(self._runner, self._news))
        except OSError:
            traceback.print_exc()

    def hand_over(self, start: Start) -> FirstProcess:
        """Have a job started; return the process that does. Raises `OSError` when none can be."""
        while self._waiting:
            first = self._waiting.pop()
            try:
                first.start(start)
                return first
            except OSError:  # something killed it while it waited
                first.dismiss()
        first = FirstProcess(self._runner, self._news)
        try:
            first.start(start)
        except OSError:
            first.dismiss()
            raise
        return first

    def heard(self) -> list[tuple[int, str, int]]:
        """Return what is new: pid, key of the job that has ended in it, its recorded exit code."""
        return self._news.read()

    def take_back(self, first: FirstProcess, *, most: int) -> None:
        """Let it wait for another job; of more than `most` those go that wait longest."""
        self._waiting.append(first)
        while len(self._waiting) > most:
            self._waiting.pop(0).dismiss()

    def forget(self, pid: int) -> None:
        """It has ended, whatever for."""
        for first in [one for one in self._waiting if one.pid == pid]:
            self._waiting.remove(first)
            first.dismiss()

    def leave(self) -> None:
        """Let all go."""
        for first in self._waiting:
            first.dismiss()
