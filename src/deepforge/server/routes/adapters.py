"""Which storage and compute adapters are installed, and the forms to connect them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from deepforge import plugins
from deepforge.errors import ConfigError
from deepforge.plugins import AdapterInfo, Broken, Port
from deepforge.server.auth import Caller
from deepforge.server.wire import Page
from deepforge.settings import json_schema

router = APIRouter(prefix="/adapters", tags=["adapters"])


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
