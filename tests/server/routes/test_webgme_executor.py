"""What is ours about the executor routes. The original's answers are compared in `tests/interop`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from deepforge.compute.port import PYTHON, Resources
from deepforge.connections.secrets import SecretBox
from deepforge.server.services import Services
from deepforge.settings import Secret
from deepforge.webgme.queue import Queue
from webgme.rig import question

ASK = "/rest/executor/worker"
RUNNER = b"PK the runner"


@pytest.fixture
async def rest(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def submit(services: Services, key: str = "k", owner: str = "local") -> str:
    return await services.hand_out.queue.submit(
        owner,
        key,
        (PYTHON, "runner.pyz", "job.json"),
        {"runner.pyz": RUNNER, "job.json": b'{"attempt": 1}'},
        runner_file="runner.pyz",
        resources=Resources(cpus=2, walltime_s=60),
        about={"execution": "e", "job": "j"},
    )


async def test_our_worker_gets_all_it_needs_in_one_answer(
    rest: httpx.AsyncClient, services: Services
) -> None:
    hash = await submit(services)

    answer = (await rest.post(ASK, json=question("w"))).json()

    ours = answer["deepforge"]
    assert [hash] == answer["jobsToStart"]
    assert 4500 == ours["leaseS"]
    job = ours["jobs"][hash]
    assert "k" == job["key"]
    assert {"job.json": '{"attempt": 1}'} == job["files"]
    assert job["command"] is None
    assert {"cpus": 2, "memoryBytes": None, "gpus": None, "walltimeS": 60} == job["resources"]
    fetched = await rest.get(f"/rest/executor/runner/{ours['runner']}")
    assert RUNNER == fetched.content
    assert 404 == (await rest.get(f"/rest/executor/runner/{'0' * 64}")).status_code


async def test_files_lie_sealed_in_the_database_until_the_job_is_over(
    rest: httpx.AsyncClient, services: Services
) -> None:
    hash = await submit(services)

    (kept,) = await services.documents.find("worker_jobs")
    assert '"attempt' not in json.dumps(kept.body["files"])
    assert b'{"attempt": 1}' == (await services.hand_out.queue.job_files("local", hash))["job.json"]

    await rest.post(ASK, json=question("w"))
    await rest.post(f"/rest/executor/update/{hash}", json={"worker": "w", "status": "SUCCESS"})
    (kept,) = await services.documents.find("worker_jobs")
    assert {} == kept.body["files"]


async def test_jobs_that_another_key_sealed_are_lost_and_hold_up_no_others(
    rest: httpx.AsyncClient, services: Services, tmp_path: Path
) -> None:
    other = Queue(services.documents, SecretBox(tmp_path / "other-key", {}))
    lost = await other.submit("local", "old", (PYTHON, "-V"), {"job.json": b"{}"})
    hash = await submit(services)

    answer = (await rest.post(ASK, json=question("w", slots=2))).json()

    assert [hash] == answer["jobsToStart"] == list(answer["deepforge"]["jobs"])
    job = await services.hand_out.queue.job("local", lost)
    assert ("LOST", True) == (job.status, "another key" in (job.message or ""))


async def test_a_job_that_is_no_runner_comes_with_its_command_and_any_bytes(
    rest: httpx.AsyncClient, services: Services
) -> None:
    files = {"text": "é".encode(), "bytes": b"\xff\0"}
    hash = await services.hand_out.queue.submit("local", "k", (PYTHON, "-V"), files)

    ours = (await rest.post(ASK, json=question("w"))).json()["deepforge"]

    assert ours["runner"] is None
    assert [PYTHON, "-V"] == ours["jobs"][hash]["command"]
    assert {"text": "é", "bytes": {"base64": "/wA="}} == ours["jobs"][hash]["files"]


async def test_the_original_worker_gets_the_same_job_as_a_blob(
    rest: httpx.AsyncClient, services: Services
) -> None:
    hash = await submit(services)
    asked = question("w", instance=None, slots=1)
    services_queue = services.hand_out.queue
    assert [] == (await rest.post(ASK, json=asked)).json()["jobsToStart"], "it asks for 2 cpus"
    plain = await services_queue.submit("local", "plain", (PYTHON, "-V"), {"job.json": b"{}"})

    answer = (await rest.post(ASK, json=asked)).json()

    assert [plain] == answer["jobsToStart"]
    assert "deepforge" not in answer
    assert 200 == (await rest.get(f"/rest/executor/info/{plain}")).status_code
    for where in ("metadata", "view"):
        assert 200 == (await rest.get(f"/rest/blob/{where}/{plain}/")).status_code
    assert hash in {job.hash for job in await services_queue.of_owner("local")}


async def test_the_original_worker_is_listed_without_secrets(
    rest: httpx.AsyncClient,
) -> None:
    await rest.post("/rest/executor/create/job", json={})
    await rest.post(ASK, json=question("w", instance=None, labels=("a",)))

    (listed,) = (await rest.get(ASK)).json().values()

    assert ("w", ["a"], ["local"]) == (listed["clientId"], listed["labels"], listed["userId"])
    assert ["job"] == [job["hash"] for job in listed["jobs"]]
    assert "secret" not in json.dumps(listed)
    assert isinstance(listed["lastSeen"], float)


async def test_ten_megabytes_of_output_in_one_body_are_kept(
    rest: httpx.AsyncClient, services: Services
) -> None:
    hash = await submit(services)
    await rest.post(ASK, json=question("w"))
    text = "0123456789" * 2**20

    sent = await rest.post(
        f"/rest/executor/output/{hash}", json={"outputNumber": 0, "output": text}
    )
    (read,) = (await rest.get(f"/rest/executor/output/{hash}")).json()

    assert (200, text) == (sent.status_code, read["output"])
    beyond = {"outputNumber": 1, "output": "x" * (18 * 2**20)}
    refused = await rest.post(f"/rest/executor/output/{hash}", json=beyond)
    assert (413, "Payload Too Large") == (refused.status_code, refused.text)


async def test_output_beyond_what_a_job_may_print_is_refused_and_the_job_goes_on(
    rest: httpx.AsyncClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepforge.webgme.output.MAX_OUTPUT_BYTES", 10)
    hash = await submit(services)
    await rest.post(ASK, json=question("w"))

    body = {"outputNumber": 0, "output": "x" * 11}
    assert 413 == (await rest.post(f"/rest/executor/output/{hash}", json=body)).status_code
    done = {"worker": "w", "status": "SUCCESS", "exitCode": 0}
    assert 200 == (await rest.post(f"/rest/executor/update/{hash}", json=done)).status_code


@pytest.mark.parametrize(("instance", "status"), [("i1", 409), (None, 200)])
async def test_reports_and_output_for_a_lost_job_never_count(
    rest: httpx.AsyncClient, services: Services, instance: str | None, status: int
) -> None:
    """Ours is told, so that it stops; the original one would not understand."""
    queue = services.hand_out.queue
    hash = await queue.submit("local", "k", (PYTHON,), {"job.json": b""})
    await rest.post(ASK, json=question("w", instance=instance))
    await queue.lose("local", hash, "gone")

    for path, body in (
        ("update", {"worker": "w", "status": "SUCCESS", "exitCode": 0}),
        ("output", {"outputNumber": 0, "output": "late"}),
    ):
        answer = await rest.post(f"/rest/executor/{path}/{hash}", json=body)
        assert status == answer.status_code

    assert "LOST" == (await queue.job("local", hash)).status
    assert [] == await queue.output("local", hash)


async def test_a_worker_cannot_report_for_another(
    rest: httpx.AsyncClient, services: Services
) -> None:
    hash = await submit(services)
    await rest.post(ASK, json=question("w"))

    body = {"worker": "thief", "status": "FAILED_TO_EXECUTE", "exitCode": 1}
    assert 409 == (await rest.post(f"/rest/executor/update/{hash}", json=body)).status_code
    assert "RUNNING" == (await services.hand_out.queue.job("local", hash)).status


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("worker", b"[]", 400),
        ("worker", b"{", 400),
        ("worker", b'{"clientId": 3}', 400),
        ("worker", b"[" * 100_000, 400),
        ("worker", b" " * (2**20 + 1), 413),
        ("update/none", b"{}", 404),
        ("output/none", b'{"outputNumber": -1, "output": ""}', 400),
        ("output/none", b'{"outputNumber": 0, "output": 3}', 400),
        ("create/" + "x" * 200, b"{}", 404),
        ("create/a%0Ab", b"{}", 404),
    ],
)
async def test_nonsense_is_refused_in_the_words_of_the_original(
    rest: httpx.AsyncClient, path: str, body: bytes, status: int
) -> None:
    answer = await rest.post(f"/rest/executor/{path}", content=body)

    assert status == answer.status_code
    assert answer.headers["content-type"].startswith("text/plain")
    assert "webgme.v1" == answer.headers["x-webgme-media-type"]


# ── accounts ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_token_that_is_revoked_while_a_job_runs_ends_nothing_but_the_talk(
    app: FastAPI, rest: httpx.AsyncClient, services: Services
) -> None:
    """The job stays with its worker, shown as silent, until a token is given again or the lease ends."""
    app.state.wants_login = True
    await services.users.add("ada", Secret("correct horse"))

    async def token(name: str) -> dict[str, str]:
        _, made = await services.tokens.create("ada", name, ["worker"])
        return {"x-api-token": made.reveal()}

    first = await token("first")
    hash = await submit(services, owner="ada")
    assert [hash] == (await rest.post(ASK, json=question("w"), headers=first)).json()["jobsToStart"]

    await services.tokens.revoke("ada", "first")
    done = {"worker": "w", "status": "SUCCESS", "exitCode": 0}
    for path, body in (("worker", question("w", hash)), (f"update/{hash}", done)):
        answer = await rest.post(f"/rest/executor/{path}", json=body, headers=first)
        assert 401 == answer.status_code
    assert "RUNNING" == (await services.hand_out.queue.job("ada", hash)).status

    again = await token("second")
    answer = await rest.post(f"/rest/executor/update/{hash}", json=done, headers=again)
    assert 200 == answer.status_code
    assert "SUCCESS" == (await services.hand_out.queue.job("ada", hash)).status


@pytest.mark.parametrize("end", ["revoked", "disabled"])
async def test_a_token_that_ends_while_its_worker_waits_is_given_no_job(
    app: FastAPI, rest: httpx.AsyncClient, services: Services, end: str
) -> None:
    app.state.wants_login = True
    await services.users.add("ada", Secret("correct horse"))
    _, first = await services.tokens.create("ada", "first", ["worker"])
    _, second = await services.tokens.create("ada", "second", ["worker"])
    waiting = asyncio.create_task(
        rest.post(
            ASK, json=question("w"), headers={"x-api-token": first.reveal(), "Prefer": "wait=20"}
        )
    )
    deadline = time.monotonic() + 5
    while not services.hand_out.holds("ada", "w"):
        assert time.monotonic() < deadline, "the question is not held"
        await asyncio.sleep(0.005)

    if end == "revoked":
        await services.tokens.revoke("ada", "first")
    else:
        await services.users.change("ada", is_disabled=True)
    hash = await submit(services, owner="ada")

    assert 401 == (await waiting).status_code
    assert "CREATED" == (await services.hand_out.queue.job("ada", hash)).status
    if end == "revoked":
        headers = {"x-api-token": second.reveal()}
        answer = await rest.post(ASK, json=question("other"), headers=headers)
        assert [hash] == answer.json()["jobsToStart"]


async def test_an_unknown_token_is_refused_also_where_the_original_takes_it(
    app: FastAPI, rest: httpx.AsyncClient
) -> None:
    app.state.wants_login = True
    for headers in ({}, {"x-api-token": "df_unknown"}, {"authorization": "Bearer df_unknown"}):
        answer = await rest.post(ASK, json=question("w"), headers=headers)
        assert 401 == answer.status_code
