"""Pools of workers: administrators make them, members let their jobs run there."""

from __future__ import annotations

from contextlib import suppress

from fastapi import APIRouter
from pydantic import BaseModel, Field

from deepforge.accounts.model import LOCAL_USER
from deepforge.errors import Conflict, InvalidRequest, NotFound
from deepforge.server.auth import AdminCaller, Caller, Principal
from deepforge.server.body import JsonRoute
from deepforge.server.services import InUse, Services
from deepforge.server.wire import Body, Page
from deepforge.webgme.jobs import CREATED, RUNNING
from deepforge.webgme.pools import Pool

router = APIRouter(route_class=JsonRoute, prefix="/pools", tags=["workers"])


class NewPool(Body):
    name: str
    members: list[str] = Field(default_factory=list)
    """Users who may have their jobs run there."""
    everyone: bool = False
    """Whether every user may."""


class PoolChange(Body):
    add: list[str] = Field(default_factory=list)
    remove: list[str] = Field(default_factory=list)
    everyone: bool | None = None
    """Null leaves it as it is."""


class PoolReply(BaseModel):
    name: str
    everyone: bool
    members: list[str] | None
    """Null for who is no administrator."""
    workers: int
    """How many are connected."""
    waiting: int
    running: int
    """How many jobs wait and run, of all members."""
    created_at: str


@router.get("", summary="List the pools of workers that one may use")
async def list_pools(caller: Caller, use: InUse) -> Page[PoolReply]:
    """Administrators see all."""
    return Page(items=[await _reply(use, caller, one) for one in await seen_by(use, caller)])


@router.post("", status_code=201, summary="Make a pool of workers")
async def add_pool(body: NewPool, caller: AdminCaller, use: InUse) -> PoolReply:
    """Workers join it with a token of the pool."""
    if not await use.users.exist():
        raise InvalidRequest(
            "a pool is shared by users, and this server has no accounts",
            hint="make some: deepforge users add NAME",
        )
    await _check_users(use, body.members)
    made = await use.hand_out.pools.add(body.name, body.members, everyone=body.everyone)
    return await _reply(use, caller, made)


@router.get("/{pool}", summary="Show a pool of workers")
async def read_pool(pool: str, caller: Caller, use: InUse) -> PoolReply:
    return await _reply(use, caller, await pool_seen(use, caller, pool))


@router.patch("/{pool}", summary="Change who may use a pool")
async def change_pool(pool: str, body: PoolChange, caller: AdminCaller, use: InUse) -> PoolReply:
    """Running jobs go on. What waits of somebody who may not use it any more does not start."""
    await _check_users(use, body.add)
    changed = await use.hand_out.pools.change(
        pool, add=body.add, remove=body.remove, everyone=body.everyone
    )
    return await _reply(use, caller, changed)


@router.delete("/{pool}", status_code=204, summary="Remove a pool, its tokens and its workers")
async def remove_pool(pool: str, caller: AdminCaller, use: InUse) -> None:
    """Refused while jobs wait or run there."""
    found = await use.hand_out.pools.get(pool)
    waiting, running = await _counts(use, found)
    if waiting or running:
        raise Conflict(
            f"the pool {pool!r} is in use: {waiting} jobs wait in its queue, {running} run",
            hint="take its members away, and what waits ends: "
            f"deepforge pools members {pool} --remove NAME --no-everyone; wait for what runs, or: "
            f"deepforge workers forget WORKER --pool {pool}",
        )
    await _revoke_all(use, found)
    for worker in await use.hand_out.registry.of_owner(found.owner):
        await use.hand_out.registry.forget(found.owner, worker.id)
    await use.hand_out.pools.remove(pool)
    await _revoke_all(use, found)  # those that were made meanwhile


async def seen_by(use: Services, caller: Principal) -> list[Pool]:
    """The pools that the caller may know of, by name."""
    return [
        one
        for one in await use.hand_out.pools.list()
        if caller.is_admin or one.admits(caller.owner)
    ]


async def pool_seen(use: Services, caller: Principal, name: str) -> Pool:
    """The pool of that name, if the caller may know of it. Raises `NotFound`."""
    pool = await use.hand_out.pools.get(name)
    if not caller.is_admin and not pool.admits(caller.owner):
        raise NotFound(f"there is no pool {name[:40]!r}", hint="see: deepforge pools list")
    return pool


async def _check_users(use: Services, names: list[str]) -> None:
    for name in names:
        if name != LOCAL_USER:
            await use.users.get(name)


async def _revoke_all(use: Services, pool: Pool) -> None:
    for token in await use.tokens.list(pool.owner):
        with suppress(NotFound):  # somebody else revoked it just now
            await use.tokens.revoke(pool.owner, token.name)


async def _counts(use: Services, pool: Pool) -> tuple[int, int]:
    """How many of its jobs wait, and run."""
    queue = use.hand_out.queue
    waiting, running = [
        len(await queue.of_owner(pool.owner, status=status)) for status in (CREATED, RUNNING)
    ]
    return waiting, running


async def _reply(use: Services, caller: Principal, pool: Pool) -> PoolReply:
    waiting, running = await _counts(use, pool)
    workers = await use.hand_out.registry.of_owner(pool.owner)
    return PoolReply(
        name=pool.name,
        everyone=pool.everyone,
        members=sorted(pool.members) if caller.is_admin else None,
        workers=sum(one.is_connected for one in workers),
        waiting=waiting,
        running=running,
        created_at=pool.created_at,
    )
