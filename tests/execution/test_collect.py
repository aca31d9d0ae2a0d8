"""What an attempt left is believed only when all of it is there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deepforge.compute.memory import MemoryJob
from deepforge.connections.store import LOCAL_OWNER
from deepforge.documents.registry import open_documents
from deepforge.errors import AuthError, InvalidRequest, Unavailable
from deepforge.execution import collect, machine
from deepforge.execution.effects import _insist
from deepforge.execution.machine import Collected, Policy, step
from deepforge.execution.model import Job, JobState, PlannedJob
from deepforge.execution.store import COLLECTIONS, ExecutionStore
from deepforge.ids import digest, new_id, utc_now
from deepforge.runner import protocol
from deepforge.runner.protocol import Output, Result
from deepforge.storage.client import StorageClient
from deepforge.storage.memory import MemoryAdapter, MemorySettings
from deepforge.storage.port import ObjectRef
from execution.rig import Rig, job_named, job_of, leave_result, states
from execution.test_store import new_execution

DATA = b"some bytes"


def new_job() -> Job:
    planned = PlannedJob(
        id="train",
        name="train",
        index=0,
        module="operations.train",
        operation="Train",
        file="operations/train.py",
        arguments=(),
        inputs=(),
        outputs=("model", "history"),
        publishes=(),
        compute="mem",
    )
    job = Job(new_id(), planned)
    for event in (machine.Freed(), machine.Due(), machine.Accepted(1, {}), machine.Finished(1)):
        job, _ = step(job, event, now=utc_now(), policy=Policy())
    assert job.state is JobState.COLLECTING
    return job


@pytest.fixture
def storage() -> StorageClient:
    return StorageClient(MemoryAdapter(MemorySettings(new_id())), "lab")


def output(name: str, data: bytes = DATA) -> Output:
    return Output(name, "builtins.int", "pickle", len(data), digest(data))


async def left(storage: StorageClient, job: Job, *, objects: dict[str, bytes]) -> None:
    for name, data in objects.items():
        await storage.put_bytes(f"{job.folder()}/{name}", data)


async def put_result(storage: StorageClient, job: Job, result: Result | bytes) -> None:
    data = result if isinstance(result, bytes) else protocol.to_json(result)
    await storage.put_bytes(f"{job.folder()}/result.json", data)


def whole(job: Job) -> Result:
    return Result(job.key(), "succeeded", [output("model"), output("history")])


async def found(storage: StorageClient, job: Job) -> Collected:
    answer = await collect.read(storage, job)
    assert answer is not None
    return answer


async def test_without_a_result_there_is_nothing_yet(storage: StorageClient) -> None:
    job = new_job()
    await left(storage, job, objects={"model": DATA, "history": DATA})

    assert await collect.read(storage, job) is None


async def test_a_whole_result_gives_references_that_prove_the_data(storage: StorageClient) -> None:
    job = new_job()
    await left(storage, job, objects={"model": DATA, "history": DATA})
    await put_result(storage, job, whole(job))
    answer = await found(storage, job)

    assert answer.result.status == "succeeded"
    assert set(answer.outputs) == {"model", "history"}
    ref = answer.outputs["model"].ref
    assert (ref.storage, ref.size_bytes, ref.digest) == ("lab", len(DATA), digest(DATA))
    assert await storage.get_bytes(ref, limit_bytes=100) == DATA


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ({"model": DATA}, "'history' is not in the storage"),
        ({"model": DATA, "history": DATA[:-1]}, "'history' has 9 bytes in the storage, not 10"),
        ({"model": DATA, "history": DATA + b"x"}, "'history' has 11 bytes in the storage, not 10"),
        ({"model": DATA, "history": b""}, "'history' has 0 bytes"),
    ],
)
async def test_outputs_that_are_not_all_there_are_corrupt(
    storage: StorageClient, objects: dict[str, bytes], words: str
) -> None:
    job = new_job()
    await left(storage, job, objects=objects)
    await put_result(storage, job, whole(job))
    answer = await found(storage, job)

    assert answer.outputs == {}
    assert answer.result.failure is not None
    assert answer.result.failure.kind == "corrupt"
    assert words in answer.result.failure.message
    assert answer.result.failure.transient  # another attempt stores everything anew


@pytest.mark.parametrize(
    "names", [["model"], [], ["model", "history", "extra"], ["model", "histroy"]]
)
async def test_outputs_that_are_not_those_of_the_operation_are_not_taken(
    storage: StorageClient, names: list[str]
) -> None:
    job = new_job()
    await left(storage, job, objects=dict.fromkeys(names, DATA))
    await put_result(storage, job, replace(whole(job), outputs=[output(name) for name in names]))
    answer = await found(storage, job)

    assert answer.outputs == {}
    assert answer.result.failure is not None
    assert "the operation has ['history', 'model']" in answer.result.failure.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"protocol": 99}',
        b'{"protocol": 1}',
        b'{"protocol": 1, "attempt": "x", "status": "succeeded", "outputs": 7}',
        b'{"protocol": 1, "attempt": "x", "status": "succeeded", "outputs": [7]}',
        b'{"protocol": 1, "attempt": "x", "status": "succ',
    ],
)
async def test_a_result_that_cannot_be_read_is_a_failed_attempt(
    storage: StorageClient, data: bytes
) -> None:
    job = new_job()
    await put_result(storage, job, data)
    answer = await found(storage, job)

    assert answer.result.status == "failed"
    assert answer.result.failure is not None
    assert "result.json" in answer.result.failure.message
    after, _ = step(job, answer, now=utc_now(), policy=Policy())
    assert after.state is JobState.READY


async def test_the_result_of_another_attempt_does_not_count(storage: StorageClient) -> None:
    job = new_job()
    await left(storage, job, objects={"model": DATA, "history": DATA})
    await put_result(storage, job, replace(whole(job), attempt=job.key(2)))
    answer = await found(storage, job)

    assert answer.outputs == {}
    assert answer.result.failure is not None
    assert job.key(2) in answer.result.failure.message


HOSTILE = [
    '{"status": "fine"}',
    '{"status": "failed"}',
    '{"status": "succeeded", "seconds": {"run": "a"}}',
    '{"status": "failed", "seconds": {"run": NaN}}',
    '{"status": "failed", "seconds": {"run": 1e999}}',
    '{"status": "failed", "seconds": [1]}',
    '{"status": "failed", "failure": {"kind": 7, "message": null}}',
    '{"status": "failed", "failure": {"kind": "x", "message": "half a character: \\ud800"}}',
    '{"status": "failed", "failure": {"kind": "x", "message": "\\u0000"}}',
    '{"status": "failed", "log": {"size_bytes": "x", "lines": 0, "digest": "y"}}',
    '{"status": "failed", "log": {"size_bytes": 1000000000000000000000, "lines": 0, "digest": "y"}}',
    '{"status": "failed", "log": {"size_bytes": -1, "lines": 0, "digest": "y"}}',
    '{"status": "failed", "inputs": [{"name": "inputs/a", "size_bytes": 1, "digest": "d"}]}',
    '{"status": "failed", "inputs": [{"name": "inputs/a", "size_bytes": -1}]}',
    '{"status": "succeeded", "outputs": [{"name": "../x", "type": "t", "format": "f", '
    '"size_bytes": 1, "digest": "d"}]}',
    '{"status": "succeeded", "outputs": [{"name": "model", "type": 7, "format": "f", '
    '"size_bytes": "10", "digest": "d"}]}',
    '{"status": "succeeded", "outputs": ['
    '{"name": "model", "type": "t", "format": "f", "size_bytes": 10, "digest": "d"}, '
    '{"name": "history", "type": "t", "format": "f", "size_bytes": 10, "digest": "d"}]}',
]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ExecutionStore]:
    async with open_documents(f"sqlite://{tmp_path}/deepforge.db", COLLECTIONS) as documents:
        yield ExecutionStore(documents)


@pytest.mark.parametrize("text", HOSTILE)
async def test_a_hostile_result_never_breaks_us(
    storage: StorageClient, store: ExecutionStore, text: str
) -> None:
    """Whatever user code writes over `result.json`: the job fails, and can be kept and read."""
    job = new_job()
    await left(storage, job, objects={"model": DATA, "history": DATA})
    head = json.dumps({"protocol": 1, "attempt": job.key()}).rstrip("}")
    await put_result(storage, job, f"{head}, {text[1:]}".encode())
    answer = await found(storage, job)
    after, _ = step(job, answer, now=utc_now(), policy=Policy())
    await store.create(new_execution(job.execution), [after])

    assert (await store.job(job.execution, job.id)).value == after
    assert after.outputs == {}
    assert after.state in (JobState.READY, JobState.FAILED)
    assert after.failure is not None


async def test_a_huge_result_is_not_loaded(storage: StorageClient) -> None:
    job = new_job()
    await put_result(storage, job, b" " * (collect.LONGEST_RESULT_BYTES + 1))

    with pytest.raises(InvalidRequest, match="more than"):
        await collect.read(storage, job)


async def test_endless_texts_are_cut(storage: StorageClient) -> None:
    job = new_job()
    failure = protocol.Failure("exception", "m" * 10**6, traceback="t" * 10**6 + "the end")
    await put_result(storage, job, Result(job.key(), "failed", failure=failure))
    kept = (await found(storage, job)).result.failure

    assert kept is not None
    assert len(kept.message) + len(kept.traceback or "") < 200_000
    assert (kept.traceback or "").endswith("the end")


class Trouble:
    """An `ask` that fails with these errors first, and what was said of it."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.said: list[str | None] = []

    async def ask(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "there"

    async def say(self, text: str | None) -> None:
        self.said.append(text)

    def insist(self, give_up: Callable[[], bool] = lambda: False) -> Awaitable[str]:
        return _insist(self.ask, give_up, self.say)


@pytest.fixture
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepforge.execution.effects.FIRST_PAUSE_S", 0.001)


@pytest.mark.usefixtures("_no_pauses")
async def test_a_storage_without_an_answer_is_asked_until_there_is_one() -> None:
    trouble = Trouble(Unavailable("it is away"), AuthError("wrong key"), Unavailable("away"))

    assert await trouble.insist() == "there"
    assert trouble.said == ["it is away", "wrong key", "away", None]


@pytest.mark.usefixtures("_no_pauses")
async def test_nobody_is_asked_for_who_gave_up() -> None:
    trouble = Trouble(Unavailable("it is away"), Unavailable("it is still away"))

    with pytest.raises(Unavailable, match="still"):
        await asyncio.wait_for(trouble.insist(lambda: len(trouble.errors) == 0), 5)


async def imported(rig: Rig, data: bytes = DATA) -> str:
    """An artifact of an object that lay there already; its digest is not known."""
    ref = ObjectRef("local", "raw/images", len(data))
    storage = await rig.opener.storage("local", owner=LOCAL_OWNER)
    await storage.put_bytes(ref.key, data)
    artifact = await rig.artifacts.add(
        project=None, name="images", type="file", format="file", ref=ref, owner=LOCAL_OWNER
    )
    return artifact.id


def reads(data: bytes) -> Callable[[MemoryJob], Awaitable[int]]:
    """A far side that says it read these data for its input `other`."""

    async def far_side(job: MemoryJob) -> int:
        read = protocol.InputRead("inputs/other", len(data), digest(data))
        leave_result(job_of(job), inputs=[read])
        return 0

    return far_side


async def test_the_digest_of_imported_data_is_learnt_by_who_reads_them_first(rig: Rig) -> None:
    artifact = await imported(rig)
    rig.far_sides["two"] = reads(DATA)
    await rig.record()
    view = await rig.ended(await rig.start(inputs={"given": "images"}))

    assert set(states(view.jobs).values()) == {"succeeded"}
    assert (await rig.artifacts.get(artifact)).ref.digest == digest(DATA)
    (two,) = await rig.artifacts.list(name="two")
    assert two.provenance["inputs"]["other"]["digest"] == digest(DATA)


async def test_an_attempt_that_read_other_data_than_were_known_has_failed(rig: Rig) -> None:
    """Two executions began before anybody knew the digest, and the object changed in between."""
    artifact = await imported(rig)

    async def too_late(job: MemoryJob) -> int:
        await rig.artifacts.learn(artifact, size_bytes=len(DATA), digest=digest(DATA))
        return await reads(DATA[::-1])(job)

    rig.far_sides["two"] = too_late
    await rig.record()
    view = await rig.ended(await rig.start(inputs={"given": "images"}))

    job = job_named(view, "two")
    assert (job.state, len(job.attempts)) == (JobState.FAILED, 1)
    assert job.failure is not None
    assert job.failure.kind == "corrupt"
    assert "input 'other': artifact images@1 is not what it was" in job.failure.message
    assert await rig.artifacts.list(name="two") == []
    assert (await rig.artifacts.get(artifact)).ref.digest == digest(DATA)
