"""The adapter of WebGME's blob servers against one that misbehaves. The exam, on servers that do not,
is in `tests/interop/webgme`."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from certificates import make_certificate
from deepforge.errors import (
    AuthError,
    ConfigError,
    Corrupt,
    DeepForgeError,
    Forbidden,
    InvalidRequest,
    NotFound,
    RateLimited,
    StorageFull,
    Unavailable,
)
from deepforge.settings import Secret, build, split_secrets
from deepforge.storage import webgme
from deepforge.storage.client import StorageClient
from deepforge.storage.port import ObjectRef
from deepforge.storage.retry import Retry
from deepforge.storage.webgme import WebGMEAdapter, WebGMESettings
from deepforge.webgme import blobs
from storage.blob_server import BlobServer, blob_server, received, reply, spelled

HASH = "1" * 40
MIB = 1024 * 1024


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with blob_server() as server:
        yield server


@pytest.fixture
async def client(server: BlobServer) -> AsyncIterator[StorageClient]:
    async with WebGMEAdapter(WebGMESettings(server.url, Secret("the token"))) as adapter:
        yield StorageClient(adapter, "blobs", retry=Retry(attempts=1))


async def put(client: StorageClient, server: BlobServer, data: bytes = b"abc") -> ObjectRef:
    ref = await client.put_bytes("folder/a.txt", data)
    server.asked.clear()
    return ref


def every_use(client: StorageClient) -> dict[str, Callable[[], Awaitable[object]]]:
    return {
        "check": client.check,
        "put": lambda: client.put_bytes("a.txt", b"abc"),
        "stat": lambda: client.stat(HASH),
        "get": lambda: client.get_bytes(HASH, limit_bytes=10),
    }


async def test_requests_are_such_that_the_original_understands_them(
    client: StorageClient, server: BlobServer
) -> None:
    ref = await client.put_bytes("folder/ü 1%.txt", b"abc")
    assert b"abc" == await client.get_bytes(ref, limit_bytes=3)

    async def chunks() -> AsyncIterator[bytes]:
        yield b"abc"

    await client.put_stream("folder/ü 1%.txt", chunks())

    for method, path, headers in server.asked:
        assert "the token" == headers["x-api-token"]
        assert "identity" == headers["Accept-Encoding"]
        assert path.startswith("/rest/blob/")
        if method == "POST":
            assert "/rest/blob/createFile/%C3%BC%201%25.txt" == path
            assert "application/octet-stream" == headers["Content-Type"]
    assert "3" == server.asked[0][2]["Content-Length"]
    assert "chunked" == server.asked[-1][2]["Transfer-Encoding"]


@pytest.mark.parametrize("use", ["check", "put", "stat", "get"])
@pytest.mark.parametrize(
    ("status", "error"),
    [(302, AuthError), (307, AuthError), (401, AuthError), (403, Forbidden), (429, RateLimited),
     (500, Unavailable), (502, Unavailable), (507, StorageFull), (418, InvalidRequest)],
)  # fmt: skip
async def test_answers_are_told_as_what_they_mean(
    status: int,
    error: type[DeepForgeError],
    use: str,
    client: StorageClient,
    server: BlobServer,
) -> None:
    server.wrong = always(b"<html>", status, "text/html", f"{server.url}/profile/login")

    with pytest.raises(error):
        await every_use(client)[use]()

    assert not any("login" in path for _, path, _ in server.asked), "a redirect was followed"


async def test_the_address_of_something_else_is_told(
    client: StorageClient, server: BlobServer
) -> None:
    server.wrong = always(b"", 404)

    with pytest.raises(ConfigError, match="no blob server") as raised:
        await client.check()

    assert ["url"] == list(raised.value.fields)


@pytest.mark.parametrize("use", ["check", "put", "stat", "get"])
async def test_a_web_page_in_place_of_data_is_told(
    use: str, client: StorageClient, server: BlobServer
) -> None:
    server.wrong = always(b"<html>Please sign in</html>", type="text/html; charset=utf-8")

    with pytest.raises(ConfigError, match="web page") as raised:
        await every_use(client)[use]()

    assert "login page" in (raised.value.hint or "")


async def test_a_web_page_in_place_of_content_is_told(
    client: StorageClient, server: BlobServer
) -> None:
    ref = await put(client, server)
    page = b"<html>Please sign in</html>"
    server.wrong = only("/download/", lambda request: reply(request, page, type="text/html"))

    with pytest.raises(ConfigError, match="web page"):
        await client.get_bytes(ref, limit_bytes=1000)


async def test_a_web_page_that_was_stored_is_data(
    client: StorageClient, server: BlobServer
) -> None:
    ref = await client.put_bytes("page.html", b"<html>")

    assert b"<html>" == await client.get_bytes(ref, limit_bytes=100)


@pytest.mark.parametrize(
    "answer", [b"", b"{", b"[]", b"null", b"{}", b'{"a": {}, "b": {}}', b"[" * 100_000], ids=repr
)
async def test_an_upload_that_is_answered_strangely_did_not_happen(
    answer: bytes, client: StorageClient, server: BlobServer
) -> None:
    server.wrong = always(answer)

    with pytest.raises(Unavailable, match="answered with"):
        await client.put_bytes("a.txt", b"abc")


@pytest.mark.parametrize("stored", [b"", b"ab", b"abd"])
async def test_an_upload_that_was_not_stored_as_sent_is_noticed(
    stored: bytes, client: StorageClient, server: BlobServer
) -> None:
    """So is what happens to an upload with a content type that the original parses."""
    sha1 = hashlib.sha1(stored).hexdigest()
    metadata = blobs.of_file("a.txt", len(stored), sha1)
    answer = {blobs.metadata_hash(metadata): spelled(metadata)}
    server.wrong = always(json.dumps(answer).encode())

    with pytest.raises(Corrupt, match="something else than was sent"):
        await client.put_bytes("a.txt", b"abc")


async def test_metadata_of_another_blob_are_noticed(
    client: StorageClient, server: BlobServer
) -> None:
    ref = await put(client, server)
    other = spelled(blobs.of_file("a.txt", 4, HASH))
    server.wrong = only("/metadata/", lambda request: reply(request, json.dumps(other).encode()))

    with pytest.raises(Corrupt, match="another blob"):
        await client.stat(ref.key)


@pytest.mark.parametrize("content", [b"", b"ab", b"abd", b"abcd", b"x" * 100_000])
async def test_content_that_is_not_what_was_stored_is_noticed(
    content: bytes, client: StorageClient, server: BlobServer
) -> None:
    ref = await put(client, server)
    server.wrong = only("/download/", lambda request: reply(request, content, type="text/plain"))

    with pytest.raises(Corrupt):
        [chunk async for chunk in client.adapter.get(ref.key)]


@pytest.mark.parametrize("cut", ["/metadata/", "/download/"])
async def test_an_answer_that_is_cut_short_is_no_answer(
    cut: str, client: StorageClient, server: BlobServer
) -> None:
    ref = await put(client, server)
    server.wrong = only(cut, lambda request: reply(request, b"ab", announced=3))

    with pytest.raises(Unavailable):
        await client.get_bytes(ref, limit_bytes=10)


async def test_a_cut_is_mended_by_reading_again(server: BlobServer) -> None:
    cuts = 2

    def wrong(request: BaseHTTPRequestHandler) -> bool:
        nonlocal cuts
        if "/download/" not in request.path or not cuts:
            return False
        cuts -= 1
        reply(request, b"", announced=3)
        return True

    async with WebGMEAdapter(WebGMESettings(server.url)) as adapter:
        client = StorageClient(adapter, "blobs", sleep=lambda _: asyncio.sleep(0))
        ref = await put(client, server)
        server.wrong = wrong

        assert b"abc" == await client.get_bytes(ref, limit_bytes=10)
    assert 0 == cuts


async def test_a_silent_server_is_not_waited_for(
    client: StorageClient, server: BlobServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the original is silent for ever when metadata come with the wrong type."""
    monkeypatch.setattr(webgme, "QUIET_S", 0.2)
    silence = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wrong(request: BaseHTTPRequestHandler) -> bool:
        asyncio.run_coroutine_threadsafe(silence.wait(), loop).result()
        request.close_connection = True
        return True

    server.wrong = wrong
    async with WebGMEAdapter(WebGMESettings(server.url)) as adapter:
        impatient = StorageClient(adapter, "blobs", retry=Retry(attempts=1))
        with pytest.raises(Unavailable, match="in time"):
            await impatient.stat(HASH)
    silence.set()


