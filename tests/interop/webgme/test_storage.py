"""Our storage adapter on the original server, open and with accounts, and on ours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import aclosing

import httpx
import pytest

from deepforge.errors import AuthError, InvalidRequest, NotFound, NotSupported, Unavailable
from deepforge.ids import new_id
from deepforge.settings import Secret
from deepforge.storage.client import StorageClient
from deepforge.storage.registry import open_storage
from deepforge.storage.retry import Retry
from deepforge.storage.webgme import WebGMEAdapter, WebGMESettings
from deepforge.testing.storage import StorageContract
from deepforge.testing.storage_exam import Opener
from interop.webgme.server import Engine


def settings(engine: Engine) -> dict[str, str]:
    return {"url": engine.url} | ({} if engine.token is None else {"api_token": engine.token})


class TestOpenServer(StorageContract):
    @pytest.fixture
    def opener(self, engine: Engine) -> Opener:
        return lambda: WebGMEAdapter(WebGMESettings(engine.url))


class TestServerWithAccounts(StorageContract):
    @pytest.fixture
    def opener(self, engine_auth: Engine) -> Opener:
        return lambda: WebGMEAdapter(
            WebGMESettings(engine_auth.url, Secret(engine_auth.token or ""))
        )


class TestOurServer(StorageContract):
    @pytest.fixture
    def opener(self, our_server: str) -> Opener:
        return lambda: WebGMEAdapter(WebGMESettings(our_server))


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[StorageClient]:
    async with open_storage("blobs", "webgme", settings(engine)) as client:
        yield client


async def test_the_same_file_is_the_same_blob(client: StorageClient) -> None:
    first = await client.put_bytes("one/model.txt", b"abc")
    again = await client.put_bytes("two/model.txt", b"abc", only_if_absent=True)
    renamed = await client.put_bytes("two/other.txt", b"abc")

    assert first == again
    assert first.key != renamed.key
    assert b"abc" == await client.get_bytes(first, limit_bytes=3)


@pytest.mark.parametrize("name", ["héllo w.csv", "a+b&c=d%20#e?", "日本語.json", "'\"`", "w" * 250])
async def test_any_name_can_be_stored(name: str, client: StorageClient) -> None:
    ref = await client.put_bytes(f"folder/{name}", name.encode())

    assert name.encode() == await client.get_bytes(ref, limit_bytes=1000)


async def test_files_of_an_artifact_are_read_by_their_paths(
    client: StorageClient, engine: Engine
) -> None:
    linked = await client.put_bytes("b.txt", b"linked")
    inner = hashlib.sha1(b"content").hexdigest()
    await client.put_bytes("a.txt", b"content")
    content = {
        "dir/a b.txt": {"content": inner, "contentType": "object"},
        "b.txt": {"content": linked.key, "contentType": "softLink"},
        "lost": {"content": "1" * 40, "contentType": "object"},
    }
    artifact = await _create(engine, {"name": "art.zip", "content": content}, "complex")
    link = await _create(engine, {"name": "ln", "content": linked.key}, "softLink")

    assert b"content" == await client.get_bytes(f"{artifact}/dir/a b.txt", limit_bytes=99)
    assert b"linked" == await client.get_bytes(f"{artifact}/b.txt", limit_bytes=99)
    assert b"linked" == await client.get_bytes(link, limit_bytes=99)
    assert 7 == (await client.stat(f"{artifact}/dir/a b.txt")).size_bytes
    assert 6 == (await client.stat(link)).size_bytes
    with pytest.raises(NotFound, match="no file"):
        await client.stat(f"{artifact}/dir")
    with pytest.raises(NotFound):
        await client.stat(f"{linked.key}/inside")
    with pytest.raises(InvalidRequest, match="artifact of 3 files"):
        await client.stat(artifact)


async def test_a_file_without_content_is_not_blamed_on_us(engine: Engine) -> None:
    lost = {"lost": {"content": "1" * 40, "contentType": "object"}}
    artifact = await _create(engine, {"name": "x.zip", "content": lost}, "complex")

    async with WebGMEAdapter(WebGMESettings(engine.url)) as adapter:
        client = StorageClient(adapter, "blobs", retry=Retry(attempts=1))
        with pytest.raises(Unavailable, match="500") as raised:
            await client.get_bytes(f"{artifact}/lost", limit_bytes=9)

    assert "missing" in (raised.value.hint or "")


async def test_links_in_a_ring_end(engine: Engine, client: StorageClient) -> None:
    """The original follows any number of links; a ring cannot be made of hashes, so a chain is."""
    target = (await client.put_bytes("a.txt", b"x")).key
    for number in range(10):
        target = await _create(engine, {"name": f"{number}", "content": target}, "softLink")
    assert (await client.stat(target)).size_bytes == 1
    target = await _create(engine, {"name": "one more", "content": target}, "softLink")

    with pytest.raises(InvalidRequest, match="soft links"):
        await client.stat(target)


@pytest.mark.parametrize("token", [None, "00000000-0000-0000-0000-000000000000"])
async def test_who_is_not_known_is_told_so(token: str | None, engine_auth: Engine) -> None:
    """The original redirects to its login page, which answers with 200."""
    values = {"url": engine_auth.url} | ({} if token is None else {"api_token": token})
    async with open_storage("blobs", "webgme", values) as client:
        for use in (client.check(), client.put_bytes("a", b"a"), client.stat("1" * 40)):
            with pytest.raises(AuthError, match="does not accept") as raised:
                await use
            assert "api_token" in (raised.value.hint or "")


async def test_check_passes_and_is_always_the_same_blob(client: StorageClient) -> None:
    await client.check()
    await client.check()


async def test_large_objects_come_and_go_as_streams(client: StorageClient) -> None:
    block = hashlib.sha256(new_id().encode()).digest() * 32768  # 1 MiB

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield block

    ref = await client.put_stream("large", chunks())

    assert 64 * len(block) == ref.size_bytes
    size_bytes = 0
    async with aclosing(client.get_stream(ref)) as stream:
        async for chunk in stream:
            size_bytes += len(chunk)
    assert 64 * len(block) == size_bytes


async def test_what_it_cannot_do_is_refused_with_the_reason(client: StorageClient) -> None:
    ref = await client.put_bytes("a.txt", b"abcdef")

    with pytest.raises(NotSupported, match="keeps every file"):
        await client.delete([ref.key])
    with pytest.raises(NotSupported, match="does not tell"):
        [info async for info in client.list("")]
    part = [chunk async for chunk in client.get_range(ref.key, start=2, end=4)]
    assert b"cd" == b"".join(part)


async def _create(engine: Engine, metadata: dict[str, object], kind: str) -> str:
    body = json.dumps({**metadata, "contentType": kind})
    async with httpx.AsyncClient(headers=engine.headers) as http:
        answer = await http.post(
            f"{engine.url}/rest/blob/createMetadata",
            content=body,
            headers={"Content-Type": "application/octet-stream"},
        )
    (hash,) = answer.json()
    return str(hash)
