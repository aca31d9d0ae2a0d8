"""The user's open jobs: one list for all who ask, as rarely as is polite."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from deepforge.compute.sciserver.racm import Racm
from deepforge.compute.sciserver.records import Job
from deepforge.compute.sciserver.turns import Turns
from deepforge.errors import ConfigError, RateLimited, Unavailable

LONGEST_PAUSE_S = 30.0
QUEUES_EVERY_S = 60.0
_OF_THE_TIME = 0.1
"""Part of the time for which nothing changed that may pass until the next look."""


class Board:
    """What is known of one user's open jobs. For many tasks of one event loop.

    A list that is older than a pause is asked for again; the pause is longer while nothing changes.
    What is not on it may have been submitted since, by another server: look at it by its id. A service
    that fails is left alone for a while, longer each time.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._jobs: dict[int, Job] = {}
        self._asked_at_s = 0.0
        self._read_at_s: float | None = None
        self._changed_at_s = 0.0
        self._failure: _Failure | None = None
        self._queues: Any = None
        self._queues_at_s: float | None = None

    async def look(
        self, racm: Racm, every_s: float, turns: Turns | None = None
    ) -> Mapping[str, Sequence[Job]]:
        """The open jobs by their labels. Asks the service only when it is time to, and in turn with
        other processes."""
        await racm.session.token()  # what one user's calls found is for that user's calls
        async with self._lock:
            now_s = time.monotonic()
            if self._read_at_s is None or now_s - self._read_at_s >= self._pause_s(now_s, every_s):
                jobs = {one.id: one for one in await self._ask(racm, every_s, turns)}
                if jobs != self._jobs:
                    self._changed_at_s = self._asked_at_s
                if jobs.keys() - self._jobs.keys():
                    self._queues = None
                self._jobs, self._read_at_s = jobs, self._asked_at_s
        found: dict[str, list[Job]] = {}
        for one in sorted(self._jobs.values(), key=lambda one: one.id):
            if one.phase != "over":
                found.setdefault(one.label, []).append(one)
        return found

    async def queues(self, racm: Racm, turns: Turns | None = None) -> Any:
        """The table of the queues, at most a minute old and with all jobs in it; None while there is
        none, or it is another process's turn to ask."""
        async with self._lock:
            now_s = time.monotonic()
            pause_s = QUEUES_EVERY_S / (2 if self._queues is None else 1)
            if self._queues_at_s is None or now_s - self._queues_at_s >= pause_s:
                self._queues, self._queues_at_s = None, now_s
                if turns is None or turns.take("queues", QUEUES_EVERY_S / 2):
                    with suppress(
                        Unavailable, RateLimited, ConfigError
                    ):  # it is for a message only
                        self._queues = await racm.queues()
        return self._queues

    def labelled(self, label: str) -> list[int]:
        """The ids of the open jobs with this label, as far as is known. Asks nobody."""
        return [one.id for one in self._jobs.values() if one.label == label and one.phase != "over"]

    def note(self, job: Job) -> None:
        """This job was submitted, or looked at by itself."""
        if job.id not in self._jobs:
            self._queues = None  # what it says of places was said of other jobs
        self._jobs[job.id] = job
        self._changed_at_s = time.monotonic()

    async def _ask(self, racm: Racm, every_s: float, turns: Turns | None) -> list[Job]:
        before = self._failure
        if before is not None and time.monotonic() < before.until_s:
            raise Unavailable(before.message)
        if turns is not None:
            await turns.wait("jobs", every_s)
        self._asked_at_s = time.monotonic()
        try:
            jobs = await racm.open_jobs()
        except (Unavailable, RateLimited) as error:
            pause_s = every_s if before is None else min(2 * before.pause_s, LONGEST_PAUSE_S)
            waits_s = pause_s * (1.0 + random.random() / 2)  # never less than between two lists
            if isinstance(error, RateLimited):
                waits_s = max(waits_s, error.retry_after_s or 0.0)
            self._failure = _Failure(error.message, pause_s, time.monotonic() + waits_s)
            raise
        self._failure = None
        return jobs

    def _pause_s(self, now_s: float, every_s: float) -> float:
        quiet_s = (now_s - self._changed_at_s) * _OF_THE_TIME
        return min(max(every_s, quiet_s), max(every_s, LONGEST_PAUSE_S))


@dataclass(frozen=True)
class _Failure:
    message: str
    pause_s: float
    until_s: float


def board_of(site: str, username: str) -> Board:
    """The board that all connections of a user share in this event loop."""
    boards = _BOARDS.setdefault(asyncio.get_running_loop(), {})
    return boards.setdefault((site.lower(), username), Board())


_BOARDS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], Board]] = (
    WeakKeyDictionary()
)
