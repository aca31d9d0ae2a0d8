"""Links to SciServer as their user sees them: until when each lasts, and the room there is."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from deepforge.connections.store import Connection
from deepforge.errors import DeepForgeError
from deepforge.execution.model import ExecutionView
from deepforge.ids import epoch_s, utc_now
from deepforge.plugins import Port
from deepforge.sciserver.hosts import Hosts
from deepforge.server.auth import Caller
from deepforge.server.body import JsonRoute
from deepforge.server.services import InUse, Services
from deepforge.server.wire import Page

router = APIRouter(route_class=JsonRoute, tags=["connections"])

_ADAPTER = "sciserver"
_SOON_S = 3 * 3600.0
LOOK_WITHIN_S = 20.0
"""How long a site may take: whoever asks gives up after a minute, and a run is to begin after this."""
_PORTS: tuple[Port, ...] = ("storage", "compute")


class LinkReply(BaseModel):
    """The SciServer account of one storage or compute."""

    port: Port
    name: str
    site: str
    username: str
    ends_at: str | None
    """When it has to be linked again; null for one with a password, and for one that is not linked."""
    ends_soon: bool
    """Whether that is in less than three hours: what runs longer waits for another link then."""
    renews_itself: bool
    """Whether there is a password, that works."""
    problem: str | None
    hint: str | None
    volume: str | None
    used_bytes: int | None
    limit_bytes: int | None
    """The quota that the volume counts towards; null where there is none."""


@router.get("/sciserver", summary="Show the links to SciServer")
async def list_links(
    caller: Caller,
    use: InUse,
    names: Annotated[
        list[str] | None, Query(alias="name", description="Of these storages and computes alone.")
    ] = None,
    execution: Annotated[
        str | None, Query(description="Of those alone that this execution needs.")
    ] = None,
) -> Page[LinkReply]:
    """Asks SciServer about each. What is wrong with one is in the answer."""
    if execution is not None:
        view = await use.executions.get(execution, caller.owner)
        names = [*(names or ()), *_needed(view)]
    found = [
        one
        for port in _PORTS
        for one in await use.connections.list(port, owner=caller.owner)
        if one.adapter == _ADAPTER and (names is None or one.name in names)
    ]
    return Page(items=await asyncio.gather(*(_look_at(use, one) for one in found)))


def _soon_s() -> float:
    return epoch_s(utc_now()) + _SOON_S


def _needed(view: ExecutionView) -> set[str]:
    """The storages and computes that an execution, or what is left of it, has to do with."""
    inputs = {one.ref.storage for job in view.jobs for one in job.values.values()}
    return {view.execution.storage, *(job.plan.compute for job in view.jobs), *inputs}


async def _look_at(use: Services, one: Connection) -> LinkReply:
    reply = LinkReply(
        port=one.port,
        name=one.name,
        site=str(one.settings.get("site", "")),
        username=str(one.settings.get("username", "")),
        ends_at=None,
        ends_soon=False,
        renews_itself=False,
        problem=None,
        hint=None,
        volume=None,
        used_bytes=None,
        limit_bytes=None,
    )
    try:
        async with asyncio.timeout(LOOK_WITHIN_S):
            await _fill_in(use, one, reply)
    except DeepForgeError as error:
        reply.problem, reply.hint = error.message, error.hint
    except TimeoutError:
        reply.problem = f"{reply.site} did not answer within {LOOK_WITHIN_S:.0f} s"
    return reply


async def _fill_in(use: Services, one: Connection, reply: LinkReply) -> None:
    # here: they bring an HTTP client along, which a server starts without
    from deepforge.sciserver.files import FileService
    from deepforge.sciserver.session import Session
    from deepforge.sciserver.volumes import Volume, find_volume, room_of

    settings = await use.connections.settings_of(one)
    hosts = Hosts.of(settings.site)
    reply.site, reply.username = hosts.site, settings.username
    await use.connections.admit(one, {"site": hosts.site})
    async with Session(hosts, settings.username, settings.password, settings.token) as session:
        await session.token()
        reply.renews_itself = session.renews_itself
        reply.ends_at = None if session.renews_itself else session.expires_at
        reply.ends_soon = reply.ends_at is not None and epoch_s(reply.ends_at) < _soon_s()
        if one.port == "compute":
            return
        volume = Volume.named(settings.volume, pool=settings.pool, username=settings.username)
        reply.volume = volume.path
        files = FileService(session)
        found = await find_volume(files, volume, settings.username)
        room = room_of(await files.usage(), found, settings.username)
        if room is not None:
            reply.used_bytes, reply.limit_bytes = room.used_bytes, room.limit_bytes
