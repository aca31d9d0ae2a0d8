"""A storage that chooses its own keys, read by those that were chosen for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from deepforge.connections.open import COLLECTIONS
from deepforge.documents.port import DocumentStore
from deepforge.documents.registry import open_documents
from deepforge.errors import AlreadyExists, NotFound
from deepforge.ids import new_id
from deepforge.storage.client import StorageClient
from deepforge.storage.memory import MemoryAdapter, MemorySettings
from deepforge.storage.port import ObjectInfo
from deepforge.storage.receipts import Receipts
from deepforge.testing.storage_exam import stream


class ByContent(MemoryAdapter):
    """Keeps objects under the sha256 of their bytes."""

    capabilities = replace(MemoryAdapter.capabilities, chosen_keys=False, range_get=False)

    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectInfo:
        info = await super().put(f"drafts/{new_id()}", chunks)
        data, _ = self._objects.pop(info.key)
        stored = replace(info, key=(info.etag or "").removeprefix("sha256:"))
        self._objects[stored.key] = data, stored
        return stored


@pytest.fixture
async def documents(tmp_path: Path) -> AsyncIterator[DocumentStore]:
    async with open_documents(f"sqlite:///{tmp_path / 'documents.db'}", COLLECTIONS) as opened:
        yield opened


def opened(documents: DocumentStore, storage: str = "one", shelf: str = "") -> StorageClient:
    adapter = ByContent(MemorySettings(shelf or f"receipts-{new_id()}"))
    return StorageClient(adapter, "lab", receipts=Receipts(documents, storage))


async def test_an_object_is_found_by_the_key_it_was_put_under(documents: DocumentStore) -> None:
    client = opened(documents)

    ref = await client.put_bytes("executions/x/result.json", b"abcdef")

    assert "executions/x/result.json" != ref.key
    for key in ("executions/x/result.json", ref.key):
        assert b"abcdef" == await client.get_bytes(key, limit_bytes=9)
        assert ref.key == (await client.stat(key)).key
        part = [chunk async for chunk in client.get_range(key, start=2, end=4)]
        assert b"cd" == b"".join(part)
    by_name = replace(ref, key="executions/x/result.json")
    assert b"abcdef" == b"".join([chunk async for chunk in client.get_stream(by_name)])
    assert ref == await client.copy(by_name, "a/copy")


async def test_what_was_put_last_is_what_the_key_means(documents: DocumentStore) -> None:
    client = opened(documents)
    first = await client.put_bytes("log.txt", b"first")
    await client.put_bytes("log.txt", b"second")

    assert b"second" == await client.get_bytes("log.txt", limit_bytes=9)
    assert b"first" == await client.get_bytes(first, limit_bytes=9)


async def test_many_puts_of_one_key_leave_one_of_them(documents: DocumentStore) -> None:
    client = opened(documents)
    contents = [f"{number}".encode() for number in range(10)]

    await asyncio.gather(*(client.put_bytes("key", one) for one in contents))

    assert await client.get_bytes("key", limit_bytes=9) in contents


async def test_a_key_that_must_be_new_is_taken_once(documents: DocumentStore) -> None:
    client = opened(documents)
    contents = [f"{number}".encode() for number in range(6)]

    puts = (client.put_bytes("key", one, only_if_absent=True) for one in contents)
    results = await asyncio.gather(*puts, return_exceptions=True)

    (winner,) = [one for one in results if not isinstance(one, BaseException)]
    assert all(isinstance(one, AlreadyExists) for one in results if one is not winner)
    assert contents[results.index(winner)] == await client.get_bytes("key", limit_bytes=9)
    with pytest.raises(AlreadyExists):
        await client.put_bytes("key", b"later", only_if_absent=True)


async def test_a_put_that_fails_leaves_what_the_key_meant(documents: DocumentStore) -> None:
    client = opened(documents)
    await client.put_bytes("key", b"former")

    async def breaks() -> AsyncIterator[bytes]:
        yield b"some"
        raise ValueError("gone")

    with pytest.raises(ValueError, match="gone"):
        await client.put_stream("key", breaks())

    assert b"former" == await client.get_bytes("key", limit_bytes=9)


async def test_receipts_of_two_storages_are_apart_and_last(documents: DocumentStore) -> None:
    shelf = f"receipts-{new_id()}"
    await opened(documents, "one", shelf).put_bytes("key" * 300, b"abc")

    with pytest.raises(NotFound):
        await opened(documents, "two", shelf).stat("key" * 300)
    again = opened(documents, "one", shelf)
    assert b"abc" == await again.get_bytes("key" * 300, limit_bytes=3)


async def test_a_storage_that_keeps_our_keys_needs_none(documents: DocumentStore) -> None:
    adapter = MemoryAdapter(MemorySettings(f"receipts-{new_id()}"))
    client = StorageClient(adapter, "lab", receipts=Receipts(documents, "one"))

    await client.put_stream("key", stream([b"abc"]))

    assert [] == await documents.find("receipts")
    assert b"abc" == await client.get_bytes("key", limit_bytes=3)
