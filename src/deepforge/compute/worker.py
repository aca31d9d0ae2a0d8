"""WebGME Worker: jobs wait in our database until a worker of the user asks for one.

A worker is a program on the user's own machine: ours (`deepforge worker`), or the one of the WebGME
Executor Framework, which gets the same jobs as zip files. It needs no open port and no account of
ours on its machine. What a lost worker had is reported as a failure of its node.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from deepforge.compute.port import (
    Capabilities,
    ComputeAdapter,
    Host,
    JobHandle,
    JobReport,
    JobRequest,
    Reach,
    Refusal,
)
from deepforge.errors import ConfigError, Forbidden, NotFound, Unavailable
from deepforge.runner.build import runner_archive
from deepforge.settings import setting
from deepforge.webgme.jobs import CONFIG_FILE, CREATED, RUNNING, Job, is_overdue, report
from deepforge.webgme.pools import Pools, owner_of
from deepforge.webgme.queue import Queue
from deepforge.webgme.registry import Registry, WorkerView


@dataclass(frozen=True)
class WorkerSettings:
    """Which workers of the user may get the jobs."""

    labels: str = setting(
        "Labels that a worker must have to get these jobs, separated by commas; empty for any.",
        default="",
        example="gpu,lab-a",
    )
    pool: str = setting(
        "The pool of workers, shared with others, that gets these jobs; empty for your own workers.",
        default="",
        example="lab",
    )


class WorkerCompute(ComputeAdapter):
    """The user's queue, or that of a pool. Any number of these may be open on one database.

    A job's descendants that left its session are found by our worker on Linux, and not by the
    original one, which only interrupts the command itself.
    """

    capabilities = Capabilities(log="live", cancel_running=True, walltime=True, gpus=True)

    def __init__(self, settings: WorkerSettings, host: Host) -> None:
        super().__init__(settings, host)
        self.labels = tuple(one.strip() for one in settings.labels.split(",") if one.strip())
        self._pool = settings.pool.strip()
        self._owner = owner_of(self._pool) if self._pool else host.owner

    @cached_property
    def _queue(self) -> Queue:
        if self.host.records is None:
            raise ConfigError("the queue of workers needs a database, and none was given")
        return Queue(self.host.records, self.host.seal)

    @property
    def reaches_server(self) -> Reach:
        return "either"  # whoever got a job from us has reached us

    async def check(self) -> None:
        """Raises `Unavailable` when no worker is connected that would get these jobs, and `Forbidden`
        when they may not go to the pool."""
        await self._admit()
        wanted = set(self.labels)
        found = await Registry(self._queue.records).of_owner(self._owner)
        if any(one.is_connected and wanted <= set(one.labels) for one in found):
            return
        kind = f"worker with the labels {', '.join(self.labels)}" if wanted else "worker"
        whose = f"of the pool {self._pool!r}" if self._pool else "of yours"
        raise Unavailable(
            f"no {kind} {whose} is connected; jobs would wait until one is",
            hint="start one on the machine that shall do the work: "
            "deepforge worker --url URL --token TOKEN",
        )

    async def why_not(self, request: JobRequest) -> Sequence[Refusal]:
        if CONFIG_FILE in request.files:
            return [Refusal("files", f"{CONFIG_FILE} is the name of a file of ours")]
        try:
            await self._admit()
        except Forbidden as error:
            return [Refusal("compute", error.message, error.hint)]
        return []

    async def submit(self, request: JobRequest) -> JobHandle:
        await self._admit()
        archive = runner_archive()
        shared = [name for name, data in request.files.items() if data == archive]
        hash = await self._queue.submit(
            self._owner,
            request.key,
            request.command,
            request.files,
            runner_file=shared[0] if shared else None,
            resources=request.resources,
            labels=self.labels,
            about=request.labels,
            user=self.host.owner if self._pool else None,
        )
        return {"hash": hash}

    async def poll(self, handles: Sequence[JobHandle]) -> list[JobReport]:
        hashes = [_hash(handle) for handle in handles]
        found = await self._queue.jobs(self._owner, sorted(set(hashes)))
        now_s = time.time()
        for hash, job in found.items():
            if is_overdue(job, now_s):
                await self._queue.end_overdue(self._owner, hash)
        if any(job.status == CREATED for job in found.values()):
            try:
                await self._admit()
            except Forbidden as error:  # not any more: they would wait for a turn that never comes
                for hash in found:
                    found[hash] = await self._queue.refuse(self._owner, hash, error.message)
        silent = await self._silent(found.values())
        return [
            _told(found[hash], silent)
            if hash in found and found[hash].is_attempt
            else JobReport("missing")
            for hash in hashes
        ]

    async def cancel(self, handles: Sequence[JobHandle]) -> None:
        for handle in handles:
            try:
                await self._queue.cancel(self._owner, _hash(handle))
            except NotFound:
                continue  # whoever was released has ended

    def log(self, handle: JobHandle, *, start: int = 0) -> AsyncIterator[bytes]:
        return self._queue.printed(self._owner, _hash(handle), start=start)

    async def release(self, handle: JobHandle) -> None:
        await self._queue.release(self._owner, _hash(handle))

    async def _silent(self, found: Collection[Job]) -> dict[str, WorkerView]:
        """The workers of these jobs that were not heard of for a minute, by id."""
        ids = sorted({job.worker for job in found if job.status == RUNNING and job.worker})
        workers = await Registry(self._queue.records).some(self._owner, ids) if ids else []
        return {one.id: one for one in workers if not one.is_connected}

    async def _admit(self) -> None:
        """Raises `Forbidden` when the jobs are for a pool that this user may not use now."""
        if self._pool:
            await Pools(self._queue.records).admit(self._pool, self.host.owner)


def _told(job: Job, silent: Mapping[str, WorkerView]) -> JobReport:
    """How the job is; also that nobody has heard of its worker, which may come back."""
    worker = silent.get(job.worker or "") if job.status == RUNNING else None
    if worker is None:
        return report(job)
    words = f"its worker {worker.id} is silent since {worker.seen_at[:19]}Z"
    if {"execution", "job"} <= job.about.keys():
        words += (
            "; to wait for it no longer: "
            f"deepforge executions give-up {job.about['execution']} {job.about['job']}"
        )
    return replace(report(job), message=words)


def _hash(handle: JobHandle) -> str:
    return str(handle.get("hash") or "-")
