from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from deepforge.compute.client import ComputeClient
from deepforge.compute.port import Host, JobReport, JobRequest
from deepforge.compute.worker import WorkerCompute, WorkerSettings
from deepforge.errors import ConfigError, InvalidRequest, Unavailable
from deepforge.execution.access import Address
from deepforge.ids import timestamp
from deepforge.runner.build import runner_archive
from deepforge.testing.compute import python
from webgme.rig import OWNER, Rig, opened


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with opened(tmp_path / "home") as opened_rig:
        yield opened_rig


def compute(rig: Rig, tmp_path: Path, labels: str = "", owner: str = OWNER) -> WorkerCompute:
    return WorkerCompute(WorkerSettings(labels), Host(tmp_path, rig.services.documents, owner))


async def test_check_says_which_worker_is_missing_and_how_to_start_one(
    rig: Rig, tmp_path: Path
) -> None:
    with pytest.raises(Unavailable, match="no worker of yours is connected") as caught:
        await compute(rig, tmp_path).check()
    assert "deepforge worker --url" in (caught.value.hint or "")

    await rig.ask("w", labels=("gpu",))
    await compute(rig, tmp_path).check()
    await compute(rig, tmp_path, "gpu").check()
    with pytest.raises(Unavailable, match="labels gpu, lab"):
        await compute(rig, tmp_path, " gpu, lab,").check()
    with pytest.raises(Unavailable):
        await compute(rig, tmp_path, owner="somebody").check()


async def test_jobs_wait_while_no_worker_is_there(rig: Rig, tmp_path: Path) -> None:
    adapter = compute(rig, tmp_path)
    handle = await adapter.submit(python(""))

    assert [JobReport("queued")] == await adapter.poll([handle])
    assert [handle["hash"]] == (await rig.ask("w"))["jobsToStart"]
    assert [JobReport("running")] == await adapter.poll([handle])


async def test_the_labels_of_the_compute_decide_who_gets_its_jobs(rig: Rig, tmp_path: Path) -> None:
    handle = await compute(rig, tmp_path, "gpu").submit(python(""))

    assert [] == (await rig.ask("w"))["jobsToStart"]
    assert [handle["hash"]] == (await rig.ask("v", labels=("gpu",)))["jobsToStart"]


async def test_what_a_lost_worker_had_is_a_failure_of_its_node(rig: Rig, tmp_path: Path) -> None:
    adapter = compute(rig, tmp_path)
    handle = await adapter.submit(python(""))
    await rig.ask("w")
    await rig.queue.lose(OWNER, handle["hash"], "the worker is gone")

    assert [JobReport("exited", None, "node_failure", "the worker is gone")] == (
        await adapter.poll([handle])
    )


async def test_silence_of_a_worker_is_told_with_the_way_out(rig: Rig, tmp_path: Path) -> None:
    adapter = compute(rig, tmp_path)
    labels = {"execution": "e1", "job": "train"}
    handle = await adapter.submit(replace(python(""), labels=labels))
    await rig.ask("w")
    documents = rig.services.documents
    (worker,) = await documents.find("workers")
    old = {**worker.body, "seen_at": timestamp(time.time() - 300)}
    await documents.replace("workers", worker.id, old, if_revision=worker.revision)

    (report,) = await adapter.poll([handle])
    assert "running" == report.state
    assert f"its worker w is silent since {old['seen_at'][:19]}" in (report.message or "")
    assert "deepforge executions give-up e1 train" in (report.message or "")

    await documents.delete("workers", worker.id)
    assert [JobReport("running")] == await adapter.poll([handle])


async def test_another_users_compute_sees_nothing_of_the_job(rig: Rig, tmp_path: Path) -> None:
    handle = await compute(rig, tmp_path).submit(python("print()"))
    other = compute(rig, tmp_path, owner="somebody")

    assert [JobReport("missing")] == await other.poll([handle])
    await other.cancel([handle])
    await other.release(handle)
    assert [JobReport("queued")] == await compute(rig, tmp_path).poll([handle])


async def test_the_runner_is_not_stored_with_every_job(rig: Rig, tmp_path: Path) -> None:
    adapter = compute(rig, tmp_path)
    for number in range(2):
        request = JobRequest(
            f"k{number}",
            ("{python}", "runner.pyz", "job.json"),
            {"runner.pyz": runner_archive(), "job.json": b"{}"},
        )
        await adapter.submit(request)

    stored = await rig.services.documents.find("worker_jobs")
    assert ["runner.pyz"] * 2 == [one.body["runner_file"] for one in stored]
    assert all("runner.pyz" not in one.body["files"] for one in stored)
    assert all(len(str(one.body)) < 3000 for one in stored)


async def test_a_request_is_refused_before_it_is_queued(rig: Rig, tmp_path: Path) -> None:
    adapter = compute(rig, tmp_path)
    request = python("", files={"executor_config.json": b"{}"})

    assert ["files"] == [one.part for one in await adapter.why_not(request)]
    with pytest.raises(InvalidRequest):
        await adapter.submit(python("", files={"big": b"x" * (5 * 2**20)}))


async def test_without_a_database_there_is_no_queue(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        await WorkerCompute(WorkerSettings(), Host(tmp_path)).check()


def test_jobs_call_the_server_where_their_worker_found_it(tmp_path: Path) -> None:
    """A server without a public address is reached by workers of its own machine alone."""
    client = ComputeClient(WorkerCompute(WorkerSettings(), Host(tmp_path)), "far")
    near = Address(loopback_url="http://127.0.0.1:1")
    far = Address(loopback_url="http://127.0.0.1:1", public_url="https://forge.example")
    nameless = Address(loopback_url="http://127.0.0.1:1", is_open=True)

    urls = [
        None if found is None else found.url
        for found in (one.channel(client, "k", "t") for one in (near, far, nameless, Address()))
    ]

    assert [
        "http://127.0.0.1:1/api/v1/attempts/k",
        "https://forge.example/api/v1/attempts/k",
        None,
        None,
    ] == urls
