"""Open connections by name, once each, and keep them open."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar

from deepforge.compute.client import ComputeClient
from deepforge.compute.port import Host, Records, Seal
from deepforge.compute.registry import open_compute
from deepforge.connections.store import DEFAULT_COMPUTE, LOCAL_OWNER, Connection, Connections
from deepforge.documents.port import Collection
from deepforge.errors import ConfigError
from deepforge.plugins import Port
from deepforge.storage.client import StorageClient
from deepforge.storage.receipts import RECEIPTS, Receipts
from deepforge.storage.registry import open_storage

COLLECTIONS = (Collection(RECEIPTS),)

LOOKED_UP_S = 2.0
"""How long a name stands for the same connection without looking again: jobs ask all the time."""

Client = TypeVar("Client", StorageClient, ComputeClient)


class Opener:
    """Opens storages and computes by name. An async context manager; leaving it closes them all.

    Each is opened once, however many ask at once, and stays open until the opener is closed: whoever
    holds a client is never cut off because a storage was removed. Callers do not close clients.
    `computes` is the folder in which each compute may keep what lasts on this machine, `records` are
    what it may keep in the database, secrets only through `seal`.
    """

    def __init__(
        self,
        connections: Connections,
        *,
        computes: Path,
        records: Records | None = None,
        seal: Seal | None = None,
    ) -> None:
        self._connections = connections
        self._computes = computes
        self._records = records
        self._seal = seal
        # by id and revision of the connection, and for whom, if that matters
        self._clients: dict[tuple[str, int, str], _Opened] = {}
        self._looked_up: dict[tuple[Port, str, str], _LookedUp] = {}
        self._opening: defaultdict[tuple[str, int, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        async with AsyncExitStack() as stack:
            for one in self._clients.values():
                stack.push_async_exit(one.stack)
            self._clients.clear()

    async def storage(self, name: str, *, owner: str = LOCAL_OWNER) -> StorageClient:
        """Return the owner's storage of that name, open.

        Raises `NotFound` listing the names there are, `ConfigError` when its settings, secrets or
        endpoints cannot be used, and what opening it raises. A failure is not kept: the next call
        tries again.
        """
        connection = await self._connection("storage", name, owner)
        return await self._once(
            connection,
            lambda values: open_storage(
                name,
                connection.adapter,
                values,
                admit=lambda endpoints: self._connections.admit(connection, endpoints),
                receipts=None if self._records is None else Receipts(self._records, connection.id),
            ),
        )

    async def compute(self, name: str, *, owner: str = LOCAL_OWNER) -> ComputeClient:
        """Return the owner's compute of that name, open. Errors as for `storage`.

        One that the environment defines is everybody's, and opened for each: it may ask for whom.
        """
        connection = await self._connection("compute", name, owner)
        is_defined = not connection.owner and connection.id != DEFAULT_COMPUTE
        return await self._once(
            connection,
            lambda values: self._opened_compute(connection, name, values, owner),
            owner=owner if is_defined else "",
        )

    async def allow(self, port: Port, name: str, *, owner: str) -> None:
        """Raise `Forbidden` unless the owner may begin something with it, `NotFound` as above."""
        await self._connections.allowed(port, name, owner=owner)

    async def discard(self, compute: Connection) -> None:
        """Close a compute that was removed, and delete the folder that it kept on this machine.

        For one that has no jobs. Safe to repeat.
        """
        for key in [key for key in self._clients if key[0] == compute.id]:
            await self._clients.pop(key).stack.aclose()
        folder = self._computes / compute.id
        gone = self._computes / f".removed-{compute.id}"
        with suppress(FileNotFoundError):  # it was never opened
            folder.rename(gone)  # at once: nobody begins anything in what is half deleted
        await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)

    async def _connection(self, port: Port, name: str, owner: str) -> Connection:
        asked = (port, name, owner)
        found = self._looked_up.get(asked)
        now, changes = time.monotonic(), self._connections.changes
        if found is None or found.changes != changes or now - found.at > LOOKED_UP_S:
            connection = await self._connections.get(port, name, owner=owner)
            found = self._looked_up[asked] = _LookedUp(connection, changes, now)
        return found.connection

    @asynccontextmanager
    async def _opened_compute(
        self, connection: Connection, name: str, values: Mapping[str, Any], owner: str
    ) -> AsyncIterator[ComputeClient]:
        host = Host(self._folder(connection), self._records, owner, self._seal)
        client = open_compute(name, connection.adapter, values, host)
        await self._connections.admit(connection, client.endpoints)
        async with client:
            yield client

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
        owner: str = "",
    ) -> Client:
        key = (connection.id, connection.revision, owner)
        if key not in self._clients:
            async with self._opening[key]:
                if key not in self._clients:
                    settings = await self._connections.settings_of(connection)
                    values = {one.name: getattr(settings, one.name) for one in fields(settings)}
                    async with AsyncExitStack() as stack:
                        client = await stack.enter_async_context(make(values))
                        self._clients[key] = _Opened(client, stack.pop_all())
        opened: Client = self._clients[key].client
        return opened


@dataclass(frozen=True)
class _Opened:
    client: Any  # a client of the connection's port
    stack: AsyncExitStack


@dataclass(frozen=True)
class _LookedUp:
    connection: Connection
    changes: int
    at: float