async def test_nobody_there_is_told(client: StorageClient) -> None:
    with blob_server() as gone:
        pass
    async with WebGMEAdapter(WebGMESettings(gone.url)) as adapter:
        nobody = StorageClient(adapter, "blobs", retry=Retry(attempts=1))
        for use in every_use(nobody).values():
            with pytest.raises(Unavailable, match="could not be reached"):
                await use()


async def test_a_server_with_a_certificate_of_ones_own(tmp_path: Path) -> None:
    made = make_certificate(tmp_path)
    with blob_server((str(made.chain_file), str(made.key_file))) as server:
        async with WebGMEAdapter(WebGMESettings(server.url)) as adapter:
            with pytest.raises(ConfigError, match="not trusted") as raised:
                await StorageClient(adapter, "blobs", retry=Retry(attempts=1)).check()
        trusting = WebGMESettings(server.url, ca_file=str(made.authority_file))
        async with WebGMEAdapter(trusting) as adapter:
            await adapter.check()

    assert "ca_file" in (raised.value.hint or "")


@pytest.mark.parametrize("key", ["executions/x/result.json", "a", "A" * 40, HASH, f"{HASH}/a"])
async def test_a_key_that_is_no_blob_is_not_there(key: str, client: StorageClient) -> None:
    with pytest.raises(NotFound):
        await client.stat(key)
    with pytest.raises(NotFound):
        await client.get_bytes(key, limit_bytes=1)


