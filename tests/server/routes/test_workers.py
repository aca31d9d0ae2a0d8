from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from deepforge.compute.port import PYTHON, Resources
from deepforge.server.services import Services
from server_client import record, start
from webgme.rig import question

PROJECT = {
    "operations/one.py": b"class One:\n    def execute(self):\n        return 1\n",
    "pipelines/trial.py": b"from operations.one import One\n\n\n"
    b"def trial():\n    one = One().execute()\n    return one\n",
}
SLOW = (
    b"import time\n\n\nclass One:\n"
    b"    def execute(self):\n        time.sleep(600)\n        return 1\n"
)


@pytest.fixture
async def rest(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def submit(services: Services, key: str, **more: Any) -> str:
    return await services.hand_out.queue.submit(
        "local", key, (PYTHON,), {"job.json": key.encode()}, **more
    )


async def ask(rest: httpx.AsyncClient, *arguments: str, **more: Any) -> Any:
    answer = await rest.post("/rest/executor/worker", json=question(*arguments, **more))
    assert answer.status_code == 200
    return answer.json()


async def test_a_worker_is_shown_with_its_machine_and_its_jobs(
    http: httpx.AsyncClient, rest: httpx.AsyncClient, services: Services
) -> None:
    hash = await submit(services, "k", about={"execution": "e1", "job": "train"})
    await ask(rest, "box/1", labels=("gpu",), gpus=2)

    (listed,) = (await http.get("/workers")).json()["items"]
    shown = (await http.get("/workers/box%2F1")).json()

    assert shown == listed
    assert ("box/1", "connected", True, ["gpu"]) == tuple(
        shown[name] for name in ("id", "status", "is_ours", "labels")
    )
    assert {"cpus": 8, "memory_bytes": 2**33, "gpus": 2} == shown["total"]
    (job,) = shown["jobs"]
    assert (hash, "e1", "train", False) == (
        job["id"], job["execution"], job["job"], job["cancel_requested"]
    )  # fmt: skip


async def test_of_the_original_worker_the_machine_is_not_known(
    http: httpx.AsyncClient, rest: httpx.AsyncClient
) -> None:
    await ask(rest, "w", instance=None)

    (listed,) = (await http.get("/workers")).json()["items"]

    assert (False, None, None) == (listed["is_ours"], listed["total"], listed["version"])


async def test_a_silent_worker_is_shown_as_silent(
    http: httpx.AsyncClient, rest: httpx.AsyncClient, services: Services
) -> None:
    await ask(rest, "w")
    known = services.hand_out.registry._known["local w"]
    (document,) = await services.documents.find("workers")
    body = {**document.body, "seen_at": "2026-01-01T00:00:00.000000Z"}
    await services.documents.replace("workers", document.id, body, if_revision=document.revision)
    known.seen_at = body["seen_at"]

    assert "silent" == (await http.get("/workers/w")).json()["status"]


async def test_workers_come_in_pages_and_unknown_ones_are_not_there(
    http: httpx.AsyncClient, rest: httpx.AsyncClient
) -> None:
    for number in range(3):
        await ask(rest, f"w{number}")

    first = (await http.get("/workers", params={"limit": 2})).json()
    second = (await http.get("/workers", params={"after": first["next"]})).json()

    assert ["w0", "w1", "w2"] == [one["id"] for one in first["items"] + second["items"]]
    assert second["next"] is None
    for method in ("GET", "DELETE"):
        assert 404 == (await http.request(method, "/workers/nobody")).status_code


async def test_a_forgotten_worker_is_gone_and_its_job_lost(
    http: httpx.AsyncClient, rest: httpx.AsyncClient, services: Services
) -> None:
    hash = await submit(services, "k")
    await ask(rest, "w")

    assert 204 == (await http.delete("/workers/w")).status_code

    assert [] == (await http.get("/workers")).json()["items"]
    assert "LOST" == (await services.hand_out.queue.job("local", hash)).status


async def test_the_queue_tells_positions_and_reasons(
    http: httpx.AsyncClient, rest: httpx.AsyncClient, services: Services
) -> None:
    for number in range(5):
        await submit(services, f"k{number}", about={"execution": "e", "job": f"j{number}"})
    await submit(services, "big", resources=Resources(gpus=4))
    nobody = (await http.get("/queue")).json()["items"]
    await ask(rest, "w", slots=1)

    first = (await http.get("/queue", params={"limit": 2})).json()
    rest_of_it = (await http.get("/queue", params={"after": first["next"]})).json()
    listed = first["items"] + rest_of_it["items"]

    assert {"no worker is connected"} == {one["reason"] for one in nobody}
    assert [1, 2, 3, 4, 5] == [one["position"] for one in listed]
    assert ["j1", "j2", "j3", "j4", None] == [one["job"] for one in listed]
    assert "every worker that could run it is busy" == listed[0]["reason"]
    assert "no connected worker has 1 processors, 4 GPUs" == listed[4]["reason"]
    assert 422 == (await http.get("/queue", params={"after": "nonsense"})).status_code


async def test_an_attempt_is_given_up_and_tried_again(
    live: httpx.AsyncClient, built_app: FastAPI
) -> None:
    built_app.state.wants_login = False
    origin = str(live.base_url).partition("/api/v1")[0]
    await live.post("/connections/compute", json={"name": "far", "adapter": "worker"})
    await record(live, "trial", PROJECT)

    async with httpx.AsyncClient(base_url=origin, timeout=60) as rest:
        execution = await start(live, "trial", compute="far")
        (job,) = execution["jobs"]
        path = f"/executions/{execution['id']}/jobs/{job['id']}/give-up"
        await until_status(live, execution["id"], {"queued"})
        too_soon = await live.post(path)
        first = await handed_out(rest)
        assert 409 == too_soon.status_code
        assert "no worker has job" in too_soon.json()["error"]["message"]
        given_up = await live.post(path)
        second = await handed_out(rest, first)
        assert 202 == given_up.status_code
        assert first != second
        assert [first] == (await ask(rest, "w", first, second))["jobsToCancel"]

    (shown,) = (await live.get(f"/executions/{execution['id']}")).json()["jobs"]
    assert 2 == shown["attempts"]
    await live.post(f"/executions/{execution['id']}/cancel")


async def handed_out(rest: httpx.AsyncClient, *running: str) -> str:
    headers = {"Prefer": "wait=5"}
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        asked = question("w", *running, slots=1)
        answer = await rest.post("/rest/executor/worker", json=asked, headers=headers)
        for hash in answer.json()["jobsToStart"]:
            return str(hash)
    raise AssertionError("no job was handed out")


async def test_only_attempts_of_workers_can_be_given_up(
    live: httpx.AsyncClient, built_app: FastAPI
) -> None:
    built_app.state.wants_login = False
    await live.post("/connections/compute", json={"name": "here", "adapter": "memory"})
    slow = {**PROJECT, "operations/one.py": SLOW}
    await record(live, "trial", slow)
    execution = await start(live, "trial", compute="here")
    (job,) = execution["jobs"]
    path = f"/executions/{execution['id']}/jobs/{job['id']}/give-up"
    await until_status(live, execution["id"], {"queued", "running"})

    refused = await live.post(path)
    await live.post(f"/executions/{execution['id']}/cancel")
    await until_status(live, execution["id"], {"cancelled"})

    assert "not_supported" == refused.json()["error"]["code"]
    assert "is not run by a worker" in refused.json()["error"]["message"]
    assert 409 == (await live.post(path)).status_code, "it is over"
    assert 404 == (await live.post(path.replace(job["id"], "nothing"))).status_code


async def until_status(live: httpx.AsyncClient, execution: str, wanted: set[str]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        (job,) = (await live.get(f"/executions/{execution}")).json()["jobs"]
        if job["status"] in wanted:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"the job is never {wanted}")
