"""WebGME's blob API. That it answers as the original does is held in `tests/interop/webgme`."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from deepforge.server.home import Home
from deepforge.server.services import Services
from deepforge.settings import Secret

MIB = 1024 * 1024
BYTES = {"Content-Type": "application/octet-stream"}


@pytest.fixture
async def blob(wire: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    """A client over a real socket, below `/rest/blob`."""
    url = f"{str(wire.base_url).partition('/api/')[0]}/rest/blob"
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        yield client


def objects(home: Home) -> list[Path]:
    return [
        one for one in home.storage.rglob("*") if one.is_file() and ".deepforge" not in one.parts
    ]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.01)


async def create(blob: httpx.AsyncClient, name: str, content: bytes) -> str:
    answer = await blob.post(f"/createFile/{name}", content=content, headers=BYTES)
    assert answer.status_code == 200, answer.text
    (hash,) = answer.json()
    return str(hash)


async def test_large_files_come_and_go_and_may_be_taken_up_in_the_middle(
    blob: httpx.AsyncClient,
) -> None:
    async def blocks() -> AsyncIterator[bytes]:
        for number in range(40):
            yield bytes([number]) * MIB

    answer = await blob.post("/createFile/large", content=blocks(), headers=BYTES)
    ((hash, metadata),) = answer.json().items()
    whole = await blob.get(f"/view/{hash}")
    rest = await blob.get(f"/view/{hash}", headers={"Range": f"bytes={39 * MIB}-"})

    assert 40 * MIB == metadata["size"]
    assert metadata["content"] == hashlib.sha1(whole.content).hexdigest()
    assert bytes([39]) * MIB == rest.content
    assert f"bytes {39 * MIB}-{40 * MIB - 1}/{40 * MIB}" == rest.headers["Content-Range"]


async def test_an_upload_that_is_cut_short_leaves_nothing(
    blob: httpx.AsyncClient, home: Home, services: Services
) -> None:
    _, writer = await asyncio.open_connection(blob.base_url.host, blob.base_url.port)
    idle = len(asyncio.all_tasks())
    writer.write(
        b"POST /rest/blob/createFile/a.txt HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Length: 10000000\r\n\r\n" + bytes(MIB)
    )
    await writer.drain()
    await until(lambda: len(asyncio.all_tasks()) > idle)  # the request is being handled
    writer.close()
    await writer.wait_closed()

    await until(lambda: len(asyncio.all_tasks()) <= idle)
    assert [] == objects(home)
    assert [] == await services.documents.find("blobs")


async def test_a_page_that_a_user_stored_cannot_act_for_us(blob: httpx.AsyncClient) -> None:
    hash = await create(blob, "page.html", b"<script>fetch('/api/v1/projects')</script>")

    shown = await blob.get(f"/view/{hash}")

    assert "text/html" == shown.headers["Content-Type"]
    assert "sandbox" == shown.headers["Content-Security-Policy"]
    assert "nosniff" == shown.headers["X-Content-Type-Options"]


@pytest.mark.parametrize(
    ("name", "disposition"),
    [
        ("a.txt", 'attachment; filename="a.txt"'),
        ("dir%2Fa.txt", 'attachment; filename="a.txt"'),
        ("a%22%0Db", "attachment; filename=\"a__b\"; filename*=UTF-8''a%22%0Db"),
        ("%C3%BC", "attachment; filename=\"_\"; filename*=UTF-8''%C3%BC"),
    ],
)
async def test_a_name_stays_within_its_header(
    name: str, disposition: str, blob: httpx.AsyncClient
) -> None:
    hash = await create(blob, name, b"abc")

    assert disposition == (await blob.get(f"/download/{hash}")).headers["Content-Disposition"]


async def test_an_artifact_is_zipped_while_it_is_sent(blob: httpx.AsyncClient) -> None:
    await create(blob, "a", bytes(3 * MIB))
    content = hashlib.sha1(bytes(3 * MIB)).hexdigest()
    entries = {f"{number}": {"content": content, "contentType": "object"} for number in range(5)}
    metadata = json.dumps({"name": "z.zip", "content": entries, "contentType": "complex"})
    (hash,) = (await blob.post("/createMetadata", content=metadata, headers=BYTES)).json()

    answer = await blob.get(f"/download/{hash}")
    head = await blob.head(f"/download/{hash}")

    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert [3 * MIB] * 5 == [one.file_size for one in archive.infolist()]
    assert "Content-Length" not in head.headers
    assert answer.headers["Content-Type"] == head.headers["Content-Type"] == "application/zip"


async def test_metadata_without_end_are_refused(blob: httpx.AsyncClient) -> None:
    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(MIB)

    answer = await blob.post("/createMetadata", content=blocks(), headers=BYTES)

    assert 413 == answer.status_code


async def test_only_tokens_that_are_known_are_let_in(
    blob: httpx.AsyncClient, app: FastAPI, services: Services
) -> None:
    """Also a worker's; the original redirects the others to its login page."""
    app.state.wants_login = True
    await services.users.add("ada", Secret("correct horse"))
    _, token = await services.tokens.create("ada", "box", ["worker"])
    hash = "0" * 40
    places = [("GET", f"/metadata/{hash}"), ("GET", f"/view/{hash}"), ("POST", "/createFile/a")]
    statuses = {
        who: [
            (await blob.request(method, path, headers=headers)).status_code
            for method, path in places
        ]
        for who, headers in {
            "nobody": {},
            "unknown": {"x-api-token": "df_unknown"},
            "worker": {"x-api-token": token.reveal()},
            "bearer": {"Authorization": f"Bearer {token.reveal()}"},
        }.items()
    }

    assert {
        "nobody": [401] * 3,
        "unknown": [401] * 3,
        "worker": [404, 404, 200],
        "bearer": [404, 404, 200],
    } == statuses
