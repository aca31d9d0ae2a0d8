from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from deepforge.errors import AuthError, NotFound, StorageFull, Unavailable
from deepforge.ids import new_id
from deepforge.server.checks import check_compute, check_storage
from deepforge.server.services import Services
from deepforge.storage.client import StorageClient
from deepforge.storage.memory import MemoryAdapter, MemorySettings
from deepforge.storage.port import ObjectInfo


class Forgetful(MemoryAdapter):
    """Lists nothing, whatever was written."""

    def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        return super().list("nothing/begins/with/this")


class Full(MemoryAdapter):
    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectInfo:
        if size_bytes is not None and size_bytes > 1024 * 1024:
            raise StorageFull("no room", hint="make some")
        return await super().put(key, chunks, size_bytes=size_bytes, only_if_absent=only_if_absent)


class Keeping(MemoryAdapter):
    async def delete(self, keys: Sequence[str]) -> None:
        return None


async def opened(adapter: MemoryAdapter) -> StorageClient:
    return StorageClient(adapter, "one")


async def left(adapter: MemoryAdapter) -> list[str]:
    return [one.key async for one in MemoryAdapter.list(adapter, "")]


async def test_a_storage_that_works_passes_every_step_and_is_left_empty() -> None:
    adapter = MemoryAdapter(MemorySettings(shelf=new_id()))
    checks = await check_storage(lambda: opened(adapter), deep=True)

    assert [one.message for one in checks if not one.ok] == []
    assert [one.name for one in checks][:3] == ["open", "reach", "write and read"]
    assert await left(adapter) == []


async def test_without_deep_nothing_but_its_own_check_is_done() -> None:
    checks = await check_storage(lambda: opened(Full(MemorySettings(shelf=new_id()))), deep=False)

    assert [(one.name, one.ok) for one in checks] == [("open", True), ("reach", True)]


@pytest.mark.parametrize(
    ("kind", "step"), [(Forgetful, "list"), (Full, "a large object"), (Keeping, "delete")]
)
async def test_the_step_that_fails_is_the_last_and_says_why(
    kind: type[MemoryAdapter], step: str
) -> None:
    adapter = kind(MemorySettings(shelf=new_id()))
    checks = await check_storage(lambda: opened(adapter), deep=True)

    assert (checks[-1].name, checks[-1].ok) == (step, False)
    assert checks[-1].message
    assert all(one.ok for one in checks[:-1])
    assert kind is Keeping or await left(adapter) == []


@pytest.mark.parametrize("error", [AuthError("wrong key"), Unavailable("down"), NotFound("gone")])
async def test_a_connection_that_cannot_be_opened_is_a_failed_step(
    error: AuthError | Unavailable | NotFound,
) -> None:
    async def refuse() -> StorageClient:
        raise error

    checks = await check_storage(refuse, deep=True)

    assert [(one.name, one.ok, one.message) for one in checks] == [("open", False, error.message)]


async def test_the_compute_of_this_server_runs_a_job(services: Services) -> None:
    checks = await check_compute(lambda: services.opener.compute("server"), deep=True)

    assert [(one.name, one.ok, one.message) for one in checks] == [
        ("open", True, None),
        ("reach", True, None),
        ("run a job", True, None),
    ]
