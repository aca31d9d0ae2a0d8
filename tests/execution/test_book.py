"""Two processes that write on one job, and events that come while an earlier one is stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deepforge.compute.port import JobReport
from deepforge.documents.registry import open_documents
from deepforge.errors import Unavailable
from deepforge.execution import machine
from deepforge.execution.book import Book
from deepforge.execution.machine import Collect, Policy, Release, Submit
from deepforge.execution.model import Job, JobState, PlannedJob
from deepforge.execution.store import COLLECTIONS, ExecutionStore, Saved
from deepforge.ids import new_id
from deepforge.runner.protocol import Failure, Result
from execution.test_store import new_execution

EXECUTION = new_id()


class SlowStore(ExecutionStore):
    """While the n-th save of a job is under way, `meanwhile(n)` happens."""

    saves = 0

    async def save_job(self, job: Job, *, if_revision: int) -> int:
        self.saves += 1
        await self.meanwhile(self.saves)
        return await super().save_job(job, if_revision=if_revision)

    async def meanwhile(self, number: int) -> None:
        pass


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SlowStore]:
    async with open_documents(f"sqlite://{tmp_path}/deepforge.db", COLLECTIONS) as documents:
        made = SlowStore(documents)
        await made.create(new_execution(EXECUTION), [new_job("a", 0), new_job("b", 1)])
        yield made


def new_job(id: str, index: int) -> Job:
    planned = PlannedJob(
        id=id,
        name=id,
        index=index,
        module="operations.x",
        operation="X",
        file="operations/x.py",
        arguments=(),
        inputs=(),
        outputs=(),
        publishes=(),
        compute="mem",
    )
    return Job(EXECUTION, planned)


async def opened(store: ExecutionStore, heard: list[Job] | None = None) -> Book:
    jobs = await store.jobs(EXECUTION)
    changed = heard.append if heard is not None else _ignore
    return Book(store, jobs, policy=Policy(), changed=changed)


def _ignore(job: Job) -> None:
    pass


async def stored(store: ExecutionStore, id: str = "a") -> Saved[Job]:
    return await store.job(EXECUTION, id)


async def test_what_is_told_counts_at_once_and_is_stored_by_save(store: SlowStore) -> None:
    heard: list[Job] = []
    book = await opened(store, heard)
    book.tell("a", machine.Freed())
    book.tell("a", machine.Due())
    before = (await stored(store)).value.state
    due = await book.save(["a", "b", "a"])

    assert book["a"].state is JobState.SUBMITTING
    assert before is JobState.WAITING
    assert (await stored(store)).value == book["a"]
    assert due == [(book["a"], Submit(1))]
    assert store.saves == 1  # two events, one write; nothing for the job nobody told anything
    assert heard == [book["a"]]


async def test_instructions_come_out_once(store: SlowStore) -> None:
    book = await opened(store)
    book.tell("a", machine.Freed())
    book.tell("a", machine.Due())
    first, second = await asyncio.gather(book.save(["a"]), book.save(["a"]))

    assert [one for _, one in first + second] == [Submit(1)]
    assert await book.save(["a"]) == []


async def test_what_is_told_while_it_is_stored_is_stored_too(
    store: SlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = await opened(store)

    async def meanwhile(number: int) -> None:
        if number == 1:
            book.tell("a", machine.Due())
            assert not book.is_stored("a")

    monkeypatch.setattr(store, "meanwhile", meanwhile)
    book.tell("a", machine.Freed())
    due = await book.save(["a"])

    assert store.saves == 2
    assert due == [(book["a"], Submit(1))]
    assert (await stored(store)).value.state is JobState.SUBMITTING
    assert book.is_stored("a")


async def test_a_write_that_comes_too_late_folds_its_events_over_the_newer_job(
    store: SlowStore,
) -> None:
    """One process hears the runner, the other one the compute; neither loses what it heard."""
    ours = await opened(store)
    ours.tell("a", machine.Freed())
    ours.tell("a", machine.Due())
    await ours.save(["a"])
    theirs = await opened(store)
    theirs.tell("a", machine.Started(1, "runner-a"))
    await theirs.save(["a"])

    ours.tell("a", machine.Accepted(1, {"pid": 7}))
    await ours.save(["a"])

    attempt = (await stored(store)).value.attempts[-1]
    assert (attempt.runner, attempt.handle) == ("runner-a", {"pid": 7})
    assert ours["a"] == (await stored(store)).value


async def test_instructions_of_what_was_stored_survive_a_conflict_right_behind(
    store: SlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored, and told more meanwhile, and only the second write meets somebody else's."""
    ours = await opened(store)

    async def meanwhile(number: int) -> None:
        if number == 1:
            ours.tell("a", machine.CancelAsked())
        elif number == 2:
            theirs = await opened(store)
            theirs.tell("a", machine.Started(1, "runner-a"))
            await theirs.save(["a"])

    monkeypatch.setattr(store, "meanwhile", meanwhile)
    ours.tell("a", machine.Freed())
    ours.tell("a", machine.Due())
    due = await ours.save(["a"])

    assert [one for _, one in due] == [Submit(1)]
    assert ours["a"].attempts[-1].runner == "runner-a"
    assert ours["a"].cancel_requested


