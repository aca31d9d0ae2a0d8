from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from deepforge.server.home import Home

BLOCK = bytes(range(256)) * 4096  # 1 MiB


async def blocks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield BLOCK


def code(response: httpx.Response) -> str:
    return str(response.json()["error"]["code"])


def objects(home: Home) -> list[Path]:
    return [
        one for one in home.storage.rglob("*") if one.is_file() and ".deepforge" not in one.parts
    ]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.01)


async def put(http: httpx.AsyncClient, content: bytes, **query: str) -> dict[str, Any]:
    response = await http.put("/artifacts", content=content, params={"name": "data", **query})
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


async def test_what_was_put_comes_back_with_its_digest(http: httpx.AsyncClient) -> None:
    made = await put(http, b"some bytes", type="text")
    shown = await http.get(f"/artifacts/{made['id']}")
    data = await http.get(f"/artifacts/{made['id']}/data")

    digest = "sha256:" + hashlib.sha256(b"some bytes").hexdigest()
    assert shown.json() == made
    assert (made["name"], made["version"], made["project"]) == ("data", 1, None)
    assert (made["type"], made["format"], made["storage"]) == ("text", "file", "local")
    assert (made["size_bytes"], made["digest"]) == (10, digest)
    assert data.content == b"some bytes"
    assert data.headers["content-length"] == "10"
    assert data.headers["x-digest"] == digest


async def test_an_empty_artifact_is_one(http: httpx.AsyncClient) -> None:
    made = await put(http, b"")

    assert made["size_bytes"] == 0
    assert (await http.get(f"/artifacts/{made['id']}/data")).content == b""


@pytest.mark.parametrize("name", ['it\'s "mine"', "ünïcödé 😀", "a b", "x" * 100])
async def test_ugly_names_come_back_as_they_were(http: httpx.AsyncClient, name: str) -> None:
    made = await put(http, b"x", name=name)
    found = await http.get("/artifacts/resolve", params={"name": name})
    data = await http.get(f"/artifacts/{made['id']}/data")

    assert made["name"] == found.json()["name"] == name
    assert data.headers["content-disposition"].isascii()


@pytest.mark.parametrize("name", ["../x", "a/b", "a@1", "", "a\nb", "a\0b", "x" * 101])
async def test_a_name_that_could_mean_something_else_is_refused_before_the_upload(
    http: httpx.AsyncClient, home: Home, name: str
) -> None:
    response = await http.put("/artifacts", content=b"x", params={"name": name})

    assert (response.status_code, code(response)) == (422, "invalid_request")
    assert objects(home) == []


async def test_a_name_in_use_gets_the_next_version(http: httpx.AsyncClient) -> None:
    first = await put(http, b"one")
    second = await put(http, b"two")

    async def version(name: str) -> int:
        response = await http.get("/artifacts/resolve", params={"name": name})
        return int(response.json()["version"])

    assert (first["version"], second["version"]) == (1, 2)
    assert [await version(one) for one in ("data", "data@1", "data@2")] == [2, 1, 2]


async def test_an_artifact_of_a_project_is_found_from_it_and_by_its_path(
    http: httpx.AsyncClient,
) -> None:
    await http.post("/projects", json={"name": "p"})
    shared = await put(http, b"shared", name="other")
    made = await put(http, b"x", project="p")

    near = await http.get("/artifacts/resolve", params={"name": "data", "project": "p"})
    by_path = await http.get("/artifacts/resolve", params={"name": "p/data"})
    listed = await http.get("/artifacts", params={"project": "p"})
    everything = await http.get("/artifacts")

    assert made["project"] == "p"
    assert near.json() == by_path.json() == made
    assert listed.json() == {"items": [made], "next": None}
    assert everything.json()["items"] == [made, shared]


async def test_artifacts_are_listed_page_by_page_and_by_name(http: httpx.AsyncClient) -> None:
    for number in range(5):
        await put(http, b"%d" % number, name="even" if number % 2 == 0 else "odd")

    first = (await http.get("/artifacts", params={"limit": 3})).json()
    rest = (await http.get("/artifacts", params={"limit": 3, "after": first["next"]})).json()
    even = (await http.get("/artifacts", params={"name": "even"})).json()

    assert [len(first["items"]), len(rest["items"]), rest["next"]] == [3, 2, None]
    assert [one["version"] for one in even["items"]] == [3, 2, 1]


@pytest.mark.parametrize(
    "path",
    ["/artifacts/none", "/artifacts/none/data", "/artifacts/resolve?name=none",
     "/artifacts/resolve?name=no/ne", "/artifacts?project=none", "/artifacts/%00",
     "/artifacts/..%2f..%2fetc"],
)  # fmt: skip
async def test_what_is_not_there_is_not_found(http: httpx.AsyncClient, path: str) -> None:
    response = await http.get(path)

    assert response.status_code in (404, 422)
    assert code(response) in ("not_found", "invalid_request")


async def test_an_unknown_storage_or_project_takes_no_upload(
    http: httpx.AsyncClient, home: Home
) -> None:
    storage = await http.put("/artifacts?name=x&storage=none", content=b"x")
    project = await http.put("/artifacts?name=x&project=none", content=b"x")

    assert (storage.status_code, project.status_code) == (404, 404)
    assert objects(home) == []


