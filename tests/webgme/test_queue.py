from __future__ import annotations

import asyncio
from typing import Any

import pytest

from deepforge.compute.port import Resources
from deepforge.errors import Conflict, InvalidRequest, NotFound, OutcomeUnknown
from deepforge.webgme import output as output_module
from deepforge.webgme.blobs import metadata_hash
from deepforge.webgme.jobs import artifact
from deepforge.webgme.queue import MAX_FILES_BYTES, Queue
from webgme.rig import OWNER, Rig


async def started(rig: Rig, key: str = "k", worker: str = "w") -> str:
    hash = await rig.submit(key)
    await rig.ask(worker)
    return hash


async def printed(rig: Rig, hash: str, start: int = 0) -> bytes:
    return b"".join([piece async for piece in rig.queue.printed(OWNER, hash, start=start)])


# ── jobs ──────────────────────────────────────────────────────────────────────────────────────────


async def test_the_id_of_a_job_is_the_hash_of_the_artifact_it_is(rig: Rig) -> None:
    runner = b"PK runner"
    hash = await rig.submit(
        "k", files={"runner.pyz": runner, "job.json": b"{}"}, runner_file="runner.pyz"
    )

    files = await rig.queue.job_files(OWNER, hash)

    assert {"executor_config.json", "runner.pyz", "job.json"} == files.keys()
    assert (runner, b"{}") == (files["runner.pyz"], files["job.json"])
    assert hash == metadata_hash(artifact(files))


async def test_the_runner_is_kept_once(rig: Rig) -> None:
    for number in range(3):
        await rig.submit(f"k{number}", files={"r": b"same"}, runner_file="r")

    assert 1 == len(await rig.services.documents.find("worker_runners"))
    with pytest.raises(NotFound):
        await rig.queue.runner("0" * 64)


async def test_a_key_is_one_job_whatever_its_files_say(rig: Rig) -> None:
    first, *others = await asyncio.gather(
        *(rig.submit("k", files={"job.json": str(number).encode()}) for number in range(5))
    )

    assert {first} == set(others)
    assert 1 == len(await rig.queue.of_owner(OWNER))


async def test_files_that_are_too_large_for_a_job_are_refused(rig: Rig) -> None:
    with pytest.raises(InvalidRequest):
        await rig.submit("k", files={"job.json": b"x" * MAX_FILES_BYTES})


async def test_jobs_of_another_user_are_not_there(rig: Rig) -> None:
    hash = await rig.submit("k")

    for ask in (rig.queue.job, rig.queue.cancel, rig.queue.job_files, rig.queue.output):
        with pytest.raises(NotFound):
            await ask("somebody", hash)
    job, is_new = await rig.queue.create("somebody", hash, {})
    assert (is_new, job.owner) == (True, "somebody")


async def test_a_job_that_is_over_is_forgotten_with_what_it_printed(rig: Rig) -> None:
    hash = await started(rig)
    await rig.queue.add_output(OWNER, hash, 0, "text")

    await rig.queue.release(OWNER, hash)
    assert "RUNNING" == (await rig.queue.job(OWNER, hash)).status
    await rig.queue.update(OWNER, hash, {"status": "SUCCESS"})
    for _ in range(2):
        await rig.queue.release(OWNER, hash)

    assert [] == await rig.queue.of_owner(OWNER)
    assert b"" == await printed(rig, hash)
    assert [] == await rig.services.documents.find("worker_output")


async def test_many_who_change_a_job_all_succeed_and_one_ends_it(rig: Rig) -> None:
    hash = await started(rig)

    async def end(number: int) -> bool:
        try:
            await rig.queue.update(OWNER, hash, {"status": "SUCCESS", "exitCode": number})
        except Conflict:
            return False
        return True

    ended = await asyncio.gather(
        *(end(number) for number in range(10)), *(rig.queue.cancel(OWNER, hash) for _ in range(10))
    )

    assert 1 == sum(one is True for one in ended)