async def test_an_event_that_means_nothing_any_more_is_dropped(store: SlowStore) -> None:
    ours, theirs = await opened(store), await opened(store)
    for book in (ours, theirs):
        book.tell("a", machine.Freed())
        book.tell("a", machine.Due())
    await theirs.save(["a"])
    theirs.tell("a", machine.Refused(1, Failure("runner", "no")))
    await theirs.save(["a"])

    due = await ours.save(["a"])

    assert due == []
    assert ours["a"].state is JobState.FAILED
    assert ours.open == 1


async def test_what_others_stored_is_read_again(store: SlowStore) -> None:
    heard: list[Job] = []
    ours = await opened(store, heard)
    ours.tell("a", machine.Freed())
    ours.tell("a", machine.Due())
    await ours.save(["a"])
    ours.tell("a", machine.Accepted(1, {"pid": 7}))  # not stored
    theirs = await opened(store)
    theirs.tell("a", machine.Finished(1))
    await theirs.save(["a"])
    heard.clear()

    await ours.read_again(["a", "b"])

    assert ours["a"].state is JobState.COLLECTING
    assert ours["a"].attempts[-1].handle == {"pid": 7}
    assert [job.state for job in heard] == [JobState.COLLECTING]


async def test_a_write_that_failed_is_made_by_the_next_save(
    store: SlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = await opened(store)

    async def meanwhile(number: int) -> None:
        if number == 1:
            raise Unavailable("the database is away")

    monkeypatch.setattr(store, "meanwhile", meanwhile)
    book.tell("a", machine.Freed())
    book.tell("a", machine.Due())
    with pytest.raises(Unavailable):
        await book.save(["a"])

    assert await book.save(["a"]) == [(book["a"], Submit(1))]
    assert (await stored(store)).value == book["a"]


async def test_it_counts_the_jobs_that_have_not_ended(store: SlowStore) -> None:
    book = await opened(store)
    counts = [book.open]
    book.tell("b", machine.Starved("a"))
    counts.append(book.open)
    for event in (
        machine.Freed(),
        machine.Due(),
        machine.Accepted(1, {}),
        machine.Reported(1, JobReport("exited", 0)),
        machine.Collected(1, Result("x", "succeeded"), {}),
    ):
        book.tell("a", event)
    counts.append(book.open)
    due = await book.save(["a", "b"])

    assert counts == [2, 1, 0]
    assert [one for _, one in due] == [Submit(1), Collect(1, JobReport("exited", 0)), Release(1)]


async def test_twenty_books_on_one_job_agree(store: SlowStore) -> None:
    first = await opened(store)
    first.tell("a", machine.Freed())
    first.tell("a", machine.Due())
    await first.save(["a"])
    books = [await opened(store) for _ in range(20)]
    for number, book in enumerate(books):
        book.tell("a", machine.Started(1, f"runner-{number}"))
    await asyncio.gather(*(book.save(["a"]) for book in books))

    runners = {book["a"].attempts[-1].runner for book in books}
    assert runners == {(await stored(store)).value.attempts[-1].runner}
