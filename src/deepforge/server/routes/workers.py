"""Workers and the queue as their user sees them, and giving up an attempt whose worker is silent."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from deepforge.errors import Conflict, Forbidden, InvalidRequest, NotFound, NotSupported
from deepforge.server.auth import Caller, Principal
from deepforge.server.body import JsonRoute
from deepforge.server.routes.pools import pool_seen, seen_by
from deepforge.server.services import InUse, Services
from deepforge.server.views import whole_view
from deepforge.server.wire import After, ExecutionReply, Limit, Page, page
from deepforge.webgme.jobs import CREATED, RUNNING, Job
from deepforge.webgme.pools import Pool
from deepforge.webgme.registry import WorkerView
from deepforge.webgme.workers import Room, need_of, why_it_waits

router = APIRouter(route_class=JsonRoute, tags=["workers"])

OfPool = Annotated[str | None, Query(description="Of this pool, not of the caller's own.")]


class RoomReply(BaseModel):
    cpus: float
    memory_bytes: int
    gpus: int


class WorkerJob(BaseModel):
    """A job that a worker has. `execution` and `job` are null for a job that is no attempt."""

    id: str
    execution: str | None
    job: str | None
    since: str | None
    cancel_requested: bool


class WorkerReply(BaseModel):
    """A worker. What only our own worker tells of its machine is null for others."""

    id: str
    pool: str | None
    """The pool it works for; null for one of the caller's own."""
    name: str
    status: str
    """`connected`, or `silent` when it was not heard of for a minute."""
    is_ours: bool
    last_seen_at: str
    first_seen_at: str
    labels: list[str]
    version: str | None
    python: str | None
    platform: str | None
    total: RoomReply | None
    free: RoomReply | None
    jobs: list[WorkerJob]
    """The caller's own."""
    jobs_of_others: int
    """How many it has of other members of its pool."""


class QueuedJob(BaseModel):
    """A job that waits. `position` counts from 1 in the order of hand-out."""

    position: int
    id: str
    execution: str | None
    job: str | None
    labels: list[str]
    cpus: int | None
    memory_bytes: int | None
    gpus: int | None
    waiting_since: str
    reason: str
    """Why it is not running, in plain words."""


@router.get("/workers", summary="List workers and what each runs")
async def list_workers(
    caller: Caller, use: InUse, after: After = None, limit: Limit = 100
) -> Page[WorkerReply]:
    """The caller's own, then those of the pools that the caller may use; administrators see those of
    all pools."""
    found: list[WorkerReply] = []
    for pool in (None, *await seen_by(use, caller)):
        owner = caller.owner if pool is None else pool.owner
        running = await use.hand_out.queue.of_owner(owner, status=RUNNING)
        found += [
            _worker(caller, pool, one, running)
            for one in await use.hand_out.registry.of_owner(owner)
        ]
    left = [one for one in sorted(found, key=_place) if _place(one) > (after or "")]
    return page(left[: limit + 1], limit, lambda one: one, _place)


@router.get("/workers/{worker:path}", summary="Show one worker")
async def read_worker(worker: str, caller: Caller, use: InUse, pool: OfPool = None) -> WorkerReply:
    seen = None if pool is None else await pool_seen(use, caller, pool)
    owner = caller.owner if seen is None else seen.owner
    found = await use.hand_out.registry.get(owner, worker)
    held = await use.hand_out.queue.held(owner, worker)
    return _worker(caller, seen, found, list(held.values()))


@router.delete("/workers/{worker:path}", status_code=204, summary="Forget a worker")
async def forget_worker(worker: str, caller: Caller, use: InUse, pool: OfPool = None) -> None:
    """What it runs counts as lost, and is tried again elsewhere. It is there again when it asks.
    Those of a pool are for administrators."""
    seen = None if pool is None else await pool_seen(use, caller, pool)
    if seen is not None and not caller.is_admin:
        raise Forbidden("only administrators may forget the workers of a pool", hint="ask one")
    await use.hand_out.forget(caller.owner if seen is None else seen.owner, worker)


