"""Leases, by our clock alone. Time is moved by changing what was written down, never by waiting."""

from __future__ import annotations

from typing import Any

import pytest

from deepforge.ids import epoch_s, timestamp, utc_now
from deepforge.webgme.hand_out import HandOut
from deepforge.webgme.queue import Queue
from deepforge.webgme.workers import read_poll
from webgme.rig import OWNER, Rig, question


async def age(rig: Rig, by_s: float) -> HandOut:
    """A server that begins now and opened its doors long ago, on a database where every worker was
    heard of that much earlier than it was."""
    documents = rig.services.documents
    for record in await documents.find("workers"):
        seen = timestamp(epoch_s(record.body["seen_at"]) - by_s)
        body = {**record.body, "seen_at": seen}
        await documents.replace("workers", record.id, body, if_revision=record.revision)
    server = HandOut(Queue(documents), challenge_s=0.05)
    server.silence._began_s -= 1e6
    return server


async def status(rig: Rig, hash: str) -> str:
    return (await rig.queue.job(OWNER, hash)).status


async def handed_out(rig: Rig, worker: str, **more: Any) -> str:
    hash = await rig.submit(f"k-{worker}")
    await rig.ask(worker, **more)
    return hash


@pytest.mark.parametrize(
    ("instance", "silent_s", "expected"),
    [
        (None, 20, "RUNNING"),
        (None, 40, "LOST"),
        ("i1", 40, "RUNNING"),
        ("i1", 3600, "RUNNING"),
        ("i1", 4600, "LOST"),
    ],
)
async def test_a_worker_that_is_silent_beyond_its_lease_loses_its_jobs(
    rig: Rig, instance: str | None, silent_s: float, expected: str
) -> None:
    """25 s for the original worker; ours works through an hour without network."""
    hash = await handed_out(rig, "w", instance=instance)

    server = await age(rig, silent_s)
    await server.silence.sweep()

    assert expected == await status(rig, hash)


async def test_while_no_server_ran_no_worker_was_silent(rig: Rig) -> None:
    hash = await handed_out(rig, "w")

    server = await age(rig, 1e5)
    server.silence._began_s += 1e6
    await server.silence.sweep()

    assert "RUNNING" == await status(rig, hash)


async def test_a_job_of_a_client_waits_again_when_its_worker_is_lost(rig: Rig) -> None:
    await rig.post("create/job", {})
    await rig.ask("w", instance=None)

    server = await age(rig, 60)
    await server.silence.sweep()

    assert "CREATED" == await status(rig, "job")
    assert ["job"] == (await rig.ask("v", instance=None))["jobsToStart"]


async def test_a_worker_that_comes_back_after_its_lease_has_lost_its_jobs(rig: Rig) -> None:
    hash = await handed_out(rig, "w")
    server = await age(rig, 5000)
    await server.silence.sweep()

    back = await server.poll(OWNER, read_poll(question("w", hash)))
    late = await rig.post(f"update/{hash}", {"worker": "w", "status": "SUCCESS", "exitCode": 0})

    assert (hash,) == back.cancel
    assert 409 == late.status_code
    assert "LOST" == await status(rig, hash)
    (view,) = await server.registry.of_owner(OWNER)
    assert view.is_connected


async def test_a_worker_heard_of_again_in_time_keeps_its_jobs(rig: Rig) -> None:
    hash = await handed_out(rig, "w")
    server = await age(rig, 5000)
    await server.poll(OWNER, read_poll(question("w", hash)))

    await server.silence.sweep()

    assert "RUNNING" == await status(rig, hash)


async def test_a_worker_whose_clock_is_an_hour_off_is_as_good_as_any(rig: Rig) -> None:
    """What it claims about times is kept and shown, and decides nothing."""
    hash = await handed_out(rig, "w")
    ago = timestamp(epoch_s(utc_now()) - 3600)
    claim = {"worker": "w", "startTime": ago, "finishTime": ago}
    assert 200 == (await rig.post(f"update/{hash}", claim)).status_code

    server = HandOut(rig.queue)
    server.silence._began_s -= 1e6
    await server.silence.sweep()

    assert "RUNNING" == await status(rig, hash)
    assert (
        200
        == (
            await rig.post(f"update/{hash}", {**claim, "status": "SUCCESS", "exitCode": 0})
        ).status_code
    )
    assert "SUCCESS" == await status(rig, hash)
