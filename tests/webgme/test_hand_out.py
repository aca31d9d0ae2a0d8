"""Who gets which job, asked over the routes as workers do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from deepforge.compute.port import Resources
from deepforge.webgme import hand_out as hand_out_module
from deepforge.webgme.hand_out import HandOut
from deepforge.webgme.jobs import report
from deepforge.webgme.queue import Queue
from deepforge.webgme.workers import read_poll
from webgme.rig import OWNER, Rig, question


@asynccontextmanager
async def asking(rig: Rig, client_id: str, *running: str, **more: Any) -> AsyncIterator[Any]:
    """A question that waits for its answer; the block begins when the server holds it."""
    task = asyncio.create_task(rig.ask(client_id, *running, wait_s=20, **more))
    try:
        await until_held(rig, client_id)
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until_held(rig: Rig, client_id: str) -> None:
    deadline = time.monotonic() + 5
    while not rig.hand_out.holds(OWNER, client_id):
        assert time.monotonic() < deadline, "the question is not held"
        await asyncio.sleep(0.005)


async def state(rig: Rig, hash: str) -> str:
    return (await rig.queue.job(OWNER, hash)).status


async def test_a_job_is_handed_out_whole_and_runs_at_once(rig: Rig) -> None:
    hash = await rig.submit("k1", resources=Resources(cpus=2, walltime_s=60))

    answer = await rig.ask("w")

    assert [hash] == answer["jobsToStart"]
    assert [] == answer["jobsToCancel"]
    assert ("RUNNING", "w") == (await state(rig, hash), (await rig.queue.job(OWNER, hash)).worker)


async def test_the_same_job_is_never_handed_out_twice(rig: Rig) -> None:
    hashes = [await rig.submit(f"k{number}") for number in range(40)]

    answers = await asyncio.gather(*(rig.ask(f"w{number}", slots=3) for number in range(20)))

    handed = [hash for answer in answers for hash in answer["jobsToStart"]]
    assert sorted(hashes) == sorted(handed)


async def test_two_servers_on_one_database_never_hand_out_the_same(rig: Rig) -> None:
    hashes = [await rig.submit(f"k{number}") for number in range(40)]
    async with HandOut(Queue(rig.services.documents)) as other:

        async def ask(server: HandOut, number: int) -> list[str]:
            poll = read_poll(question(f"w{number}", slots=2))
            return [job.hash for job in (await server.poll(OWNER, poll)).start]

        handed: list[str] = []
        for turn in range(20):  # a server that lost a race is asked again
            servers = (rig.hand_out, other)
            found = await asyncio.gather(
                *(ask(servers[number % 2], 100 * turn + number) for number in range(6))
            )
            handed += [hash for one in found for hash in one]

    assert sorted(hashes) == sorted(handed)


async def test_jobs_go_out_in_the_order_they_came(rig: Rig) -> None:
    hashes = [await rig.submit(f"k{number}") for number in range(6)]

    answer = await rig.ask("w", slots=4)

    assert hashes[:4] == answer["jobsToStart"]


async def test_a_waiting_worker_gets_a_new_job_at_once(rig: Rig) -> None:
    async with asking(rig, "w") as answer:
        began = time.monotonic()
        hash = await rig.submit("k1")
        assert [hash] == (await answer)["jobsToStart"]
        assert time.monotonic() - began < 1


async def test_jobs_that_come_together_are_spread_over_waiting_workers(rig: Rig) -> None:
    async with (
        asking(rig, "a", slots=4) as first,
        asking(rig, "b", slots=4) as second,
    ):
        await asyncio.gather(*(rig.submit(f"k{number}") for number in range(2)))
        assert [1, 1] == [len((await one)["jobsToStart"]) for one in (first, second)]


async def test_a_worker_without_room_gets_nothing(rig: Rig) -> None:
    await rig.submit("k1", resources=Resources(gpus=1))
    await rig.submit("k2", resources=Resources(memory_bytes=2**40))
    await rig.submit("k3", labels=["lab"])

    assert [] == (await rig.ask("w", slots=0, gpus=4, labels=("lab",)))["jobsToStart"]
    assert [] == (await rig.ask("w", slots=9))["jobsToStart"]
    assert 1 == len((await rig.ask("w", slots=9, gpus=1))["jobsToStart"])


async def test_labels_decide(rig: Rig) -> None:
    hash = await rig.submit("k1", labels=["lab", "gpu"])

    assert [] == (await rig.ask("w", labels=("gpu",)))["jobsToStart"]
    assert [hash] == (await rig.ask("v", labels=("gpu", "lab", "more")))["jobsToStart"]


async def test_workers_of_other_users_get_nothing(rig: Rig) -> None:
    await rig.submit("k1")

    answer = await rig.hand_out.poll("somebody", read_poll(question("w")))

    assert () == answer.start


async def test_what_another_process_queued_is_found_while_a_worker_waits(rig: Rig) -> None:
    """That process has a bell of its own, which nobody here hears."""

    class Elsewhere:
        def __getattr__(self, name: str) -> Any:
            return getattr(rig.services.documents, name)

    elsewhere = Queue(Elsewhere())
    async with asking(rig, "w") as answer:
        hash = await elsewhere.submit(OWNER, "k1", ("true",), {"job.json": b""})
        assert [hash] == (await asyncio.wait_for(answer, 5))["jobsToStart"]
    async with asking(rig, "w", hash) as answer:
        await elsewhere.cancel(OWNER, hash)
        assert [hash] == (await asyncio.wait_for(answer, 5))["jobsToCancel"]


async def test_a_cancelled_job_that_waits_is_never_handed_out(rig: Rig) -> None:
    hash = await rig.submit("k1")
    await rig.queue.cancel(OWNER, hash)

    assert [] == (await rig.ask("w"))["jobsToStart"]
    assert "CANCELED" == await state(rig, hash)


async def test_cancel_reaches_a_waiting_worker_at_once(rig: Rig) -> None:
    hash = await rig.submit("k1")
    await rig.ask("w")
    async with asking(rig, "w", hash) as answer:
        await rig.queue.cancel(OWNER, hash)
        assert [hash] == (await answer)["jobsToCancel"]


async def test_an_answer_on_its_way_counts_against_the_room(rig: Rig) -> None:
    """The next question was written before the answer was read."""
    hashes = [await rig.submit(f"k{number}") for number in range(3)]
    assert [hashes[0]] == (await rig.ask("w", slots=1))["jobsToStart"]

    assert [] == (await rig.ask("w", slots=1))["jobsToStart"]
    assert [hashes[1]] == (await rig.ask("w", hashes[0], slots=1))["jobsToStart"]


async def test_a_newer_question_has_the_older_one_answered(rig: Rig) -> None:
    async with asking(rig, "w") as older, asking(rig, "w") as newer:
        assert [] == (await asyncio.wait_for(older, 2))["jobsToStart"]
        hash = await rig.submit("k1")
        assert [hash] == (await newer)["jobsToStart"]


async def test_two_questions_at_once_share_the_room(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older one read what the worker has before the newer one was given a job."""
    hashes = [await rig.submit(f"k{number}") for number in range(2)]
    held, has_read, go_on = rig.queue.held, asyncio.Event(), asyncio.Event()

    async def slow(owner: str, client_id: str) -> Any:
        found = await held(owner, client_id)
        has_read.set()
        await go_on.wait()
        return found

    with monkeypatch.context() as slowed:
        slowed.setattr(rig.queue, "held", slow)
        older = asyncio.create_task(rig.ask("w", wait_s=20))
        await has_read.wait()
    newer = await rig.ask("w")
    go_on.set()

    assert [hashes[0]] == newer["jobsToStart"]
    assert [] == (await asyncio.wait_for(older, 2))["jobsToStart"]
    assert "CREATED" == await state(rig, hashes[1])


