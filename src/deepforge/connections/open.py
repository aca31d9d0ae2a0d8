"""Open connections by name, once each, and keep them open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Self, TypeVar

from deepforge.compute.client import ComputeClient
from deepforge.compute.port import Host
from deepforge.compute.registry import open_compute
from deepforge.connections.store import Connection, Connections
from deepforge.storage.client import StorageClient
from deepforge.storage.registry import open_storage

LOCAL_OWNER = "local"

Client = TypeVar("Client", StorageClient, ComputeClient)


class Opener:
    """Opens storages and computes by name. An async context manager; leaving it closes them all.

    A client is opened once for each revision of a connection and stays good until the opener is
    closed, so whoever holds one is never cut off by an edit. `computes` is the folder in which each
    compute may keep what it must remember on this machine.
    """

    def __init__(self, connections: Connections, *, computes: Path) -> None:
        self._connections = connections
        self._computes = computes
        self._stack = AsyncExitStack()
        self._storages: dict[tuple[str, int], StorageClient] = {}
        self._compute_clients: dict[tuple[str, int], ComputeClient] = {}
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    async def storage(self, name: str, *, owner: str = LOCAL_OWNER) -> StorageClient:
        """Return the storage of that name. Close it not: the opener does.

        Raises `NotFound`, and `ConfigError` when its settings or secrets cannot be used any more.
        """
        connection = await self._connections.get("storage", name, owner=owner)

    async def compute(self, name: str, *, owner: str = LOCAL_OWNER) -> ComputeClient:
        """Return the compute of that name. Promises and errors as for `storage`."""