@router.get("/queue", summary="List the jobs that wait for a worker, first come first")
async def list_queue(
    caller: Caller, use: InUse, after: After = None, limit: Limit = 100, pool: OfPool = None
) -> Page[QueuedJob]:
    """Of a pool's queue the caller's own jobs, each with its place among all that wait there."""
    seen = None if pool is None else await pool_seen(use, caller, pool)
    owner = caller.owner if seen is None else seen.owner
    position, since = _cursor(after)
    workers = [one.offer for one in await use.hand_out.registry.of_owner(owner) if one.is_connected]
    found: list[QueuedJob] = []
    async for saved in use.hand_out.queue.with_status(owner, CREATED, since=since):
        if saved.job.created_at == since:
            continue
        position += 1
        if not saved.job.is_of(caller.owner):
            continue
        reason = why_it_waits(need_of(saved.job), workers)
        found.append(_queued(saved.job, position, reason))
        if len(found) > limit:
            break
    return page(found, limit, lambda one: one, lambda one: f"{one.position}:{one.waiting_since}")


@router.post(
    "/executions/{execution}/jobs/{job}/give-up",
    status_code=202,
    summary="Count the attempt of a job as lost by its worker",
)
async def give_up(execution: str, job: str, caller: Caller, use: InUse) -> ExecutionReply:
    """A new attempt follows, as after every loss. Whatever the worker still reports is ignored."""
    view = await use.executions.get(execution, caller.owner)
    found = next((one for one in view.jobs if one.id == job), None)
    if found is None:
        raise NotFound(f"execution {execution} has no job {job[:80]!r}")
    if not found.state.is_active:
        raise Conflict(f"job {job} is {found.state}: there is no attempt to give up")
    attempt = await _attempt(use, caller, found.key())
    if attempt is None:
        raise NotSupported(
            "giving up an attempt",
            f"job {job} is not run by a worker",
            hint="cancel the execution, or wait for its compute to say how it ended",
        )
    if attempt.status == CREATED:
        raise Conflict(
            f"no worker has job {job} yet: there is nothing to give up",
            hint="see why it waits: deepforge workers queue; or cancel the execution",
        )
    await use.hand_out.give_up(attempt.owner, attempt.hash, "it was given up")
    return await whole_view(use, await use.executions.get(execution, caller.owner))


async def _attempt(use: Services, caller: Principal, key: str) -> Job | None:
    """The job of a key of the caller's, in the own queue or in that of any pool."""
    owners = [one.owner for one in await use.hand_out.pools.list()]
    for owner in (caller.owner, *owners):
        with suppress(NotFound):
            return await use.hand_out.queue.attempt(owner, key)
    return None


def _place(one: WorkerReply) -> str:
    """By it workers are sorted, the caller's own first."""
    return f"{one.pool or ''} {one.id}"


def _worker(
    caller: Principal, pool: Pool | None, one: WorkerView, running: list[Job]
) -> WorkerReply:
    held = [job for job in running if job.worker == one.id]
    own = [job for job in held if job.is_of(caller.owner)]
    return WorkerReply(
        id=one.id,
        pool=None if pool is None else pool.name,
        name=one.name,
        status="connected" if one.is_connected else "silent",
        is_ours=one.is_ours,
        last_seen_at=one.seen_at,
        first_seen_at=one.first_seen_at,
        labels=list(one.labels),
        version=one.version or None,
        python=one.python or None,
        platform=one.platform or None,
        total=_room(one.total),
        free=_room(one.free),
        jobs=[
            WorkerJob(
                id=job.hash,
                execution=job.about.get("execution"),
                job=job.about.get("job"),
                since=job.handed_at,
                cancel_requested=job.cancel,
            )
            for job in own
        ],
        jobs_of_others=len(held) - len(own),
    )


def _room(room: Room | None) -> RoomReply | None:
    return None if room is None else RoomReply(**asdict(room))


def _queued(job: Job, position: int, reason: str) -> QueuedJob:
    return QueuedJob(
        position=position,
        id=job.hash,
        execution=job.about.get("execution"),
        job=job.about.get("job"),
        labels=list(job.labels),
        cpus=job.resources.cpus,
        memory_bytes=job.resources.memory_bytes,
        gpus=job.resources.gpus,
        waiting_since=job.created_at,
        reason=reason,
    )


def _cursor(after: str | None) -> tuple[int, str | None]:
    if after is None:
        return 0, None
    position, _, since = after.partition(":")
    if not (position.isascii() and position.isdigit() and len(position) < 12) or not since:
        raise InvalidRequest("after is not the `next` of a page", part="after")
    return int(position), since
