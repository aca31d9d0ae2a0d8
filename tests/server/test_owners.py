"""What one user made does not exist for another: tried on every route with an id in its path."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from deepforge.server.app import PREFIX
from deepforge.server.routes.attempts import AttemptRoute
from deepforge.server.services import Services
from deepforge.settings import Secret
from route_table import all_routes
from server_client import packed, record, sha, start

PASSWORD = "correct horse"
SITE = "http://forge.example"
REST = f"{SITE}/rest"
NO_ID = {"port"}
"""Parts of a path that name nothing of a user's."""

OPEN = {
    "POST /adapters/{port}/{adapter}/choices": "what is installed, for everybody",
    "POST /rest/blob/createFile/{name}": "what the caller calls a new file",
    "POST /rest/executor/create/{hash}": "what the caller calls a new job, its own under any name",
    "GET /rest/executor/runner/{sha256}": "the same program for everybody",
}
"""Routes whose parts look like ids, and why they need no owner."""

REQUESTS: dict[str, Any] = {
    "GET /projects/{project}": None,
    "POST /projects/{project}/missing": {"blobs": []},
    "PUT /projects/{project}/blobs/{sha}": b"content",
    "POST /projects/{project}/blobs": packed(b"content"),
    "POST /projects/{project}/executions": {},
    "POST /projects/{project}/commits": {"files": {}},
    "GET /projects/{project}/commits": None,
    "GET /projects/{project}/pipelines": None,
    "GET /executions/{execution}": None,
    "GET /executions/{execution}/events": None,
    "GET /executions/{execution}/jobs/{job}/log": None,
    "POST /executions/{execution}/jobs/{job}/give-up": None,
    "POST /executions/{execution}/rerun": None,
    "POST /executions/{execution}/cancel": None,
    "GET /artifacts/{artifact}": None,
    "GET /artifacts/{artifact}/data": None,
    "GET /connections/{port}/{name}": None,
    "POST /connections/{port}/{name}/check": {"deep": False},
    "GET /connections/{port}/{name}/choices": None,
    "PATCH /connections/{port}/{name}": {"secrets": {}},
    "DELETE /connections/{port}/{name}": None,
    "PATCH /users/{user}": {"server_compute": True},
    "POST /users/{user}/password": {"password": PASSWORD},
    "DELETE /tokens/{token}": None,
    "GET /rest/blob/metadata/{hash}": None,
    "GET /rest/blob/metadata/{hash}/": None,
    "GET /rest/blob/view/{hash}": None,
    "GET /rest/blob/view/{hash}/{path}": None,
    "GET /rest/blob/download/{hash}": None,
    "GET /rest/blob/download/{hash}/{path}": None,
    "GET /rest/executor/info/{hash}": None,
    "GET /rest/executor/output/{hash}": None,
    "POST /rest/executor/output/{hash}": {"outputNumber": 0, "output": "text"},
    "POST /rest/executor/update/{hash}": {"status": "SUCCESS"},
    "POST /rest/executor/cancel/{hash}": {"secret": "{secret}"},
    "GET /pools/{pool}": None,
    "PATCH /pools/{pool}": {"add": ["ada"]},
    "DELETE /pools/{pool}": None,
    "GET /workers/{worker}": None,
    "DELETE /workers/{worker}": None,
}
"""A request that succeeds for the owner, for every route with an id: JSON, bytes or nothing. What
takes things away comes after what needs them. A new route gets its line here."""

PROJECT = {
    "operations/one.py": b"class One:\n    def execute(self):\n        return 1\n",
    "pipelines/trial.py": b"from operations.one import One\n\n\n"
    b"def trial():\n    one = One().execute()\n    return one\n",
}


class People:
    """Clients of two users on one server, ada an administrator."""

    def __init__(self, ada: httpx.AsyncClient, bob: httpx.AsyncClient) -> None:
        self.ada = ada
        self.bob = bob


@pytest.fixture
async def people(app: FastAPI, services: Services) -> AsyncIterator[People]:
    app.state.wants_login = True
    async with login(app, services, "ada") as ada, login(app, services, "bob") as bob:
        yield People(ada, bob)