async def test_a_lost_answer_of_the_database_is_not_a_lost_change(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write happened, and its answer did not arrive."""
    documents = rig.services.documents
    lost: list[str] = []

    class Shaky:
        def __getattr__(self, name: str) -> Any:
            return getattr(documents, name)

        async def insert(self, *arguments: Any) -> Any:
            found = await documents.insert(*arguments)
            return self._maybe("insert", found)

        async def replace(self, *arguments: Any, **named: Any) -> Any:
            return self._maybe("replace", await documents.replace(*arguments, **named))

        def _maybe(self, verb: str, found: Any) -> Any:
            if verb not in lost:
                lost.append(verb)
                raise OutcomeUnknown("the answer was lost")
            return found

    queue = Queue(Shaky())
    hash = await queue.submit(OWNER, "k", ("true",), {"job.json": b""}, resources=Resources())
    saved = (await queue.saved(OWNER, [hash]))[hash]
    assert "w" == (await queue.hand_out(saved, "w", ours=True)).worker
    lost.clear()
    assert "SUCCESS" == (await queue.update(OWNER, hash, {"status": "SUCCESS"})).status
    assert ["replace"] == lost


async def test_an_insert_that_lost_its_answer_to_another_is_told_apart(rig: Rig) -> None:
    await rig.queue.create(OWNER, "h", {"labels": ["first"]})
    job, is_new = await rig.queue.create(OWNER, "h", {"labels": ["second"]})

    assert (False, ("first",)) == (is_new, job.labels)


# ── output ────────────────────────────────────────────────────────────────────────────────────────


async def test_output_comes_in_any_order_and_is_read_in_its_own(rig: Rig) -> None:
    hash = await started(rig)
    for number, text in ((5, "five"), (1, "one"), (1, "uno"), (12, "twelve")):
        await rig.queue.add_output(OWNER, hash, number, text)

    assert [(1, "uno"), (5, "five"), (12, "twelve")] == await rig.queue.output(OWNER, hash)
    assert [(5, "five")] == await rig.queue.output(OWNER, hash, start=2, end=12)
    assert b"unofivetwelve" == await printed(rig, hash)
    assert b"vetwelve" == await printed(rig, hash, start=5)
    assert 12 == await rig.queue.last_output(OWNER, hash)


async def test_bytes_that_are_no_text_come_back(rig: Rig) -> None:
    hash = await started(rig)
    whole = bytes(range(256))
    await rig.queue.add_output(OWNER, hash, 0, whole.decode("utf-8", "surrogateescape"))
    await rig.queue.add_output(OWNER, hash, 1, "\ud83e")

    assert whole + b"?" == await printed(rig, hash)
    assert all(text.isprintable() or text for _, text in await rig.queue.output(OWNER, hash))


async def test_a_large_segment_is_kept_in_pieces_and_read_as_one(rig: Rig) -> None:
    hash = await started(rig)
    text = "0123456789abcdef" * (10 * 2**16)  # 10 MiB
    await rig.queue.add_output(OWNER, hash, 0, text)
    await rig.queue.add_output(OWNER, hash, 0, text[::-1])

    assert [(0, text[::-1])] == await rig.queue.output(OWNER, hash)
    assert text[::-1].encode()[-7:] == await printed(rig, hash, start=len(text) - 7)


async def test_a_job_cannot_print_without_end(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_module, "MAX_OUTPUT_BYTES", 10)
    hash = await started(rig)
    await rig.queue.add_output(OWNER, hash, 0, "12345678")

    with pytest.raises(InvalidRequest):
        await rig.queue.add_output(OWNER, hash, 1, "901")
    with pytest.raises(InvalidRequest):
        await Queue(rig.services.documents).add_output(OWNER, hash, 1, "901")
    assert b"12345678" == await printed(rig, hash)


async def test_output_of_a_job_that_is_over_or_anothers_is_refused(rig: Rig) -> None:
    hash = await started(rig)

    with pytest.raises(Conflict):
        await rig.queue.add_output(OWNER, hash, 0, "x", worker="other")
    await rig.queue.update(OWNER, hash, {"status": "SUCCESS"})
    with pytest.raises(Conflict):
        await rig.queue.add_output(OWNER, hash, 0, "x", worker="w")
    with pytest.raises(NotFound):
        await rig.queue.add_output(OWNER, "never-was", 0, "x")
    assert b"" == await printed(rig, hash)
