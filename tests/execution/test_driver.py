"""Leases: one drives, another takes over at once when it is gone, and nothing is started twice."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deepforge.compute.memory import MemoryJob
from deepforge.errors import StorageFull, Unavailable
from deepforge.execution import driver
from deepforge.execution.book import Book
from deepforge.execution.driver import Driver
from deepforge.execution.machine import Accepted, Due, Freed, Started
from deepforge.execution.model import Execution, ExecutionState, Job, Lease
from deepforge.ids import epoch_s, timestamp, utc_now
from deepforge.machine import machine_space, process_is_alive, process_name
from execution.rig import QUICK, Rig, opened, states, succeed

FAR = "host:elsewhere 1.x"  # a holder on another machine: only time tells that it is gone


class Gate:
    """A far side that waits until the test lets it end."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, job: MemoryJob) -> int:
        self.reached.set()
        await self.open.wait()
        return await succeed(job)


@pytest.fixture
def gate() -> Gate:
    return Gate()


async def lease_of(rig: Rig, id: str) -> Lease | None:
    return (await rig.store.execution(id)).value.lease


async def set_lease(rig: Rig, id: str, lease: Lease | None) -> None:
    await rig.store.change_execution(id, lambda execution: replace(execution, lease=lease))


def soon(seconds: float) -> str:
    return timestamp(epoch_s(utc_now()) + seconds)


def gone_process() -> str:
    """The name of a process of this machine that has ended."""
    script = "from deepforge.machine import process_name; print(process_name())"
    name = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert not process_is_alive(name.stdout.strip())
    return name.stdout.strip()


@asynccontextmanager
async def another_driver(rig: Rig, holder: str | None = None) -> AsyncIterator[Driver]:
    """A second driver over the same documents, as another server process has one."""
    made = Driver(rig.store, rig.opener, rig.effects, rig.events, policy=QUICK, holder=holder)
    async with made:
        yield made


@pytest.fixture
async def idle(home: Path) -> AsyncIterator[Rig]:
    """A server that drives nothing."""
    async with opened(home, drive=False) as one:
        await one.record()
        yield one


async def orphan(rig: Rig, monkeypatch: pytest.MonkeyPatch, lease: Lease | None = None) -> str:
    """An execution whose server died right after it was started."""

    async def nobody(id: str) -> bool:
        return False

    with monkeypatch.context() as patch:
        patch.setattr(rig.driver, "adopt", nobody)
        id = await rig.start()
    await set_lease(rig, id, lease)
    return id


