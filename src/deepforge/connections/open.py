"""Open connections by name, once each, and keep them open."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar

from deepforge.compute.client import ComputeClient
from deepforge.compute.port import Host
from deepforge.compute.registry import open_compute
from deepforge.connections.store import Connection, Connections
from deepforge.errors import ConfigError
from deepforge.plugins import Port
from deepforge.storage.client import StorageClient
from deepforge.storage.registry import open_storage

LOCAL_OWNER = "local"

LOOKED_UP_S = 2.0
"""How long a name stands for the same connection without looking again: jobs ask all the time."""

Client = TypeVar("Client", StorageClient, ComputeClient)


class Opener:
    """Opens storages and computes by name. An async context manager; leaving it closes them all.

    Each is opened once, however many ask at once, and stays open until the opener is closed: whoever
    holds a client is never cut off because the connection was removed. Callers do not close clients.
    `computes` is the folder in which each compute may keep what lasts on this machine.
    """

    def __init__(self, connections: Connections, *, computes: Path) -> None:
        self._connections = connections
        self._computes = computes
        self._stack = AsyncExitStack()
        self._clients: dict[tuple[str, int], Any] = {}  # of the port of the connection with this id
        self._looked_up: dict[tuple[Port, str, str], _LookedUp] = {}
        self._opening: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._clients.clear()
        await self._stack.aclose()

    async def storage(self, name: str, *, owner: str = LOCAL_OWNER) -> StorageClient:
        """Return the owner's storage of that name, open.

        Raises `NotFound` listing the names there are, `ConfigError` when its settings or secrets
        cannot be used, and what opening it raises. A failure is not kept: the next call tries again.
        """
        connection = await self._connection("storage", name, owner)
        return await self._once(
            connection, lambda values: open_storage(name, connection.adapter, values)
        )

    async def compute(self, name: str, *, owner: str = LOCAL_OWNER) -> ComputeClient:
        """Return the owner's compute of that name, open. Errors as for `storage`."""
        connection = await self._connection("compute", name, owner)
        return await self._once(
            connection,
            lambda values: open_compute(
                name, connection.adapter, values, Host(self._folder(connection))
            ),
        )

    async def _connection(self, port: Port, name: str, owner: str) -> Connection:
        asked = (port, name, owner)
        found = self._looked_up.get(asked)
        now, changes = time.monotonic(), self._connections.changes
        if found is None or found.changes != changes or now - found.at > LOOKED_UP_S:
            connection = await self._connections.get(port, name, owner=owner)
            found = self._looked_up[asked] = _LookedUp(connection, changes, now)
        return found.connection

    def _folder(self, connection: Connection) -> Path:
        folder = self._computes / connection.id
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"the folder {folder} cannot be made: {error.strerror}") from error
        return folder

    async def _once(
        self,
        connection: Connection,
        make: Callable[[Mapping[str, Any]], AbstractAsyncContextManager[Client]],
    ) -> Client:
        key = (connection.id, connection.revision)
        if key not in self._clients:
            async with self._opening[key]:
                if key not in self._clients:
                    settings = await self._connections.settings_of(connection)
                    values = {one.name: getattr(settings, one.name) for one in fields(settings)}
                    self._clients[key] = await self._stack.enter_async_context(make(values))
        client: Client = self._clients[key]
        return client


@dataclass(frozen=True)
class _LookedUp:
    connection: Connection
    changes: int
    at: float