async def test_a_worker_that_hung_up_gets_no_job(rig: Rig) -> None:
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    poll = read_poll(question("w"))
    task = asyncio.create_task(rig.hand_out.poll(OWNER, poll, wait_s=20, gone=gone))
    await until_held(rig, "w")

    gone.set_result(None)
    await task
    hash = await rig.submit("k1")

    assert "CREATED" == await state(rig, hash)
    assert [hash] == (await rig.ask("v"))["jobsToStart"]


async def test_what_is_held_is_answered_when_the_server_stops(rig: Rig) -> None:
    async with asking(rig, "w") as answer:
        rig.app.state.stopping.set()
        assert [] == (await asyncio.wait_for(answer, 2))["jobsToStart"]
    began = time.monotonic()
    await rig.ask("w", wait_s=20)
    assert time.monotonic() - began < 2


async def test_a_database_that_fails_loses_no_job(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    hash = await rig.submit("k1")
    with monkeypatch.context() as broken:

        async def fail(*_: Any, **__: Any) -> Any:
            raise OSError("the cable is out")

        broken.setattr(rig.queue, "hand_out", fail)
        assert 500 == (await rig.send(question("w"))).status_code

    assert [hash] == (await rig.ask("w"))["jobsToStart"]


# ── bad days ──────────────────────────────────────────────────────────────────────────────────────


async def test_what_a_restarted_worker_does_not_have_is_lost_at_once(rig: Rig) -> None:
    kept, lost = [await rig.submit(f"k{number}") for number in range(2)]
    await rig.ask("w", slots=2, instance="before")
    rig.hand_out.registry._challenge_s = 0.05

    await rig.ask("w", kept, instance="after")

    assert ["RUNNING", "LOST"] == [await state(rig, one) for one in (kept, lost)]
    assert "node_failure" == report(await rig.queue.job(OWNER, lost)).reason


async def test_an_answer_that_never_arrived_is_given_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    hash = await rig.submit("k1")
    await rig.ask("w")
    assert [] == (await rig.ask("w"))["jobsToStart"], "it may still be on the way"

    monkeypatch.setattr(hand_out_module, "UNLISTED_S", 0.0)
    assert [] == (await rig.ask("w", hash))["jobsToStart"]
    again = await rig.ask("w")

    assert [hash] == again["jobsToStart"]
    assert "RUNNING" == await state(rig, hash)


async def test_a_job_that_its_worker_never_takes_is_lost(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand_out_module, "UNLISTED_S", 0.0)
    hash = await rig.submit("k1")

    told = [len((await rig.ask("w"))["jobsToStart"]) for _ in range(6)]

    assert [1, 1, 1, 1, 0, 0] == told
    assert "LOST" == await state(rig, hash)


async def test_a_cancelled_job_that_never_arrived_is_not_waited_for(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    hash = await rig.submit("k1")
    await rig.ask("w")
    await rig.queue.cancel(OWNER, hash)
    monkeypatch.setattr(hand_out_module, "UNLISTED_S", 0.0)

    assert [] == (await rig.ask("w"))["jobsToStart"]
    assert "LOST" == await state(rig, hash)


async def test_many_original_workers_are_told_to_ask_less_often(rig: Rig) -> None:
    alone = (await rig.ask("w", instance=None))["refreshPeriod"]
    rig.hand_out.silence.originals = 150
    many = (await rig.ask("w", instance=None))["refreshPeriod"]
    rig.hand_out.silence.originals = 10_000
    crowd = (await rig.ask("w", instance=None))["refreshPeriod"]

    assert [1000, 3000, 5000] == [alone, many, crowd]


async def test_two_living_workers_cannot_speak_under_one_id(rig: Rig) -> None:
    hash = await rig.submit("k1")
    await rig.ask("w", instance="first")
    async with asking(rig, "w", hash, instance="first") as answer:
        second = asyncio.create_task(rig.send(question("w", instance="second")))
        await answer  # it is asked to show itself
        await rig.ask("w", hash, instance="first")
        refused = await second

    assert 409 == refused.status_code
    assert "each worker needs a folder of its own" in refused.text
    assert "RUNNING" == await state(rig, hash)


async def test_a_worker_that_was_killed_is_followed_by_its_next_start(rig: Rig) -> None:
    rig.hand_out.registry._challenge_s = 0.05
    async with asking(rig, "w", instance="killed"):
        pass

    assert [] == (await rig.ask("w", instance="next"))["jobsToStart"]


async def test_a_worker_that_names_what_is_not_its_own_is_told_to_end_it(rig: Rig) -> None:
    others, done = [await rig.submit(f"k{number}") for number in range(2)]
    await rig.ask("owner", slots=2)
    await rig.post(f"update/{done}", {"worker": "owner", "status": "SUCCESS"})

    answer = await rig.ask("thief", others, done, "never-was")

    assert sorted([others, "never-was"]) == sorted(answer["jobsToCancel"])
    assert "owner" == (await rig.queue.job(OWNER, others)).worker


async def test_a_job_that_was_given_up_is_lost_and_its_worker_told(rig: Rig) -> None:
    hash = await rig.submit("k1")
    await rig.ask("w")
    async with asking(rig, "w", hash) as answer:
        await rig.hand_out.give_up(OWNER, hash, "it was given up")
        assert [hash] == (await answer)["jobsToCancel"]

    late = await rig.post(f"update/{hash}", {"worker": "w", "status": "SUCCESS", "exitCode": 0})
    assert 409 == late.status_code
    assert "LOST" == await state(rig, hash)


async def test_a_forgotten_worker_loses_what_it_has(rig: Rig) -> None:
    hash = await rig.submit("k1")
    await rig.ask("w")

    await rig.hand_out.forget(OWNER, "w")

    assert "LOST" == await state(rig, hash)
    assert [] == await rig.hand_out.registry.of_owner(OWNER)
    assert [hash] == (await rig.ask("w", hash))["jobsToCancel"]
    assert 1 == len(await rig.hand_out.registry.of_owner(OWNER))
