"""The instructions of the machine, done: submit, collect, cancel, release. Each ends in an event.

Whatever a compute or a storage cannot answer now is asked again with growing pauses: "unknown" is
never "failed".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from deepforge.compute.port import JobReport
from deepforge.connections.open import Opener
from deepforge.errors import AuthError, DeepForgeError, StorageFull
from deepforge.execution import collect
from deepforge.execution.handover import Handover
from deepforge.execution.logs import LiveLogs
from deepforge.execution.machine import Accepted, Collected, NoResult, Refused
from deepforge.execution.model import Execution, Job, JobState
from deepforge.projects.artifacts import Artifacts
from deepforge.runner.protocol import Failure

log = structlog.get_logger()

T = TypeVar("T")

PLATFORM_LOG_BYTES = 4000
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0

_ENDS_SOON_S = (0.02, 0.05, 0.1, 0.3, 1.0, 3.0)
"""A runner tells of its result shortly before it ends; a job that still runs is not released."""


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

    async def submit(self, execution: Execution, job: Job) -> Accepted | Refused:
        """Hand the current attempt over, at most once: its key is the same however often we ask."""
        number = job.attempts[-1].number
        taker = f"storage {execution.storage!r}"
        try:
            request = await self._handover.request(execution, job)
            taker = f"compute {job.plan.compute!r}"
            compute = await self._opener.compute(job.plan.compute, owner=execution.owner)
            handle = await compute.submit(request)
        except DeepForgeError as error:
            log.warning("job_refused", job=job.key(), by=taker, error=error.message)
            return Refused(number, _failure(error, taker))
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

        async def ask() -> Collected | None:
            storage = await self._opener.storage(execution.storage, owner=execution.owner)
            found = await collect.read(storage, job)
            if found is not None and found.result.status == "succeeded":
                return await collect.publish(self._artifacts, execution, job, found)
            return found

        try:
            found = await _insist(ask, give_up, trouble)
        except DeepForgeError as error:
            said = JobReport("exited", message=f"storage {execution.storage!r}: {error.message}")
            return NoResult(number, said)
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

    async def release(self, execution: Execution, job: Job, number: int) -> None:
        """Let the compute forget an attempt that has ended, and drop its live log if it is stored."""
        attempt = job.attempts[number - 1]
        if attempt.log_bytes is not None or job.state is JobState.SUCCEEDED:
            self._logs.drop(job.execution, job.id, number)
        if attempt.handle is not None:
            compute = await self._opener.compute(job.plan.compute, owner=execution.owner)
            for pause_s in _ENDS_SOON_S:
                (report,) = await compute.poll([attempt.handle])
                if report.state not in ("queued", "running"):
                    break
                await asyncio.sleep(pause_s)
            await compute.release(attempt.handle)

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
        """The end of what the platform said; for a message, so no answer is a good answer too."""
        handle = job.attempts[-1].handle
        if handle is None:
            return ""
        try:
            compute = await self._opener.compute(job.plan.compute, owner=execution.owner)
            tail = b""
            async for chunk in compute.log(handle):
                tail = (tail + chunk)[-PLATFORM_LOG_BYTES:]
        except DeepForgeError as error:
            log.warning("platform_log_unreadable", job=job.key(), error=error.message)
            return ""
        return tail.decode("utf-8", "replace").strip()


async def _insist(
    ask: Callable[[], Awaitable[T]],
    give_up: Callable[[], bool],
    trouble: Callable[[str | None], Awaitable[None]],
) -> T:
    """Ask until there is an answer. Errors that waiting may mend are asked again, others come out."""
    pause_s = FIRST_PAUSE_S
    told = False
    while True:
        try:
            answer = await ask()
        except DeepForgeError as error:
            mendable = error.transient or isinstance(error, AuthError | StorageFull)
            if not mendable or give_up():
                raise
            log.warning("collect_waits", error=error.message, pause_s=pause_s)
            await trouble(str(error))
            told = True
        else:
            if told:
                await trouble(None)
            return answer
        await asyncio.sleep(pause_s)
        pause_s = min(LONGEST_PAUSE_S, pause_s * 2)


def _failure(error: DeepForgeError, what: str) -> Failure:
    return Failure(
        "runner",
        f"the job could not be handed to {what}: {error.message}",
        transient=error.transient,
        hint=error.hint,
    )
