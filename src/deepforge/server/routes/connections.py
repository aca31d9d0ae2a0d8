"""Named storages and computes: add, look, check, remove. Secrets go in and never come out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, JsonValue

from deepforge.connections.store import Connection
from deepforge.plugins import Port
from deepforge.server.auth import Caller
from deepforge.server.body import JsonRoute
from deepforge.server.checks import check_compute, check_storage
from deepforge.server.offered import ChoicesReply, offered_by
from deepforge.server.removal import remove_connection
from deepforge.server.services import InUse
from deepforge.server.wire import Body, Page

router = APIRouter(route_class=JsonRoute, prefix="/connections", tags=["connections"])


class NewConnection(Body):
    name: str
    adapter: str
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """Settings of the adapter, secrets among them."""


class NewSecrets(Body):
    secrets: dict[str, str | None]
    """Secrets of the adapter by name; null forgets one."""


class ConnectionReply(BaseModel):
    """A storage or compute under a name. A `builtin` one cannot be removed."""

    name: str
    port: Port
    adapter: str
    settings: dict[str, Any]
    secrets: list[str]
    """Names of the secrets that are set."""
    created_at: str | None
    builtin: bool


class CheckRequest(Body):
    deep: bool = False
    """Use all of it in a scratch place that is emptied afterwards, not only a short look."""


class CheckStep(BaseModel):
    name: str
    ok: bool
    seconds: float
    message: str | None
    hint: str | None


class CheckReply(BaseModel):
    ok: bool
    seconds: float
    checks: list[CheckStep]


@router.get("/{port}", summary="List storages or computes")
async def list_connections(port: Port, caller: Caller, use: InUse) -> Page[ConnectionReply]:
    found = await use.connections.list(port, owner=caller.owner)
    return Page(items=[_reply(one) for one in found])


@router.get("/{port}/{name}", summary="Show one storage or compute")
async def read_connection(port: Port, name: str, caller: Caller, use: InUse) -> ConnectionReply:
    return _reply(await use.connections.get(port, name, owner=caller.owner))


@router.post("/{port}", status_code=201, summary="Add a storage or compute")
async def add_connection(
    port: Port, body: NewConnection, caller: Caller, use: InUse
) -> ConnectionReply:
    return _reply(
        await use.connections.add(port, body.name, body.adapter, body.settings, owner=caller.owner)
    )


@router.patch("/{port}/{name}", summary="Replace secrets of a storage or compute")
async def replace_secrets(
    port: Port, name: str, body: NewSecrets, caller: Caller, use: InUse
) -> ConnectionReply:
    """Running executions go on with them: with a new login in place of one that ended, say."""
    return _reply(
        await use.connections.replace_secrets(port, name, body.secrets, owner=caller.owner)
    )


@router.delete("/{port}/{name}", status_code=204, summary="Forget a storage or compute")
async def forget_connection(
    port: Port,
    name: str,
    caller: Caller,
    use: InUse,
    force: Annotated[bool, Query(description="Also a storage in which artifacts lie.")] = False,
) -> None:
    """Its secrets are forgotten too; the data in it stay where they are. Refused while a running
    execution refers to it."""
    await remove_connection(use, port, name, caller.owner, force=force)


@router.post("/{port}/{name}/check", summary="Prove that a storage or compute works")
async def check_connection(
    port: Port, name: str, body: CheckRequest, caller: Caller, use: InUse
) -> CheckReply:
    """Whether it does is in the answer: a check that failed is no error of this request."""
    await use.connections.allowed(port, name, owner=caller.owner)
    if port == "storage":
        checks = await check_storage(
            lambda: use.opener.storage(name, owner=caller.owner), deep=body.deep
        )
    else:
        checks = await check_compute(
            lambda: use.opener.compute(name, owner=caller.owner), deep=body.deep
        )
    return CheckReply(
        ok=all(one.ok for one in checks),
        seconds=sum(one.seconds for one in checks),
        checks=[CheckStep(**asdict(one)) for one in checks],
    )


@router.get("/{port}/{name}/choices", summary="List what the service offers for settings")
async def read_choices(port: Port, name: str, caller: Caller, use: InUse) -> ChoicesReply:
    await use.connections.allowed(port, name, owner=caller.owner)
    open = use.opener.storage if port == "storage" else use.opener.compute
    return await offered_by(await open(name, owner=caller.owner))


def _reply(one: Connection) -> ConnectionReply:
    return ConnectionReply(
        name=one.name,
        port=one.port,
        adapter=one.adapter,
        settings=dict(one.settings),
        secrets=sorted(one.secret_names),
        created_at=one.created_at or None,
        builtin=one.revision == 0,
    )