async def test_of_many_drivers_one_has_it(
    idle: Rig, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle.far_sides["one"] = gate
    id = await orphan(idle, monkeypatch)
    async with AsyncExitStack() as stack:
        drivers = [
            await stack.enter_async_context(another_driver(idle, f"host:{number} 1.x"))
            for number in range(8)
        ]
        adopted = await asyncio.gather(*(one.adopt(id) for one in drivers))
        again = await asyncio.gather(*(one.adopt(id) for one in drivers))
        await asyncio.wait_for(gate.reached.wait(), 10)
        gate.open.set()
        view = await idle.ended(id)

    assert sum(adopted) == 1
    assert again == adopted
    assert view.execution.state is ExecutionState.SUCCEEDED
    assert len(idle.ran) == len(set(idle.ran)) == 3


async def test_a_lease_is_held_while_it_is_driven_and_gone_at_the_end(
    rig: Rig, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "LEASE_S", 0.4)
    rig.far_sides["one"] = gate
    await rig.record()
    id = await rig.start()
    await asyncio.wait_for(gate.reached.wait(), 10)
    first = await lease_of(rig, id)
    await rig.until(id, lambda view: view.execution.lease != first)
    renewed = await lease_of(rig, id)
    gate.open.set()
    view = await rig.ended(id)

    assert first is not None
    assert renewed is not None
    assert first.holder == renewed.holder == f"{machine_space()} {process_name()}"
    assert first.until < renewed.until
    assert view.execution.lease is None


async def test_a_holder_elsewhere_keeps_it_until_its_time_is_over(
    idle: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = await orphan(idle, monkeypatch, Lease(FAR, soon(1.0)))
    async with another_driver(idle):
        await asyncio.sleep(0.4)
        early = list(idle.ran)
        view = await idle.ended(id)

    assert early == []
    assert view.execution.state is ExecutionState.SUCCEEDED


async def test_a_holder_that_died_on_this_machine_is_replaced_at_once(
    idle: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease(f"{machine_space()} {gone_process()}", soon(3600))
    id = await orphan(idle, monkeypatch, lease)
    async with another_driver(idle):
        view = await idle.ended(id, within_s=10)

    assert view.execution.state is ExecutionState.SUCCEEDED


async def test_a_lost_lease_stops_the_conductor_and_not_the_job(
    rig: Rig, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a pause of the whole machine: somebody else has it by now."""
    monkeypatch.setattr(driver, "LEASE_S", 0.2)
    rig.far_sides["one"] = gate
    await rig.record()
    id = await rig.start()
    await asyncio.wait_for(gate.reached.wait(), 10)
    taken = Lease(FAR, soon(3600))
    await set_lease(rig, id, taken)
    await rig.until(id, lambda view: rig.driver.conductor(id) is None)
    gate.open.set()
    await asyncio.sleep(0.2)
    jobs = {one.value.id: one.value.state for one in await rig.store.jobs(id)}

    assert await lease_of(rig, id) == taken
    assert jobs["two"] == "waiting"  # nobody here goes on with it
    await set_lease(rig, id, None)
    assert (await rig.ended(id)).execution.state is ExecutionState.SUCCEEDED
    assert len(rig.ran) == 3


async def test_the_next_driver_goes_on_where_the_last_one_was(
    idle: Rig, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that run are found again by their key and are not started twice."""
    idle.far_sides["one"] = gate
    id = await orphan(idle, monkeypatch)
    async with another_driver(idle, "host:a 1.x"):
        await asyncio.wait_for(gate.reached.wait(), 10)
        await idle.until(id, lambda view: states(view.jobs)["alone"] == "succeeded")
    assert await lease_of(idle, id) is None
    gate.open.set()

    async with another_driver(idle, "host:b 1.x"):
        view = await idle.ended(id)

    assert view.execution.state is ExecutionState.SUCCEEDED
    assert [len(job.attempts) for job in view.jobs] == [1, 1, 1]
    assert len(idle.ran) == len(set(idle.ran)) == 3


@pytest.mark.parametrize("moment", range(1, 9))
async def test_a_driver_may_vanish_at_any_write(
    idle: Rig, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Its n-th write of a job never happens; the next one finds its way from the documents."""
    id = await orphan(idle, monkeypatch)
    writes, vanished = 0, asyncio.Event()
    save = idle.store.save_job

    async def save_or_vanish(job: Job, *, if_revision: int) -> int:
        nonlocal writes
        writes += 1
        if writes >= moment:
            vanished.set()
            await asyncio.sleep(3600)  # a dead process neither goes on nor raises
        return await save(job, if_revision=if_revision)

    with monkeypatch.context() as patch:
        patch.setattr(idle.store, "save_job", save_or_vanish)
        async with another_driver(idle, "host:a 1.x") as first:
            await first.adopt(id)
            await idle.until(  # the whole execution may take fewer writes
                id, lambda view: vanished.is_set() or view.execution.lease is None
            )
    async with another_driver(idle, "host:b 1.x"):
        view = await idle.ended(id)

    assert view.execution.state is ExecutionState.SUCCEEDED
    assert [len(job.attempts) for job in view.jobs] == [1, 1, 1]
    assert sorted(idle.ran) == sorted(job.key(1) for job in view.jobs)
    assert len(await idle.artifacts.list(project=view.execution.project)) == 2


async def test_what_was_only_just_adopted_is_given_back(
    idle: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = await orphan(idle, monkeypatch)
    async with another_driver(idle, FAR) as leaving:
        assert await leaving.adopt(id)

    assert await lease_of(idle, id) is None


async def test_an_execution_of_another_machine_is_left_alone(
    idle: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = await orphan(idle, monkeypatch)
    await idle.store.change_execution(id, lambda one: replace(one, machine="host:elsewhere"))
    async with another_driver(idle) as other:
        adopted = await other.adopt(id)
        await asyncio.sleep(0.2)

    assert not adopted
    assert await lease_of(idle, id) is None
    assert idle.ran == []


async def test_a_cancelled_execution_of_a_machine_that_is_gone_ends(
    idle: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is asked of this machine's computes, and nothing begins on them."""
    monkeypatch.setattr(driver, "LOOK_S", 0.05)
    id = await orphan(idle, monkeypatch)
    one = await begun_elsewhere(idle, id)
    lease = Lease(FAR, soon(0.3))
    await idle.store.change_execution(
        id, lambda each: replace(each, machine="host:elsewhere", lease=lease)
    )
    opened_names: list[str] = []

    async def nothing(name: str, *, owner: str) -> Any:
        opened_names.append(name)
        raise AssertionError("a compute of this machine was asked")

    monkeypatch.setattr(idle.opener, "compute", nothing)
    policy = replace(QUICK, unasked_s=0.4)
    async with Driver(idle.store, idle.opener, idle.effects, idle.events, policy=policy):
        await asyncio.sleep(1.0)
        assert (await idle.view(id)).execution.state is ExecutionState.RUNNING  # nobody wants that
        asked = time.monotonic()
        lease = Lease(FAR, soon(0.5))
        await idle.store.change_execution(id, lambda each: replace(each, lease=lease))
        await idle.executions.cancel(id, "local")
        view = await idle.ended(id)

    assert time.monotonic() - asked > 0.85  # the holder had its time, and then the cancel
    assert ExecutionState.CANCELLED is view.execution.state
    assert (None, None) == (view.execution.lease, view.execution.paused_by)
    assert {"cancelled"} == set(states(view.jobs).values())
    (job,) = [job for job in view.jobs if job.id == one]
    assert job.failure is not None
    assert "no server runs on its machine, host:elsewhere" in job.failure.message
    assert ([], []) == (opened_names, idle.ran)


@pytest.mark.parametrize("machine", [None, machine_space()])
async def test_a_cancelled_execution_that_we_may_drive_is_asked_to_end(
    idle: Rig, monkeypatch: pytest.MonkeyPatch, machine: str | None
) -> None:
    """However long no server ran: its compute may still be there."""
    id = await orphan(idle, monkeypatch)
    one = await begun_elsewhere(idle, id)
    await idle.store.change_execution(id, lambda each: replace(each, machine=machine))
    await idle.executions.cancel(id, "local")
    await asyncio.sleep(0.1)
    asked: list[str] = []
    find = idle.opener.compute

    async def noted(name: str, *, owner: str) -> Any:
        asked.append(name)
        return await find(name, owner=owner)

    monkeypatch.setattr(idle.opener, "compute", noted)
    policy = replace(QUICK, unasked_s=0.0)
    async with Driver(idle.store, idle.opener, idle.effects, idle.events, policy=policy):
        view = await idle.ended(id)

    assert ExecutionState.CANCELLED is view.execution.state
    assert asked
    (job,) = [job for job in view.jobs if job.id == one]
    assert job.failure is None or "no server runs" not in job.failure.message


async def begun_elsewhere(rig: Rig, id: str) -> str:
    """Make the first job one that runs, as a server elsewhere has begun it; return its id."""
    saved = (await rig.store.jobs(id))[0]
    book = Book(rig.store, [saved], policy=QUICK, changed=lambda job: None)
    for event in (Freed(), Due(), Accepted(1, {"n": 1}), Started(1, "far")):
        book.tell(saved.value.id, event)
    await book.save([saved.value.id])
    return saved.value.id


async def test_a_conductor_that_fails_begins_again_and_says_why(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "AGAIN_S", 0.3)
    await rig.record()
    save, failures = rig.store.save_job, [Unavailable("the database went away"), RuntimeError("x")]

    async def failing(job: Job, *, if_revision: int) -> int:
        if failures:
            raise failures.pop(0)
        return await save(job, if_revision=if_revision)

    monkeypatch.setattr(rig.store, "save_job", failing)
    id = await rig.start()
    said = await rig.until(id, lambda view: view.execution.paused_by is not None)
    view = await rig.ended(id)

    assert "the database went away" in (said.execution.paused_by or "")
    assert view.execution.state is ExecutionState.SUCCEEDED
    assert view.execution.paused_by is None
    assert len(rig.ran) == 3


async def test_looking_for_work_survives_what_nobody_thought_of(
    idle: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = await orphan(idle, monkeypatch)
    running, errors = idle.store.running, [ValueError("a document of tomorrow"), OSError("x")]

    async def failing() -> Any:
        if errors:
            raise errors.pop()
        return await running()

    monkeypatch.setattr(idle.store, "running", failing)
    async with another_driver(idle):
        view = await idle.ended(id)

    assert view.execution.state is ExecutionState.SUCCEEDED
    assert errors == []


async def test_a_cancel_of_another_process_is_heard(rig: Rig, gate: Gate) -> None:
    rig.far_sides["one"] = gate
    await rig.record()
    id = await rig.start()
    await asyncio.wait_for(gate.reached.wait(), 10)

    def ask(execution: Execution) -> Execution:
        return replace(execution, cancel_requested_at=utc_now())

    await rig.store.change_execution(id, ask)
    view = await rig.ended(id)

    assert view.execution.state is ExecutionState.CANCELLED
    assert states(view.jobs)["one"] == states(view.jobs)["two"] == "cancelled"


class FullDisk:
    """The database takes no more of an execution until there is room again."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = True
        for name in ("save_job", "change_execution"):
            monkeypatch.setattr(rig.store, name, self._until_room(getattr(rig.store, name)))

    def _until_room(self, write: Any) -> Any:
        async def guarded(*arguments: Any, **named: Any) -> Any:
            if self.is_full:
                raise StorageFull("no room for the database", hint="make room")
            return await write(*arguments, **named)

        return guarded


async def test_a_full_disk_is_told_at_once_although_it_cannot_be_stored(
    rig: Rig, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "AGAIN_S", 0.05)
    rig.far_sides["one"] = gate
    await rig.record()
    id = await rig.start()
    await asyncio.wait_for(gate.reached.wait(), 10)
    async with rig.events.listen(id) as queue:
        disk = FullDisk(rig, monkeypatch)
        gate.open.set()
        event = await asyncio.wait_for(queue.get(), 10)
        while event.kind != "execution":
            event = await asyncio.wait_for(queue.get(), 10)
        said = await rig.view(id)
    stored = (await rig.store.execution(id)).value
    disk.is_full = False
    view = await rig.ended(id)

    assert event.data["execution"].paused_by == "no room for the database\nhint: make room"
    assert said.execution.paused_by == event.data["execution"].paused_by
    assert stored.paused_by is None
    assert (view.execution.state, view.execution.paused_by) == (ExecutionState.SUCCEEDED, None)
    assert len(rig.ran) == 3


async def test_one_that_cannot_be_adopted_says_why_and_keeps_nobody_up(
    idle: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, other = await orphan(idle, monkeypatch), await orphan(idle, monkeypatch)
    change, can_be_written = idle.store.change_execution, asyncio.Event()

    async def change_others(id: str, how: Any) -> Execution:
        if id == stuck and not can_be_written.is_set():
            raise StorageFull("no room for the database")
        return await change(id, how)

    monkeypatch.setattr(idle.store, "change_execution", change_others)
    async with another_driver(idle) as one:
        view = await idle.ended(other)
        said = one.shown((await idle.store.execution(stuck)).value)
        can_be_written.set()
        ended = await idle.ended(stuck)
        after = one.shown(ended.execution)

    assert view.execution.state is ended.execution.state is ExecutionState.SUCCEEDED
    assert said.paused_by == "no room for the database"
    assert after.paused_by is None


async def test_looking_for_work_survives_a_log_that_cannot_be_written(
    idle: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BrokenLog:
        def __getattr__(self, name: str) -> Any:
            def write(*arguments: Any, **named: Any) -> None:
                raise OSError(28, "No space left on device")

            return write

    id = await orphan(idle, monkeypatch)
    running, errors = idle.store.running, [RuntimeError("x"), Unavailable("y")]

    async def failing() -> Any:
        if errors:
            raise errors.pop()
        return await running()

    monkeypatch.setattr(idle.store, "running", failing)
    monkeypatch.setattr(driver, "log", BrokenLog())
    async with another_driver(idle):
        view = await idle.ended(id)

    assert view.execution.state is ExecutionState.SUCCEEDED
    assert errors == []
