"""Pools over the API: who sees, uses and changes them, and what their workers get."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from deepforge.compute.port import PYTHON, Host, JobRequest
from deepforge.compute.worker import WorkerCompute, WorkerSettings
from deepforge.errors import Forbidden, Unavailable
from deepforge.server.app import PREFIX
from deepforge.server.services import Services
from deepforge.settings import Secret
from deepforge.webgme.workers import read_poll
from server_client import error_code, record
from webgme.rig import question

SITE = "http://forge.example"
PASSWORD = "correct horse"
PROJECT = {
    "operations/one.py": b"class One:\n    def execute(self):\n        return 1\n",
    "pipelines/trial.py": b"from operations.one import One\n\n\n"
    b"def trial():\n    one = One().execute()\n    return one\n",
}


class Forge:
    """A server with ada, an administrator, and bob, eve and joe; of the pool `lab` bob and eve are
    members."""

    def __init__(self, app: FastAPI, services: Services, folder: Path) -> None:
        self.app = app
        self.services = services
        self.folder = folder
        self.tokens: dict[str, str] = {}

    @asynccontextmanager
    async def client(self, token: str) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app),
            base_url=f"{SITE}{PREFIX}",
            headers={"authorization": f"Bearer {token}"},
        ) as client:
            yield client

    async def send(self, user: str, method: str, path: str, body: Any = None) -> httpx.Response:
        """As the user, or as whoever has a token kept under that name."""
        async with self.client(self.tokens[user]) as client:
            url = f"{SITE}{path}" if path.startswith("/rest") else path
            return await client.request(method, url, json=body)

    async def get(self, user: str, path: str) -> Any:
        answer = await self.send(user, "GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def ask(self, worker: str, *running: str, **more: Any) -> Any:
        """The question of a worker whose token and id go by this name."""
        answer = await self.send(
            worker, "POST", "/rest/executor/worker", question(worker, *running, **more)
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def compute(self, user: str, pool: str = "lab") -> WorkerCompute:
        host = Host(self.folder, self.services.documents, user)
        return WorkerCompute(WorkerSettings(pool=pool), host)

    async def submit(self, user: str, key: str, pool: str = "lab") -> str:
        files = {"job.json": key.encode()}
        labels = {"execution": f"of-{user}", "job": key}
        handle = await self.compute(user, pool).submit(
            JobRequest(key, (PYTHON, "-c", ""), files, labels=labels)
        )
        return str(handle["hash"])


@pytest.fixture
async def forge(app: FastAPI, services: Services, tmp_path: Path) -> Forge:
    app.state.wants_login = True
    made = Forge(app, services, tmp_path)
    for user in ("ada", "bob", "eve", "joe"):
        await services.users.add(user, Secret(PASSWORD))
        _, token = await services.tokens.create(user, "theirs", ["api"])
        made.tokens[user] = token.reveal()
    for pool, members in (("lab", ["bob", "eve"]), ("attic", ["joe"])):
        answer = await made.send("ada", "POST", "/pools", {"name": pool, "members": members})
        assert answer.status_code == 201, answer.text
    for worker, pool in (("lab-box", "lab"), ("attic-box", "attic")):
        answer = await made.send("ada", "POST", f"/tokens?pool={pool}", {"name": worker})
        assert answer.status_code == 201, answer.text
        assert ["worker"] == answer.json()["scopes"]
        made.tokens[worker] = answer.json()["token"]
    _, own = await services.tokens.create("joe", "box", ["worker"])
    made.tokens["joe-box"] = own.reveal()
    return made


async def test_a_worker_of_the_pool_gets_its_jobs_first_come_first_served(forge: Forge) -> None:
    first, second = await forge.submit("eve", "k1"), await forge.submit("bob", "k2")
    mine = await forge.submit("joe", "k3", pool="")

    assert [first] == (await forge.ask("lab-box"))["jobsToStart"]
    assert [second] == (await forge.ask("lab-box", first))["jobsToStart"]
    assert [] == (await forge.ask("lab-box", first, second))["jobsToStart"]
    assert [mine] == (await forge.ask("joe-box"))["jobsToStart"]


async def test_workers_of_others_and_of_other_pools_get_and_touch_nothing(forge: Forge) -> None:
    hash = await forge.submit("bob", "k1")
    waiting = await forge.submit("bob", "k2")
    assert [hash] == (await forge.ask("lab-box"))["jobsToStart"]

    for worker in ("attic-box", "joe-box", "bob"):
        assert [] == (await forge.ask(worker))["jobsToStart"]
        told = await forge.ask(worker, hash)
        assert [hash] == told["jobsToCancel"]  # no job of this owner: a worker that has it is wrong
        assert {} == await forge.get(worker, "/rest/executor")
        for method, path, body in (
            ("GET", f"/rest/executor/info/{hash}", None),
            ("GET", f"/rest/executor/output/{hash}", None),
            ("GET", f"/rest/blob/metadata/{waiting}", None),
            ("GET", f"/rest/blob/download/{waiting}", None),
            ("POST", f"/rest/executor/update/{hash}", {"status": "SUCCESS", "worker": "lab-box"}),
            ("POST", f"/rest/executor/output/{hash}", {"outputNumber": 0, "output": "x"}),
            ("POST", f"/rest/executor/cancel/{hash}", {}),
        ):
            answer = await forge.send(worker, method, path, body)
            assert answer.status_code == 404, (worker, path, answer.text)
    queue = forge.services.hand_out.queue
    assert "RUNNING" == (await queue.job("pool:lab", hash)).status
    assert [] == await queue.output("pool:lab", hash)


async def test_what_a_pools_worker_stores_is_the_pools_alone(forge: Forge) -> None:
    """The original worker leaves results as blobs."""
    stored = await forge.send("lab-box", "POST", "/rest/blob/createFile/result.json", {})
    (hash,) = stored.json()
    places = [f"/rest/blob/{verb}/{hash}" for verb in ("metadata", "download")]

    for user, code in (("lab-box", 200), ("attic-box", 404), ("bob", 404), ("ada", 404)):
        assert {code} == {(await forge.send(user, "GET", path)).status_code for path in places}


async def test_a_worker_token_of_a_pool_opens_nothing_else(forge: Forge) -> None:
    for path in ("/projects", "/workers", "/pools", "/queue", "/tokens", "/users"):
        assert 403 == (await forge.send("lab-box", "GET", path)).status_code


async def test_who_is_no_member_cannot_queue_list_or_run(forge: Forge) -> None:
    with pytest.raises(Forbidden, match="joe is not a member of a pool 'lab'") as caught:
        await forge.submit("joe", "k")
    assert "deepforge pools members lab --add joe" in (caught.value.hint or "")
    with pytest.raises(Forbidden):
        await forge.compute("joe").check()
    with pytest.raises(Unavailable, match="of the pool 'lab'"):
        await forge.compute("bob").check()
    await forge.ask("lab-box")
    await forge.compute("bob").check()

    for path in ("/pools/lab", "/queue?pool=lab", "/workers/lab-box?pool=lab"):
        assert 404 == (await forge.send("joe", "GET", path)).status_code
        assert 200 == (await forge.send("bob", "GET", path)).status_code
    assert ["attic"] == [one["name"] for one in (await forge.get("joe", "/pools"))["items"]]
    assert [] == (await forge.get("joe", "/workers"))["items"]

    settings = {"name": "shared", "adapter": "worker", "settings": {"pool": "lab"}}
    for user in ("joe", "bob"):
        await forge.send(user, "POST", "/connections/compute", settings)
        async with forge.client(forge.tokens[user]) as http:
            await record(http, "plans", PROJECT)
    refused = await forge.send("joe", "POST", "/projects/plans/executions", {"compute": "shared"})
    accepted = await forge.send("bob", "POST", "/projects/plans/executions", {"compute": "shared"})

    assert (422, "invalid_request") == (refused.status_code, error_code(refused))
    assert "joe is not a member" in refused.text
    assert "pools members lab --add joe" in refused.text
    assert 202 == accepted.status_code


async def test_members_see_the_workers_and_their_own_jobs_alone(forge: Forge) -> None:
    hashes = [
        await forge.submit(user, f"k-{user}-{n}") for n in range(2) for user in ("eve", "bob")
    ]
    assert hashes[:2] == (await forge.ask("lab-box", slots=2))["jobsToStart"]
    await forge.ask("joe-box")

    for user, place in (("eve", 1), ("bob", 2)):
        (worker,) = (await forge.get(user, "/workers"))["items"]
        assert ("lab-box", "lab", 1) == (worker["id"], worker["pool"], worker["jobs_of_others"])
        assert worker == await forge.get(user, "/workers/lab-box?pool=lab")
        assert [f"of-{user}"] == [one["execution"] for one in worker["jobs"]]
        (queued,) = (await forge.get(user, "/queue?pool=lab"))["items"]
        assert (f"of-{user}", place) == (queued["execution"], queued["position"])
        shown = await forge.get(user, "/pools/lab")
        assert (1, 2, 2, None) == tuple(
            shown[name] for name in ("workers", "waiting", "running", "members")
        )
        assert [] == (await forge.get(user, "/queue"))["items"]
        assert 403 == (await forge.send(user, "DELETE", "/workers/lab-box?pool=lab")).status_code
        assert 404 == (await forge.send(user, "DELETE", "/workers/lab-box")).status_code

    (worker,) = (await forge.get("ada", "/workers"))["items"]
    assert ("lab", [], 2) == (worker["pool"], worker["jobs"], worker["jobs_of_others"])
    assert ["bob", "eve"] == (await forge.get("ada", "/pools/lab"))["members"]
    assert 204 == (await forge.send("ada", "DELETE", "/workers/lab-box?pool=lab")).status_code
    assert "LOST" == (await forge.services.hand_out.queue.job("pool:lab", hashes[0])).status


async def test_workers_of_all_pools_come_in_pages(forge: Forge) -> None:
    await forge.send("ada", "PATCH", "/pools/attic", {"everyone": True})
    await forge.send("ada", "PATCH", "/pools/lab", {"add": ["joe"]})
    for worker in ("joe-box", "lab-box", "attic-box"):
        await forge.ask(worker)
    found: list[tuple[str | None, str]] = []
    after: str | None = ""
    while after is not None:
        shown = await forge.get("joe", f"/workers?limit=1&after={after}")
        found += [(one["pool"], one["id"]) for one in shown["items"]]
        after = shown["next"]

    assert [(None, "joe-box"), ("attic", "attic-box"), ("lab", "lab-box")] == found


async def test_a_member_who_was_removed_gets_no_further_job_started(forge: Forge) -> None:
    running, waits = await forge.submit("bob", "k1"), await forge.submit("bob", "k2")
    polled = await forge.submit("bob", "k3")
    other = await forge.submit("eve", "k4")
    assert [running] == (await forge.ask("lab-box"))["jobsToStart"]
    forge.services.hand_out.queue.bell.listeners.clear()  # nothing is told within this process
    await forge.send("ada", "PATCH", "/pools/lab", {"remove": ["bob"]})

    assert [other] == (await forge.ask("lab-box", running, slots=9))["jobsToStart"]
    for hash in (waits, polled):
        job = await forge.services.hand_out.queue.job("pool:lab", hash)
        assert ("FAILED_TO_EXECUTE", {}) == (job.status, job.files)
        (report,) = await forge.compute("bob").poll([{"hash": hash}])
        assert ("exited", "normal") == (report.state, report.reason)
        assert "bob is not a member of a pool 'lab'" in (report.message or "")
    (report,) = await forge.compute("bob").poll([{"hash": running}])
    assert "running" == report.state  # what runs goes on, and may be ended
    await forge.compute("bob").cancel([{"hash": running}])
    assert [running] == (await forge.ask("lab-box", running, other))["jobsToCancel"]
    with pytest.raises(Forbidden):
        await forge.submit("bob", "k5")


async def test_what_waits_of_a_removed_member_ends_though_no_worker_comes(forge: Forge) -> None:
    hash, other = await forge.submit("bob", "k1"), await forge.submit("eve", "k2")
    await forge.send("ada", "PATCH", "/pools/lab", {"remove": ["bob"]})

    (report,) = await forge.compute("bob").poll([{"hash": hash}])
    (untouched,) = await forge.compute("eve").poll([{"hash": other}])

    assert ("exited", "queued") == (report.state, untouched.state)


async def test_a_question_that_waits_is_given_no_job_of_a_removed_member(forge: Forge) -> None:
    asked = asyncio.create_task(
        forge.services.hand_out.poll("pool:lab", read_poll(question("lab-box")), wait_s=20)
    )
    while not forge.services.hand_out.holds("pool:lab", "lab-box"):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await forge.send("ada", "PATCH", "/pools/lab", {"remove": ["bob"]})
    queue = forge.services.hand_out.queue  # as a server does that had asked a moment before
    late = await queue.submit("pool:lab", "late", (PYTHON,), {"job.json": b""}, user="bob")
    wanted = await forge.submit("eve", "k2")
    answer = await asyncio.wait_for(asked, 20)

    assert late not in [job.hash for job in answer.start]
    if not answer.start:
        assert [wanted] == (await forge.ask("lab-box"))["jobsToStart"]


async def test_a_pool_in_use_is_not_removed_and_an_idle_one_leaves_nothing(forge: Forge) -> None:
    hash = await forge.submit("bob", "k1")
    waiting = await forge.send("ada", "DELETE", "/pools/lab")
    await forge.ask("lab-box")
    running = await forge.send("ada", "DELETE", "/pools/lab")
    await forge.send("lab-box", "POST", f"/rest/executor/update/{hash}", {"status": "SUCCESS"})
    removed = await forge.send("ada", "DELETE", "/pools/lab")

    assert (409, 409, 204) == tuple(one.status_code for one in (waiting, running, removed))
    assert "1 jobs wait in its queue, 0 run" in waiting.text
    refused = await forge.send("lab-box", "POST", "/rest/executor/worker", question("lab-box"))
    assert 401 == refused.status_code
    with pytest.raises(Forbidden):
        await forge.submit("bob", "k2")
    (report,) = await forge.compute("bob").poll([{"hash": hash}])
    assert "exited" == report.state

    await forge.send("ada", "POST", "/pools", {"name": "lab", "members": ["eve"]})
    again = await forge.send("lab-box", "POST", "/rest/executor/worker", question("lab-box"))
    assert 401 == again.status_code  # an old token does not come back with the name
    assert [] == (await forge.get("ada", "/workers"))["items"]


async def test_only_administrators_make_change_and_equip_pools(forge: Forge) -> None:
    for method, path, body in (
        ("POST", "/pools", {"name": "mine"}),
        ("PATCH", "/pools/lab", {"add": ["joe"]}),
        ("DELETE", "/pools/lab", None),
        ("POST", "/tokens?pool=lab", {"name": "t"}),
        ("POST", "/tokens?user=pool:lab", {"name": "t", "scopes": ["worker"]}),
        ("GET", "/tokens?pool=lab", None),
        ("DELETE", "/tokens/lab-box?pool=lab", None),
    ):
        assert 403 == (await forge.send("bob", method, path, body)).status_code, path
    await forge.send("ada", "PATCH", "/users/bob", {"is_admin": True})
    assert 201 == (await forge.send("bob", "POST", "/pools", {"name": "mine"})).status_code
    await forge.send("ada", "PATCH", "/users/bob", {"is_disabled": True})

    assert 401 == (await forge.send("bob", "GET", "/pools")).status_code
    made = await forge.send("ada", "POST", "/tokens?pool=mine", {"name": "t"})
    forge.tokens["mine-box"] = made.json()["token"]
    assert [] == (await forge.ask("mine-box"))["jobsToStart"]  # a pool outlives who made it


async def test_what_cannot_be_is_refused(forge: Forge) -> None:
    for code, method, path, body in (
        (409, "POST", "/pools", {"name": "lab"}),
        (422, "POST", "/pools", {"name": "pool:lab"}),
        (404, "POST", "/pools", {"name": "x", "members": ["nobody"]}),
        (404, "PATCH", "/pools/lab", {"add": ["nobody"]}),
        (404, "PATCH", "/pools/none", {"everyone": True}),
        (404, "DELETE", "/pools/none", None),
        (404, "POST", "/tokens?pool=none", {"name": "t"}),
        (422, "POST", "/tokens?pool=lab", {"name": "t", "scopes": ["api"]}),
        (422, "POST", "/tokens?pool=lab", {"name": "t", "scopes": ["api", "worker"]}),
        (422, "POST", "/tokens?pool=lab&user=ada", {"name": "t"}),
        (422, "POST", "/users", {"name": "pool:lab", "password": PASSWORD}),
    ):
        answer = await forge.send("ada", method, path, body)
        assert code == answer.status_code, (method, path, answer.text)


async def test_a_server_without_accounts_has_nobody_to_share_with(http: httpx.AsyncClient) -> None:
    answer = await http.post("/pools", json={"name": "lab", "everyone": True})

    assert 422 == answer.status_code
    assert "deepforge users add" in answer.text


async def test_a_member_gives_up_an_attempt_of_a_silent_worker(
    forge: Forge, services: Services
) -> None:
    await forge.send(
        "bob",
        "POST",
        "/connections/compute",
        {"name": "shared", "adapter": "worker", "settings": {"pool": "lab"}},
    )
    async with forge.client(forge.tokens["bob"]) as http:
        await record(http, "plans", PROJECT)
    async with services.driver:
        started = await forge.send(
            "bob", "POST", "/projects/plans/executions", {"compute": "shared"}
        )
        execution = started.json()
        path = f"/executions/{execution['id']}/jobs/{execution['jobs'][0]['id']}/give-up"
        async with asyncio.timeout(20):
            while not (given := (await forge.ask("lab-box"))["jobsToStart"]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        foreign = await forge.send("eve", "POST", path)
        answer = await forge.send("bob", "POST", path)

    assert (404, 202) == (foreign.status_code, answer.status_code), answer.text
    assert "LOST" == (await services.hand_out.queue.job("pool:lab", given[0])).status


async def test_a_token_that_is_made_while_its_pool_goes_goes_with_it(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools, tokens = forge.services.hand_out.pools, forge.services.tokens
    remove = pools.remove

    async def late(name: str) -> None:
        await tokens.create("pool:attic", "late", ["worker"])
        await remove(name)

    monkeypatch.setattr(pools, "remove", late)
    assert 204 == (await forge.send("ada", "DELETE", "/pools/attic")).status_code

    assert [] == await tokens.list("pool:attic")
