"""Executions and jobs as documents, on both backends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from deepforge.documents.registry import open_documents
from deepforge.errors import Conflict, NotFound
from deepforge.execution.model import (
    Attempt,
    Execution,
    ExecutionState,
    Job,
    JobState,
    Lease,
    Needs,
    PlannedArgument,
    PlannedInput,
    PlannedJob,
    StoredValue,
)
from deepforge.execution.store import COLLECTIONS, ExecutionStore
from deepforge.ids import new_id, utc_now
from deepforge.runner.protocol import Failure
from deepforge.storage.port import ObjectRef
from mongo_server import MongoServer

VALUE = StoredValue(ObjectRef("lab", "a/ü key", 2**53 - 1, "sha256:" + "0" * 64), "a.B", "npy")


def new_execution(id: str | None = None, owner: str = "ada") -> Execution:
    return Execution(
        id=id or new_id(),
        owner=owner,
        project="p",
        project_name="trial",
        pipeline="main",
        commit="0" * 40,
        storage="local",
        state=ExecutionState.RUNNING,
        created_at=utc_now(),
        attributes={"names": "['ü', 1]"},
        inputs={"images": "photos@3"},
        computes={"": "server", "Train": "gpu-box"},
    )


def new_job(execution: str, id: str, index: int) -> Job:
    """A job in which nothing is left at its default."""
    planned = PlannedJob(
        id=id,
        name=f"outer/{id}",
        index=index,
        module="operations.train",
        operation="Train",
        file="operations/train.py",
        arguments=(
            PlannedArgument("a", "b'\\x00'"),
            PlannedArgument("b", None, "resources.n", "n", {"x": "1"}),
        ),
        inputs=(
            PlannedInput("images", 2, job="load", output="images"),
            PlannedInput("start", artifact="id", value=VALUE),
        ),
        outputs=("model",),
        publishes=(("model", "best model"),),
        compute="server",
        needs=Needs(2, 2**40, 1, 0.5),
    )
    failure = Failure("exception", "bang\n\t😀", "builtins.E", "…", "f.py", 3, 7, True, "try")
    attempt = Attempt(
        number=1,
        submitted_at=utc_now(),
        handle={"key": "k", "deep": [1, {"x": None}]},
        runner="r",
        started_at=utc_now(),
        ended_at=utc_now(),
        outcome="failed",
        failure=failure,
        seconds=1.5,
        log_bytes=10,
        cancel_sent_at=utc_now(),
        missing_since=utc_now(),
        counts=False,
    )
    return Job(
        execution,
        planned,
        JobState.READY,
        (attempt,),
        retry_at=utc_now(),
        values={"inputs/images.2": VALUE},
        outputs={"model": VALUE},
        failure=failure,
        skipped_because="load",
        cancel_requested=True,
        published=("id",),
        cached=True,
    )


@pytest.fixture(params=["sqlite", "mongo"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ExecutionStore]:
    if request.param == "sqlite":
        url = f"sqlite://{tmp_path}/deepforge.db"
    else:
        server: MongoServer = request.getfixturevalue("mongo_server")
        url = server.new_database()
    async with open_documents(url, COLLECTIONS) as documents:
        yield ExecutionStore(documents)


async def test_everything_comes_back_as_it_was(store: ExecutionStore) -> None:
    execution = replace(
        new_execution(),
        machine="host:1",
        ended_at=utc_now(),
        cancel_requested_at=utc_now(),
        paused_by="storage 'lab' is away",
        rerun_of=new_id(),
        lease=Lease("host:1 7.x", utc_now()),
    )
    jobs = [new_job(execution.id, f"job-{number}", number) for number in range(12)]
    await store.create(execution, jobs[::-1])

    assert (await store.execution(execution.id)).value == execution
    assert [one.value for one in await store.jobs(execution.id)] == jobs
    assert (await store.job(execution.id, "job-11")).value == jobs[11]
    some = await store.jobs(execution.id, ["job-7", "job-3", "none"])
    assert [one.value for one in some] == [jobs[3], jobs[7]]


async def test_what_is_not_there_is_said_with_where_to_look(store: ExecutionStore) -> None:
    execution = new_execution()
    await store.create(execution, [])

    with pytest.raises(NotFound, match="no execution 'none'") as caught:
        await store.execution("none")
    assert "executions list" in str(caught.value)
    with pytest.raises(NotFound, match="no job 'x'") as caught:
        await store.job(execution.id, "x")
    assert execution.id in str(caught.value)


async def test_an_execution_that_can_be_seen_has_all_its_jobs(store: ExecutionStore) -> None:
    """Its creation is cut at any moment; a crash is a cancelled task that never comes back."""
    seen = 0
    for pause in range(12):
        execution = new_execution(owner=f"pause-{pause}")
        jobs = [new_job(execution.id, f"job-{number}", number) for number in range(50)]
        creating = asyncio.create_task(store.create(execution, jobs))
        await asyncio.sleep(pause * 0.002)
        creating.cancel()
        await asyncio.gather(creating, return_exceptions=True)
        if await store.executions(execution.owner):
            seen += 1
            assert len(await store.jobs(execution.id)) == 50
    assert seen < 12


async def test_of_many_changes_at_once_none_is_lost(store: ExecutionStore) -> None:
    execution = new_execution()
    await store.create(execution, [])

    def add(execution: Execution) -> Execution:
        return replace(execution, paused_by=(execution.paused_by or "") + "x")

    await asyncio.gather(*(store.change_execution(execution.id, add) for _ in range(20)))
    untouched = await store.change_execution(execution.id, lambda execution: None)

    assert untouched.paused_by == "x" * 20
    assert (await store.execution(execution.id)).revision == 21


async def test_of_those_who_save_one_revision_one_wins(store: ExecutionStore) -> None:
    execution = new_execution()
    await store.create(execution, [new_job(execution.id, "a", 0)])
    saved = await store.job(execution.id, "a")
    found = await asyncio.gather(
        *(
            store.save_job(replace(saved.value, retry_at=str(number)), if_revision=saved.revision)
            for number in range(20)
        ),
        return_exceptions=True,
    )

    assert [one for one in found if not isinstance(one, Conflict)] == [saved.revision + 1]


async def test_executions_are_listed_newest_first_by_owner_project_and_state(
    store: ExecutionStore,
) -> None:
    made = [new_execution() for _ in range(5)]
    made[1] = replace(made[1], project_name="other")
    made[2] = replace(made[2], state=ExecutionState.FAILED)
    strangers = new_execution(owner="bob")
    for execution in [*made, strangers]:
        await store.create(execution, [])
    newest = sorted((one.id for one in made), reverse=True)

    async def listed(**options: object) -> list[str]:
        return [one.id for one in await store.executions("ada", **options)]  # type: ignore[arg-type]

    assert await listed() == newest
    assert await listed(limit=2) == newest[:2]
    assert await listed(after=newest[1], limit=2) == newest[2:4]
    assert await listed(project="other") == [made[1].id]
    assert await listed(state=ExecutionState.FAILED) == [made[2].id]
    running = {one.value.id for one in await store.running()}
    assert running == {one.id for one in [*made, strangers]} - {made[2].id}