@asynccontextmanager
async def login(app: FastAPI, services: Services, user: str) -> AsyncIterator[httpx.AsyncClient]:
    await services.users.add(user, Secret(PASSWORD))
    _, token = await services.tokens.create(user, "theirs", ["api"])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url=f"{SITE}{PREFIX}",
        headers={"authorization": f"Bearer {token.reveal()}"},
    ) as client:
        yield client


async def test_every_route_with_an_id_is_in_the_table(app: FastAPI) -> None:
    with_id = set()
    for path, route in all_routes(app.routes):
        names = set(re.findall(r"{(\w+)", path)) - NO_ID
        if names and not isinstance(route, AttemptRoute):
            spelled = re.sub(r":path}", "}", path.removeprefix(PREFIX))
            with_id |= {f"{one} {spelled}" for one in (route.methods or set()) - {"HEAD"}}

    assert sorted(with_id) == sorted([*REQUESTS, *OPEN])


async def test_what_one_user_made_does_not_exist_for_another(app: FastAPI, people: People) -> None:
    made = await belongings(people.ada)
    refused = {
        place: await attempt(people.bob, place, made, content)
        for place, content in REQUESTS.items()
    }
    app.state.stopping.set()  # a stream of events ends at once
    succeeded = {
        place: await attempt(people.ada, place, made, content)
        for place, content in REQUESTS.items()
    }

    assert {place: one for place, one in refused.items() if one not in (403, 404)} == {}
    # The owner's own requests reach it: the others were refused for who asked.
    reached = {place: one for place, one in succeeded.items() if one not in (401, 403, 404, 422)}
    assert reached.keys() == REQUESTS.keys(), succeeded


async def belongings(http: httpx.AsyncClient) -> Mapping[str, str]:
    """Make one of each kind, and say what stands in the paths for it."""
    await record(http, "secret-plans", PROJECT)
    execution = await start(http, "secret-plans")
    artifact = await http.put("/artifacts", params={"name": "data"}, content=b"bytes")
    added = await http.post(
        "/connections/storage", json={"name": "lab", "adapter": "memory", "settings": {}}
    )
    token = await http.post("/tokens", json={"name": "laptop"})
    pool = await http.post("/pools", json={"name": "lab", "members": ["ada"]})
    made = {one.status_code for one in (artifact, added, token, pool)}
    assert made == {201}
    blob = await http.post(f"{REST}/blob/createFile/plans.txt", content=b"plans")
    (hash,) = blob.json()
    job = await http.post(f"{REST}/executor/create/{hash}", json={})
    worker = await http.post(f"{REST}/executor/worker", json={"clientId": "box"})
    assert {blob.status_code, job.status_code, worker.status_code} == {200}
    return {
        "project": (await http.get("/projects/secret-plans")).json()["id"],
        "sha": sha(b"content"),
        "execution": execution["id"],
        "job": execution["jobs"][0]["id"],
        "artifact": artifact.json()["id"],
        "port": "storage",
        "name": "lab",
        "user": "ada",
        "token": "laptop",
        "hash": hash,
        "path": "",
        "secret": job.json()["secret"],
        "worker": "box",
        "pool": "lab",
    }


async def attempt(
    http: httpx.AsyncClient, place: str, made: Mapping[str, str], content: Any
) -> int:
    method, _, path = place.partition(" ")
    url = re.sub(r"{(\w+)}", lambda match: made[match[1]], path)
    if not isinstance(content, bytes):
        content = json.dumps(content or {}).replace("{secret}", made["secret"]).encode()
    async with asyncio.timeout(30):
        answer = await http.request(
            method,
            url.replace("/rest", REST, 1) if url.startswith("/rest") else url,
            content=None if method in ("GET", "DELETE") else content,
            headers={"content-type": "application/json"},
        )
    return answer.status_code


