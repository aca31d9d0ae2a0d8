"""What our own blob server holds is read by jobs where it lies, and by nobody whose it is not."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI

from deepforge.connections.secrets import SecretBox
from deepforge.errors import NotFound
from deepforge.execution.access import Address
from deepforge.execution.handover import Handover
from deepforge.server.home import Home
from deepforge.server.own_blobs import OwnBlobs
from deepforge.server.services import Services
from deepforge.webgme.blobs import Entry, Metadata
from server_client import ended, events, record, start

READ = {
    "operations/read.py": b"""\
import time


class Read:
    def __init__(self, wait: bool = False):
        self.wait = wait

    def execute(self, data):
        length = len(data)
        time.sleep(600 if self.wait else 0)
        return length
""",
    "pipelines/read.py": b"""\
from operations.read import Read


def read(data, wait: bool = False):
    length = Read(wait=wait).execute(data)
    return length
""",
}
TEXT = b'"some text"'


async def chunks(data: bytes) -> Any:
    yield data


@pytest.fixture
def live_services(live: httpx.AsyncClient, built_app: FastAPI) -> Services:
    services: Services = built_app.state.services
    return services


@pytest.fixture
async def stored(live: httpx.AsyncClient) -> str:
    """The hash of a file on the live server's own blob server, which is the storage `blobs`, too."""
    parts = urlsplit(str(live.base_url))
    base = f"http://localhost:{parts.port}"
    answer = await live.post(f"{base}/rest/blob/createFile/a.json", content=TEXT)
    (hash,) = answer.json()
    body = {"name": "blobs", "adapter": "webgme", "settings": {"url": f"{base}/"}}
    assert 201 == (await live.post("/connections/storage", json=body)).status_code
    imported = {"name": "data", "storage": "blobs", "key": hash}
    answer = await live.post("/artifacts/import", json=imported)
    assert answer.status_code == 201, answer.text
    return str(hash)


def none_is_asked_for(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*arguments: Any) -> Any:
        raise NotFound("a blob was asked for over HTTP")

    monkeypatch.setattr(services.blobs, "open", refused)


async def test_a_job_reads_our_own_blob_from_the_disk(
    live: httpx.AsyncClient,
    live_services: Services,
    stored: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    none_is_asked_for(live_services, monkeypatch)
    await record(live, "read", READ)
    view = await ended(live, (await start(live, "read", inputs={"data": "data"}))["id"])

    assert "succeeded" == view["status"], str(view["jobs"])


async def test_the_attempt_route_reads_our_own_blob_itself(
    live: httpx.AsyncClient,
    live_services: Services,
    stored: str,
    home: Home,
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    none_is_asked_for(live_services, monkeypatch)
    await record(live, "read", READ)
    execution = await start(live, "read", inputs={"data": "data"}, attributes={"wait": True})
    async for kind, data in events(live, execution["id"]):
        if kind == "job" and data["status"] == "running":
            break
    key = f"{execution['id']}-length-1"
    token = SecretBox(home.secret_key, environ).token(f"attempt:{key}")
    answer = await live.get(
        f"attempts/{key}/objects/inputs/data", headers={"authorization": f"Bearer {token}"}
    )
    await live.post(f"/executions/{execution['id']}/cancel")
    await ended(live, execution["id"])

    assert (200, TEXT) == (answer.status_code, answer.content), answer.text


async def test_only_what_the_owner_stored_is_found_by_the_short_way(services: Services) -> None:
    blob = await services.blobs.add_file("ada", "a.txt", chunks(b"ada's"))
    await services.blobs.add_file("bob", "b.txt", chunks(b"bob's"))
    opened = {}
    for owner in ("ada", "bob"):
        settings = {"url": "http://127.0.0.1:1", "api_token": "of-somebody"}
        await services.connections.add("storage", "blobs", "webgme", settings, owner=owner)
        opened[owner] = await services.opener.storage("blobs", owner=owner)
    own = OwnBlobs(services.blobs, Address(loopback_url="http://localhost:1"))

    found = await own("ada", opened["ada"], blob.hash)
    assert found is not None
    assert ("local", 5) == (found.storage, found.size_bytes)
    assert (found.digest or "").startswith("sha256:")
    local = await services.opener.storage(found.storage, owner="ada")
    assert b"ada's" == await local.get_bytes(found, limit_bytes=99)
    for key in (blob.hash, "a" * 40, "name", f"{blob.hash}/x", "../x"[3:]):
        assert await own("bob", opened["bob"], key) is None


async def test_files_of_artifacts_and_behind_links_are_found(services: Services) -> None:
    blob = await services.blobs.add_file("ada", "a.txt", chunks(b"data"))
    content = blob.metadata.content_hash or ""
    link = await services.blobs.add_metadata(
        "ada", Metadata("l", content=blob.hash, kind="softLink")
    )
    whole = await services.blobs.add_metadata(
        "ada",
        Metadata(
            "art.zip",
            kind="complex",
            content={
                "dir/a": Entry(content, "object"),
                "b": Entry(link.hash, "softLink"),
                "none": Entry("0" * 40, "object"),
            },
        ),
    )
    refs = [
        await services.blobs.find("ada", hash, path)
        for hash, path in (
            (blob.hash, ""), (link.hash, ""), (whole.hash, "dir/a"), (whole.hash, "b")
        )
    ]  # fmt: skip

    assert 1 == len(set(refs))
    for hash, path in ((whole.hash, ""), (whole.hash, "c"), (whole.hash, "none"), (blob.hash, "a")):
        with pytest.raises(NotFound):
            await services.blobs.find("ada", hash, path)


@pytest.mark.parametrize(
    ("url", "is_ours"),
    [
        ("http://127.0.0.1:8888", True),
        ("http://localhost:8888/", True),
        ("http://[::1]:8888", True),
        ("https://forge.example.org", True),
        ("https://FORGE.example.org:443", True),
        ("http://forge.example.org", False),
        ("https://forge.example.org:8443", False),
        ("https://forge.example.org.evil.example", False),
        ("http://127.0.0.1:8889", False),
    ],
)
async def test_only_our_own_addresses_are_ours(services: Services, url: str, is_ours: bool) -> None:
    blob = await services.blobs.add_file("local", "a.txt", chunks(b"data"))
    await services.connections.add("storage", "blobs", "webgme", {"url": url}, owner="local")
    storage = await services.opener.storage("blobs", owner="local")
    address = Address(loopback_url="http://127.0.0.1:8888", public_url="https://forge.example.org")

    found = await OwnBlobs(services.blobs, address)("local", storage, blob.hash)

    assert is_ours == (found is not None)


async def test_what_is_not_ours_is_read_where_it_is(services: Services) -> None:
    handover: Handover = services.executions._handover
    await services.connections.add("storage", "lab", "memory", {"shelf": "s"}, owner="local")

    for name in ("lab", "local"):
        found = await handover.source("local", name, "a" * 40)
        assert (name, "a" * 40, None) == (found.storage.name, found.key, found.digest)
