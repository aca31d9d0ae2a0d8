"""The instructions of the machine, done: submit, collect, cancel, release. Each ends in an event.

Whatever a compute or a storage cannot answer now is asked again with growing pauses: "unknown" is
never "failed".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

import structlog

from deepforge.compute.client import ComputeClient
from deepforge.compute.port import JobHandle, JobReport
from deepforge.connections.open import Opener
from deepforge.errors import AuthError, DeepForgeError, StorageFull
from deepforge.execution import collect
from deepforge.execution.handover import Handover
from deepforge.execution.logs import LiveLogs
from deepforge.execution.machine import Accepted, Collected, NoResult, Refused
from deepforge.execution.model import Execution, Job, JobState
from deepforge.execution.platform_log import LogFinder, has_no_line
from deepforge.projects.artifacts import Artifacts
from deepforge.runner.protocol import Failure

log = structlog.get_logger()

T = TypeVar("T")

PLATFORM_LOG_BYTES = 4000
PLATFORM_LOG_TRIES = 3
RELEASED_AT_ONCE = 8
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


class Effects:
    """Does what the machine says. No state of its own; safe for many jobs at once."""

    def __init__(
        self,
        opener: Opener,
        handover: Handover,
        artifacts: Artifacts,
        logs: LiveLogs,
    ) -> None:
        self._opener = opener
        self._handover = handover
        self._artifacts = artifacts
        self._logs = logs

    async def submit(
        self,
        execution: Execution,
        job: Job,
        give_up: Callable[[], bool],
        trouble: Callable[[str | None], Awaitable[None]],
    ) -> Accepted | Refused:
        """Hand the current attempt over, at most once: its key is the same however often we ask.

        While a login has expired it is asked again until the user has logged in, unless `give_up`
        says that nobody waits for it any more; `trouble` is told as by `collect`.
        """
        number = job.attempts[-1].number
        step = ""

        async def hand_over() -> JobHandle:
            nonlocal step
            handing = step = f"handed to compute {job.plan.compute!r}"
            compute = await self._opener.compute(job.plan.compute, owner=execution.owner)
            step = f"prepared with storage {execution.storage!r}"
            request = await self._handover.request(execution, job)
            step = handing
            return await compute.submit(request)

        async def tell(text: str | None) -> None:
            await trouble(None if text is None else f"a job could not be {step}: {text}")

        try:
            handle = await _insist(hand_over, give_up, tell, _is_expired)
        except DeepForgeError as error:
            log.warning("job_refused", job=job.key(), step=step, error=error.message)
            return Refused(number, _failure(error, step))
        log.info("job_submitted", job=job.key(), compute=job.plan.compute)
        return Accepted(number, handle)

    async def collect(
        self,
        execution: Execution,
        job: Job,
        report: JobReport | None,
        give_up: Callable[[], bool],
        trouble: Callable[[str | None], Awaitable[None]],
    ) -> Collected | NoResult:
        """Read the attempt's result and publish its artifacts.

        Asks for as long as the storage gives no answer, unless `give_up` says that nobody waits for
        it any more; `trouble` hears what is wrong meanwhile, and None when it is over.
        """
        number = job.attempts[-1].number
        asked = ""

        async def ask() -> Collected | None:
            nonlocal asked
            asked = f"storage {execution.storage!r}"
            storage = await self._opener.storage(execution.storage, owner=execution.owner)
            found = await collect.read(storage, job)
            asked = "the database"
            if found is not None:
                found = await collect.learn(self._artifacts, job, found)
            if found is not None and found.result.status == "succeeded":
                return await collect.publish(self._artifacts, execution, job, found)
            return found

        async def tell(text: str | None) -> None:
            await trouble(None if text is None else f"{asked}: {text}")

        try:
            found = await _insist(ask, give_up, tell)
        except DeepForgeError as error:
            await self._platform_log(execution, job)
            return NoResult(number, JobReport("exited", message=f"{asked}: {error.message}"))
        if found is not None:
            return found
        report = report or await self._last_word(execution, job)
        return NoResult(number, report, await self._platform_log(execution, job))

    async def cancel(self, execution: Execution, job: Job) -> None:
        """Ask the compute to end the current attempt. Its end is heard of by polling."""
        handle = job.attempts[-1].handle
        if handle is None:
            return
        compute = await self._opener.compute(job.plan.compute, owner=execution.owner)
        await compute.cancel([handle])
        log.info("job_cancel_sent", job=job.key())

    def drop_log(self, job: Job, number: int) -> None:
        """Drop the live log of an attempt that has ended, if it is stored or not needed."""
        if job.attempts[number - 1].log_bytes is not None or job.state is JobState.SUCCEEDED:
            self._logs.drop(job.execution, job.id, number)

    async def release(
        self, execution: Execution, ended: Sequence[tuple[Job, int]]
    ) -> list[tuple[Job, int]]:
        """Let the computes forget attempts that have ended; return those to ask about again.

        A runner tells of its result shortly before it ends, and what still runs is not released.
        """
        by_compute: dict[str, list[tuple[Job, int]]] = {}
        for job, number in ended:
            if job.attempts[number - 1].handle is not None:
                by_compute.setdefault(job.plan.compute, []).append((job, number))
        later = []
        for name, some in by_compute.items():
            try:
                compute = await self._opener.compute(name, owner=execution.owner)
                handles = [job.attempts[number - 1].handle or {} for job, number in some]
                over = []
                for one, handle, report in zip(
                    some, handles, await compute.poll(handles), strict=True
                ):
                    if report.state in ("queued", "running"):
                        later.append(one)
                    else:
                        over.append(handle)
                for start in range(0, len(over), RELEASED_AT_ONCE):
                    await asyncio.gather(
                        *map(compute.release, over[start : start + RELEASED_AT_ONCE])
                    )
            except DeepForgeError as error:
                log.warning("release_failed", compute=name, error=error.message)
                later += [one for one in some if one not in later] if error.transient else []
        return later

    async def _last_word(self, execution: Execution, job: Job) -> JobReport:
        """What the compute says of an attempt that is over, as the runner or an earlier server knew."""
        handle = job.attempts[-1].handle
        if handle is not None:
            try:
                compute = await self._opener.compute(job.plan.compute, owner=execution.owner)
                (report,) = await compute.poll([handle])
            except DeepForgeError as error:
                log.warning("last_poll_failed", job=job.key(), error=error.message)
            else:
                if report.state in ("exited", "cancelled"):
                    return report
        return JobReport("exited", message="it finished, and its result is not there")

    async def _platform_log(self, execution: Execution, job: Job) -> str:
        """The end of what the platform said, for a message. What of it is the log is kept whole, if
        nobody else has it. A platform that does not answer is asked again, but not for long."""
        if job.attempts[-1].handle is None:
            return ""
        for number in range(1, PLATFORM_LOG_TRIES + 1):
            try:
                compute = await self._opener.compute(job.plan.compute, owner=execution.owner)
                tail = await self._keep_platform_log(compute, job)
                return tail.decode("utf-8", "replace").strip()
            except DeepForgeError as error:
                log.warning("platform_log_unreadable", job=job.key(), error=error.message)
                if not error.transient or number == PLATFORM_LOG_TRIES:
                    break
            await asyncio.sleep(FIRST_PAUSE_S * number)
        return ""

    async def _keep_platform_log(self, compute: ComputeClient, job: Job) -> bytes:
        attempt = job.attempts[-1]
        is_kept = has_no_line(attempt, compute, self._handover.address)
        finder = LogFinder(job.key())
        tail = b""

        def keep(data: bytes) -> None:
            if data and is_kept:
                start = finder.size_bytes - len(data)
                self._logs.append(job.execution, job.id, attempt.number, start, data)

        async with aclosing(compute.log(attempt.handle or {})) as chunks:
            async for chunk in chunks:
                tail = (tail + chunk)[-PLATFORM_LOG_BYTES:]
                keep(finder.feed(chunk))
        keep(finder.rest())
        return tail


async def _insist(
    ask: Callable[[], Awaitable[T]],
    give_up: Callable[[], bool],
    trouble: Callable[[str | None], Awaitable[None]],
    mends: Callable[[DeepForgeError], bool] | None = None,
) -> T:
    """Ask until there is an answer. Errors that waiting may mend are asked again, others come out."""
    mends = mends or _may_be_mended
    pause_s = FIRST_PAUSE_S
    told = False
    while True:
        try:
            answer = await ask()
        except DeepForgeError as error:
            if not mends(error) or give_up():
                raise
            log.warning("waits_for_an_answer", error=error.message, pause_s=pause_s)
            await trouble(str(error))
            told = True
        else:
            if told:
                await trouble(None)
            return answer
        await asyncio.sleep(pause_s)
        pause_s = min(LONGEST_PAUSE_S, pause_s * 2)


def _may_be_mended(error: DeepForgeError) -> bool:
    return error.transient or isinstance(error, AuthError | StorageFull)


def _is_expired(error: DeepForgeError) -> bool:
    return isinstance(error, AuthError) and error.expired


def _failure(error: DeepForgeError, step: str) -> Failure:
    return Failure(
        "runner",
        f"the job could not be {step}: {error.message}",
        transient=error.transient,
        hint=error.hint,
    )