async def test_no_more_is_sent_than_is_taken(client: StorageClient, server: BlobServer) -> None:
    """What lies between here and a server that does not read is what the system's buffers hold."""
    sent, reads_now = 0, threading.Event()

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(64):
            sent += 1
            yield bytes(MIB)

    server.wrong = lambda request: not reads_now.wait(30)
    putting = asyncio.create_task(client.put_stream("large", chunks()))
    before = -1
    while sent != before or sent == 0:
        before = sent
        await asyncio.sleep(0.2)
    waiting = sent
    reads_now.set()
    ref = await putting

    assert waiting < 32
    assert (64, 64 * MIB) == (sent, ref.size_bytes)


async def test_no_more_is_received_than_is_used(client: StorageClient, server: BlobServer) -> None:
    ref = await client.put_bytes("large", bytes(64 * MIB))
    written = 0

    def slowly(request: BaseHTTPRequestHandler) -> None:
        nonlocal written
        reply(request, b"", type="application/octet-stream", announced=64 * MIB)
        for _ in range(64):
            request.wfile.write(bytes(MIB))
            written += 1

    server.wrong = only("/download/", slowly)
    async with aclosing(client.get_stream(ref)) as stream:
        await anext(stream)
        before = -1
        while written != before or written == 0:
            before = written
            await asyncio.sleep(0.2)
        waiting = written
        rest = sum([len(chunk) async for chunk in stream])

    assert waiting < 32
    assert 62 * MIB < rest


@pytest.mark.parametrize(
    "values",
    [
        {"url": "ftp://x"},
        {"url": "webgme.example.org"},
        {"url": "https://user:secret@webgme.example.org"},
        {"url": "https://webgme.example.org?x=1"},
        {"url": "https://webgme.example.org:port"},
    ],
)
def test_a_url_that_is_none_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as raised:
        WebGMEAdapter(build(WebGMESettings, values))

    assert ["url"] == list(raised.value.fields)
    assert "secret" not in str(raised.value)


async def test_a_file_of_certificates_that_is_none_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path / "no.pem"):
        (tmp_path / "no.pem").write_text("no certificate")
        with pytest.raises(ConfigError) as raised:
            async with WebGMEAdapter(WebGMESettings("https://x.example", ca_file=str(path))):
                pass
        assert ["ca_file"] == list(raised.value.fields)


def test_the_token_is_a_secret_and_the_endpoint_is_named() -> None:
    settings = build(WebGMESettings, {"url": "https://x.example/", "api_token": "t0ken"})

    assert {"api_token": "t0ken"} == split_secrets(settings)[1]
    assert {"url": "https://x.example"} == dict(WebGMEAdapter(settings).endpoints)


def always(
    data: bytes, status: int = 200, type: str = "application/json", location: str = ""
) -> Callable[[BaseHTTPRequestHandler], bool]:
    """Answer every request so."""

    def wrong(request: BaseHTTPRequestHandler) -> bool:
        if request.command == "POST":
            received(request)
        reply(request, data, status, type, headers={"Location": location} if location else {})
        return True

    return wrong


def only(
    path: str, answer: Callable[[BaseHTTPRequestHandler], None]
) -> Callable[[BaseHTTPRequestHandler], bool]:
    """Answer these requests so, and let the others be."""

    def wrong(request: BaseHTTPRequestHandler) -> bool:
        if path not in request.path:
            return False
        answer(request)
        return True

    return wrong
