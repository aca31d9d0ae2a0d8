"""Logs of jobs that cannot call us, read from their platforms while somebody looks."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import Self

import structlog

from deepforge.compute.client import ComputeClient
from deepforge.connections.open import Opener
from deepforge.errors import DeepForgeError, RateLimited
from deepforge.events import Event, Events
from deepforge.execution.access import Address
from deepforge.execution.driver import Driver
from deepforge.execution.logs import LiveLogs
from deepforge.execution.model import Execution, Job, JobState
from deepforge.execution.platform_log import LogFinder, has_no_line
from deepforge.execution.store import ExecutionStore

log = structlog.get_logger()

LEAST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 60.0
"""While reading fails."""
FIRST_WITHIN_S = 3.0
READ_WITHIN_S = 300.0
BYTES_A_SECOND = 1024 * 1024
"""A platform may give its output from the beginning each time: so much of it on average, no more."""
OF_THE_TIME = 0.1
"""Part of the time that may be spent with reading."""
TELL_UP_TO_BYTES = 256 * 1024
"""What is told to those who listen, of one reading; they find the rest in the file soon after."""


class LogWatch:
    """Reads logs for whoever looks. An async context manager: leaving it ends what is being read.

    What is found goes where a log goes that is sent to us: into the live logs, and to those who listen.
    Outside the block nothing is read.
    """

    def __init__(
        self,
        store: ExecutionStore,
        opener: Opener,
        address: Address,
        driver: Driver,
        logs: LiveLogs,
        events: Events,
    ) -> None:
        self._store = store
        self._opener = opener
        self._address = address
        self._driver = driver
        self._logs = logs
        self._events = events
        self._readings: dict[str, _Reading] = {}  # by the attempt's key
        self._is_open = False

    async def __aenter__(self) -> Self:
        self._is_open = True
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._is_open = False
        tasks = [one.task for one in self._readings.values() if one.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def look(self, execution: Execution, job: Job, number: int) -> None:
        """Somebody looks at the log of this attempt: begin to read what is new of it, if its platform
        is to be asked, and it is time to. Never waits, raises nothing."""
        if not self._is_open or job.attempts[number - 1].runner is not None:
            return
        now_s = time.monotonic()
        key = job.key(number)
        reading = self._readings.get(key)
        if not _is_under_way(job, number):
            if reading is not None and reading.task is None:
                self._forget(job, number)
            return
        if reading is None:
            for old in [name for name, one in self._readings.items() if one.is_old(now_s)]:
                del self._readings[old]
            reading = self._readings[key] = _Reading((execution.owner, job.plan.compute))
        if reading.task is None and now_s >= reading.due_s:
            reading.task = asyncio.create_task(self._read(execution, job, reading))

    async def look_first(self, execution: Execution, job: Job, number: int) -> None:
        """As `look`, and wait a moment for the first answer: who asks only once wants to see it. Who
        asks again does not wait again."""
        self.look(execution, job, number)
        reading = self._readings.get(job.key(number))
        if reading is not None and reading.task is not None and not reading.was_awaited:
            await asyncio.wait({reading.task}, timeout=FIRST_WITHIN_S)
            reading.was_awaited = True

    async def _read(self, execution: Execution, job: Job, reading: _Reading) -> None:
        """Read once, and say when to read again."""
        began_s = time.monotonic()
        pause_s = LEAST_PAUSE_S
        try:
            async with asyncio.timeout(READ_WITHIN_S):
                compute = await self._opener.compute(job.plan.compute, owner=execution.owner)
                live = compute.capabilities.log == "live"
                if live and has_no_line(job.attempts[-1], compute, self._address):
                    together = sum(
                        one.place == reading.place and not one.is_old(began_s)
                        for one in self._readings.values()
                    )
                    pause_s = max(pause_s, compute.capabilities.poll_every_s * together)
                    shown_bytes = await self._pass_on(compute, job, reading)
                    pause_s = max(pause_s, shown_bytes / BYTES_A_SECOND)
            pause_s = max(pause_s, (time.monotonic() - began_s) / OF_THE_TIME)
            reading.failures = 0
        except Exception as error:  # readers go on, whatever nobody thought of
            reading.failures += 1
            if reading.failures == 1:
                _complain(job, error)
            pause_s = max(pause_s, min(pause_s * 2 ** min(reading.failures, 9), LONGEST_PAUSE_S))
            if isinstance(error, RateLimited):
                pause_s = max(pause_s, error.retry_after_s or 0.0)
        finally:
            reading.due_s = time.monotonic() + pause_s
            reading.was_awaited = True
            reading.task = None

    async def _pass_on(self, compute: ComputeClient, job: Job, reading: _Reading) -> int:
        """Pass on what is new; return how much the platform shows."""
        number = job.attempts[-1].number
        before_bytes = reading.before_bytes
        if before_bytes is None:
            start, finder = 0, LogFinder(job.key(number))
        else:
            kept_bytes = self._logs.size_bytes(job.execution, job.id, number) or 0
            start, finder = before_bytes + kept_bytes, LogFinder(job.key(number), kept_bytes)
        told_bytes = 0
        shown_bytes = start
        async with aclosing(compute.log(job.attempts[-1].handle or {}, start=start)) as chunks:
            async for chunk in chunks:
                shown_bytes += len(chunk)
                new = finder.feed(chunk)
                if before_bytes is None:
                    reading.before_bytes = finder.before_bytes
                if not new:
                    continue
                newest = await self._newest(job)
                if not _is_under_way(newest, number):  # its log may be stored by now, and dropped
                    break
                told_bytes += self._keep(job, number, finder.size_bytes - len(new), new, told_bytes)
        return shown_bytes

    def _forget(self, job: Job, number: int) -> None:
        """It is over. Who drives it drops its live log, but not one that is kept on another machine."""
        del self._readings[job.key(number)]
        if job.attempts[number - 1].log_bytes is not None:
            self._logs.drop(job.execution, job.id, number)

    def _keep(self, job: Job, number: int, start: int, data: bytes, told_bytes: int) -> int:
        """Append what is new, and tell of it; return how much that was."""
        new = self._logs.append(job.execution, job.id, number, start, data)
        if new and told_bytes < TELL_UP_TO_BYTES:
            start += len(data) - len(new)
            piece = {"job": job.id, "attempt": number, "start": start, "data": new}
            self._events.publish(Event(job.execution, "log", piece))
        return len(new)

    async def _newest(self, job: Job) -> Job:
        conductor = self._driver.conductor(job.execution)
        if conductor is not None and job.id in conductor.book:
            return conductor.book[job.id]
        return (await self._store.job(job.execution, job.id)).value


@dataclass(eq=False)
class _Reading:
    """What is known of one attempt's log at its platform. `place`: whose compute that is."""

    place: tuple[str, str]
    task: asyncio.Task[None] | None = None
    due_s: float = 0.0
    was_awaited: bool = False
    failures: int = 0
    before_bytes: int | None = None

    def is_old(self, now_s: float) -> bool:
        return self.task is None and now_s > self.due_s + LONGEST_PAUSE_S


def _is_under_way(job: Job, number: int) -> bool:
    """Whether the attempt has begun and not ended, as far as this job knows."""
    attempt = job.attempt
    return (
        attempt is not None
        and attempt.number == number
        and attempt.handle is not None
        and job.state in (JobState.RUNNING, JobState.COLLECTING)
    )


def _complain(job: Job, error: Exception) -> None:
    about = {"job": job.key(), "compute": job.plan.compute}
    if isinstance(error, DeepForgeError):
        log.warning("platform_log_unreadable", error=error.message, **about)
    elif isinstance(error, TimeoutError):
        log.warning("platform_log_unreadable", error=f"over {READ_WITHIN_S:.0f} s", **about)
    else:
        log.error("platform_log_unreadable", exc_info=error, **about)