async def test_data_that_lie_there_already_can_be_named(
    http: httpx.AsyncClient, home: Home
) -> None:
    place = home.storage / "incoming" / "table ü.csv"
    place.parent.mkdir()
    place.write_bytes(b"1,2\n")
    body = {"name": "table", "storage": "local", "key": "incoming/table ü.csv", "type": "csv"}
    response = await http.post("/artifacts/import", json=body)

    made = response.json()
    assert response.status_code == 201, response.text
    assert (made["size_bytes"], made["digest"], made["type"]) == (4, None, "csv")
    data = await http.get(f"/artifacts/{made['id']}/data")
    assert data.content == b"1,2\n"
    assert "x-digest" not in data.headers
    digest = "sha256:" + hashlib.sha256(b"1,2\n").hexdigest()
    assert (await http.get(f"/artifacts/{made['id']}")).json()["digest"] == digest
    assert (await http.get(f"/artifacts/{made['id']}/data")).headers["x-digest"] == digest
    place.write_bytes(b"3,4\n")
    changed = await http.get(f"/artifacts/{made['id']}/data")
    assert code(changed) == "corrupt"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"key": "not/there"}, 404),
        ({"key": "../../../etc/passwd"}, 422),
        ({"key": "/etc/passwd"}, 422),
        ({"key": ""}, 422),
        ({"storage": "none"}, 404),
        ({"project": "none"}, 404),
        ({"name": "a/b"}, 422),
        ({"size_bytes": 1}, 422),
    ],
)
async def test_what_cannot_be_named_is_refused(
    http: httpx.AsyncClient, home: Home, change: dict[str, Any], status: int
) -> None:
    (home.storage / "there").write_bytes(b"x")
    body = {"name": "x", "storage": "local", "key": "there", **change}

    assert (await http.post("/artifacts/import", json=body)).status_code == status


async def test_a_small_object_that_was_altered_is_an_error_and_not_data(
    http: httpx.AsyncClient, home: Home
) -> None:
    made = await put(http, b"original")
    objects(home)[0].write_bytes(b"0riginal")
    response = await http.get(f"/artifacts/{made['id']}/data")

    assert (response.status_code, code(response)) == (502, "corrupt")


async def test_a_large_object_that_was_altered_never_arrives_whole(
    wire: httpx.AsyncClient, home: Home
) -> None:
    made = await put(wire, BLOCK * 8)
    with objects(home)[0].open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")

    received = 0

    async def download() -> None:
        nonlocal received
        async with wire.stream("GET", f"/artifacts/{made['id']}/data") as response:
            async for chunk in response.aiter_bytes():
                received += len(chunk)

    with pytest.raises(httpx.RemoteProtocolError):
        await download()
    assert received < made["size_bytes"]


async def test_an_object_that_vanished_is_not_found(http: httpx.AsyncClient, home: Home) -> None:
    made = await put(http, b"x")
    objects(home)[0].unlink()
    response = await http.get(f"/artifacts/{made['id']}/data")

    assert (response.status_code, code(response)) == (404, "not_found")


@pytest.mark.parametrize("announced", [True, False])
async def test_an_upload_that_ends_early_leaves_nothing(
    wire: httpx.AsyncClient, home: Home, announced: bool
) -> None:
    url = wire.base_url
    _, writer = await asyncio.open_connection(url.host, url.port)
    size = "Content-Length: 10000000" if announced else "Transfer-Encoding: chunked"
    head = f"PUT /api/v1/artifacts?name=cut HTTP/1.1\r\nHost: localhost\r\n{size}\r\n\r\n"
    body = BLOCK if announced else b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK)
    idle = len(asyncio.all_tasks())
    writer.write(head.encode() + body)
    await writer.drain()
    await until(lambda: len(asyncio.all_tasks()) > idle)  # the request is being handled
    writer.close()
    await writer.wait_closed()

    await until(lambda: len(asyncio.all_tasks()) <= idle)
    assert (await wire.get("/artifacts")).json()["items"] == []
    assert objects(home) == []


async def test_a_reader_who_leaves_frees_the_storage(wire: httpx.AsyncClient) -> None:
    made = await put(wire, BLOCK * 16)
    for _ in range(40):  # more than a storage reads at once
        async with wire.stream("GET", f"/artifacts/{made['id']}/data") as response:
            async for _chunk in response.aiter_bytes():
                break

    assert (await wire.get(f"/artifacts/{made['id']}/data")).num_bytes_downloaded == 16 * len(BLOCK)


SERVER = """
import pathlib
from deepforge.server.home import open_home
from deepforge.server.listen import run
from deepforge.server.logs import configure_logging
from deepforge.server.start import start

configure_logging()

def announce(listening):
    print(listening.url, flush=True)

run(start(open_home(), host="127.0.0.1", port=0, announce=announce))
status = pathlib.Path("/proc/self/status").read_text()  # ru_maxrss has our parent's in it
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
@pytest.mark.slow  # only a real server of its own shows how much memory a transfer takes
async def test_64_mib_go_up_and_down_in_bounded_memory(tmp_path: Path) -> None:
    environ = {"DEEPFORGE_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(  # noqa: ASYNC220  it is ready in a moment
        [sys.executable, "-c", SERVER], env=environ, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    digest = hashlib.sha256()
    try:
        url = process.stdout.readline().strip()
        async with httpx.AsyncClient(base_url=f"{url}/api/v1", timeout=60) as http:
            response = await http.put("/artifacts?name=large", content=blocks(64))
            made = response.json()
            async with http.stream("GET", f"/artifacts/{made['id']}/data") as response:
                async for chunk in response.aiter_bytes():
                    digest.update(chunk)
    finally:
        process.terminate()
        rest = process.stdout.read()
        assert process.wait(20) == 0
        process.stdout.close()

    assert made["size_bytes"] == 64 * 1024 * 1024
    assert made["digest"] == f"sha256:{digest.hexdigest()}"
    assert int(rest.splitlines()[-1]) * 1024 < 130_000_000