async def test_lists_show_what_is_ones_own(people: People) -> None:
    await belongings(people.ada)
    places = ["/projects", "/executions", "/artifacts", "/tokens"]
    shown = {place: (await people.bob.get(place)).json()["items"] for place in places}
    storages = (await people.bob.get("/connections/storage")).json()["items"]

    assert [one["name"] for one in shown.pop("/tokens")] == ["theirs"]
    assert shown == {"/projects": [], "/executions": [], "/artifacts": []}
    assert [one["name"] for one in storages] == ["local"]


async def test_the_same_names_mean_each_users_own(people: People) -> None:
    for client, content in ((people.ada, b"ada's"), (people.bob, b"bob's")):
        await client.post("/projects", json={"name": "digits"})
        for where in ({}, {"project": "digits"}):
            answer = await client.put(
                "/artifacts", params={"name": "model", **where}, content=content
            )
            assert answer.status_code == 201
            assert answer.json()["version"] == 1

    for client, content in ((people.ada, b"ada's"), (people.bob, b"bob's")):
        for name in ("model", "digits/model"):
            found = (await client.get("/artifacts/resolve", params={"name": name})).json()
            data = await client.get(f"/artifacts/{found['id']}/data")
            assert data.content == content


async def test_another_users_artifact_is_neither_an_input_nor_hinted_at(people: People) -> None:
    made = await belongings(people.ada)
    await people.bob.post("/projects", json={"name": "mine"})

    for name in ("data", "secret-plans/data", f"{made['project']}/data"):
        answer = await people.bob.get("/artifacts/resolve", params={"name": name})
        assert answer.status_code == 404
        assert "did you mean" not in (answer.json()["error"]["hint"] or "")
    answer = await people.bob.put(
        "/artifacts", params={"name": "x", "project": made["project"]}, content=b""
    )
    assert answer.status_code == 404


async def test_a_key_in_another_users_folder_cannot_be_named(people: People) -> None:
    made = await belongings(people.ada)
    key = (await people.ada.get(f"/artifacts/{made['artifact']}")).json()["key"]
    body = {"name": "stolen", "storage": "local", "key": key}

    assert (await people.ada.post("/artifacts/import", json=body)).status_code == 201
    assert (await people.bob.post("/artifacts/import", json=body)).status_code == 404


async def test_server_compute_is_for_those_an_administrator_allows(people: People) -> None:
    await record(people.bob, "mine", PROJECT)
    refused = await people.bob.post("/projects/mine/executions", json={})
    checked = await people.bob.post("/connections/compute/server/check", json={})
    error = refused.json()["error"]
    nothing = (await people.bob.get("/executions")).json()["items"]
    await people.ada.patch("/users/bob", json={"server_compute": True})
    allowed = await people.bob.post("/projects/mine/executions", json={})
    again = await people.ada.patch("/users/bob", json={"server_compute": False})
    rerun = await people.bob.post(f"/executions/{allowed.json()['id']}/rerun")

    assert (refused.status_code, checked.status_code, nothing) == (403, 403, [])
    assert "'server' (Server Compute)" in error["message"]
    assert "deepforge users permit bob --server-compute" in error["hint"]
    assert (allowed.status_code, again.status_code, rerun.status_code) == (202, 200, 409)


async def test_a_folder_of_the_server_is_for_those_an_administrator_allows(
    people: People, services: Services
) -> None:
    """Its secret key and the other users' data are files there."""
    body = {
        "name": "all", "adapter": "local", "settings": {"folder": str(services.home.folder)}
    }  # fmt: skip
    refused = await people.bob.post("/connections/storage", json=body)
    await people.ada.patch("/users/bob", json={"server_compute": True})
    allowed = await people.bob.post("/connections/storage", json=body)
    await people.ada.patch("/users/bob", json={"server_compute": False})
    used = [
        await people.bob.post("/connections/storage/all/check", json={}),
        await people.bob.put("/artifacts", params={"name": "x", "storage": "all"}, content=b""),
        await people.bob.post(
            "/artifacts/import", json={"name": "x", "storage": "all", "key": "secret.key"}
        ),
    ]

    assert (refused.status_code, allowed.status_code) == (403, 201)
    assert [one.status_code for one in used] == [403, 403, 403]
