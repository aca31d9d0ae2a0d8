"""Which storage and compute adapters are installed, and the forms to connect them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from deepforge import plugins
from deepforge.compute.client import ComputeClient
from deepforge.errors import ConfigError
from deepforge.plugins import AdapterInfo, Broken, Port
from deepforge.server.auth import Caller
from deepforge.server.body import JsonRoute
from deepforge.server.offered import ChoicesReply, offered_by
from deepforge.server.services import InUse
from deepforge.server.wire import Body, Page
from deepforge.settings import json_schema
from deepforge.storage.client import StorageClient

router = APIRouter(route_class=JsonRoute, prefix="/adapters", tags=["adapters"])


class Draft(Body):
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """What is filled in so far: all that the adapter requires, and a secret of the service."""


class AdapterReply(BaseModel):
    """One installed adapter. A broken one is listed with the reason, and has no schema."""

    model_config = ConfigDict(serialize_by_alias=True)

    id: str
    title: str
    summary: str
    settings_schema: dict[str, Any] | None = Field(alias="schema")
    """JSON schema of its settings; secrets are write-only passwords."""
    broken: str | None = None


@router.get("/{port}", summary="List the installed adapters of a port")
async def list_adapters(port: Port, caller: Caller) -> Page[AdapterReply]:
    return Page(items=[_reply(one) for one in plugins.adapters(port)])


@router.post("/{port}/{adapter}/choices", summary="List what a service offers for settings")
async def list_choices(
    port: Port, adapter: str, body: Draft, caller: Caller, use: InUse
) -> ChoicesReply:
    """For a form: nothing is kept. Without a secret, the service is asked with the login of what you
    have at the same account."""
    made = await use.connections.draft(port, adapter, body.settings, owner=caller.owner)
    if not made.capabilities.choices:
        return ChoicesReply(items=[])
    async with made:
        client = StorageClient if port == "storage" else ComputeClient
        return await offered_by(client(made, adapter))


def _reply(one: AdapterInfo | Broken) -> AdapterReply:
    if isinstance(one, Broken):
        return AdapterReply(id=one.id, title=one.id, summary="", schema=None, broken=one.reason)
    try:
        schema = json_schema(one.settings_class())
    except (ConfigError, TypeError) as error:  # a part it needs is not installed, or its own fault
        return AdapterReply(
            id=one.id, title=one.title, summary=one.summary, schema=None, broken=str(error)
        )
    return AdapterReply(id=one.id, title=one.title, summary=one.summary, schema=schema)
