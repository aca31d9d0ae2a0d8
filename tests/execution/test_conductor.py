"""Driving one execution when other processes, slow answers and lost hints come between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deepforge.compute.client import ComputeClient
from deepforge.compute.memory import MemoryJob
from deepforge.compute.port import JobHandle, JobReport, JobRequest
from deepforge.connections.store import LOCAL_OWNER
from deepforge.errors import (
    AttemptOver,
    AuthError,
    InvalidRequest,
    NoCapacity,
    NotFound,
    Unavailable,
)
from deepforge.execution import collect
from deepforge.execution.access import Address
from deepforge.execution.effects import Effects
from deepforge.execution.machine import Collected, Policy
from deepforge.execution.model import ExecutionState, Job, JobState
from deepforge.storage.client import StorageClient
from execution.rig import (
    CHAIN,
    QUICK,
    Rig,
    job_named,
    job_of,
    leave_result,
    opened,
    states,
    succeed,
    ticket_of,
)

ADDRESS = Address(public_url="http://127.0.0.1:9")


async def test_an_execution_runs_to_its_end(rig: Rig) -> None:
    await rig.record()
    view = await rig.ended(await rig.start())

    assert view.execution.state is ExecutionState.SUCCEEDED
    assert states(view.jobs) == {"one": "succeeded", "two": "succeeded", "alone": "succeeded"}
    assert sorted(rig.ran) == sorted(job.key(1) for job in view.jobs)
    assert view.execution.lease is None


async def test_a_runner_may_tell_another_server_how_it_goes(home: Path) -> None:
    """Two servers of one home: the runner's calls come to the one that does not drive."""
    async with (
        opened(home, holder="host:a 1.x", address=ADDRESS) as driving,
        opened(home, drive=False, address=ADDRESS) as other,
    ):

        async def far_side(job: MemoryJob) -> int:
            key, token = job.request.key, ticket_of(job)["channel"]["token"]
            handed = await other.attempts.start(key, token, "runner-a")
            leave_result(job_of(job, handed))
            await other.attempts.finished(key, token)
            return 0

        driving.far_sides = dict.fromkeys(("one", "two", "alone"), far_side)
        await driving.record()
        view = await driving.ended(await driving.start())

    assert view.execution.state is ExecutionState.SUCCEEDED
    assert len(driving.ran) == 3
    assert {job.attempts[-1].runner for job in view.jobs} == {"runner-a"}


async def test_a_retry_without_a_pause_is_submitted_too(home: Path) -> None:
    """The second submission begins while the task of the first one has not quite ended."""
    async with opened(home, policy=Policy(first_pause_s=0)) as rig:

        async def twice_lost(job: MemoryJob) -> int:
            if job.request.key.endswith(("-1", "-2")):
                return -9
            return await succeed(job)

        rig.far_sides = dict.fromkeys(("one", "two", "alone"), twice_lost)
        await rig.record()
        view = await rig.ended(await rig.start())

    assert view.execution.state is ExecutionState.SUCCEEDED
    assert [len(job.attempts) for job in view.jobs] == [3, 3, 3]


async def test_a_compute_that_refuses_is_asked_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.record()
    compute = await rig.compute()
    submit, errors = compute.submit, [NoCapacity("all slots are taken")] * 3

    async def full(request: JobRequest) -> JobHandle:
        if errors:
            raise errors.pop()
        return await submit(request)

    monkeypatch.setattr(compute, "submit", full)
    view = await rig.ended(await rig.start())

    assert view.execution.state is ExecutionState.SUCCEEDED
    assert sum(len(job.attempts) for job in view.jobs) == 3 + 3


async def test_a_refusal_for_good_names_the_compute(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(request: JobRequest) -> JobHandle:
        raise InvalidRequest("jobs need an account", hint="ask the operator for one")

    await rig.record()
    monkeypatch.setattr(await rig.compute(), "submit", never)
    view = await rig.ended(await rig.start())
    failure = job_named(view, "one").failure

    assert view.execution.state is ExecutionState.FAILED
    assert failure is not None
    assert "'mem'" in failure.message
    assert "jobs need an account" in failure.message
    assert failure.hint == "ask the operator for one"


async def test_a_storage_that_is_away_is_waited_for_and_said(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown is never failed: the result lies there, only nobody can read it now."""
    monkeypatch.setattr("deepforge.execution.effects.FIRST_PAUSE_S", 0.02)
    read, away = collect.read, True

    async def reading(storage: StorageClient, job: Job) -> Collected | None:
        if away:
            raise Unavailable("it does not answer")
        return await read(storage, job)

    monkeypatch.setattr(collect, "read", reading)
    await rig.record()
    id = await rig.start()
    said = await rig.until(id, lambda view: view.execution.paused_by is not None)
    away = False
    view = await rig.ended(id)

    assert said.execution.paused_by == "storage 'local': it does not answer"
    assert said.execution.state is ExecutionState.RUNNING
    assert view.execution.state is ExecutionState.SUCCEEDED
    assert view.execution.paused_by is None
    assert [len(job.attempts) for job in view.jobs] == [1, 1, 1]


async def test_who_cancels_does_not_wait_for_a_storage_that_is_away(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepforge.execution.effects.FIRST_PAUSE_S", 0.02)

    async def reading(storage: StorageClient, job: Job) -> Collected | None:
        raise Unavailable("away for good")

    monkeypatch.setattr(collect, "read", reading)
    await rig.record()
    id = await rig.start()
    await rig.until(id, lambda view: view.execution.paused_by is not None)
    await rig.executions.cancel(id, LOCAL_OWNER)

    assert (await rig.ended(id)).execution.state is ExecutionState.CANCELLED


async def test_what_ends_long_after_its_result_is_released_then(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch system may call a job running for half a minute after it told us of its result."""
    monkeypatch.setattr("deepforge.execution.conductor._ENDS_SOON_S", (0.01,))
    monkeypatch.setattr("deepforge.execution.conductor._ENDS_LATE_S", (0.02,) * 500)
    compute = await rig.compute()
    poll, release = compute.poll, compute.release
    told: set[str] = set()
    released: list[JobHandle] = []
    noticed = False

    async def polling(handles: Sequence[JobHandle]) -> list[JobReport]:
        reports = await poll(handles)
        for place, (handle, report) in enumerate(zip(handles, reports, strict=True)):
            if report.state == "exited" and str(handle) in told and not noticed:
                reports[place] = JobReport("running")
            elif report.state == "exited":
                told.add(str(handle))
        return reports

    async def releasing(handle: JobHandle) -> None:
        released.append(handle)
        await release(handle)

    monkeypatch.setattr(compute, "poll", polling)
    monkeypatch.setattr(compute, "release", releasing)
    await rig.record()
    await rig.ended(await rig.start())
    before = list(released)
    noticed = True
    deadline = time.monotonic() + 10
    while len(released) < 3:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)

    assert before == []
    assert len({str(one) for one in released}) == 3


async def test_a_job_that_the_compute_forgot_is_tried_again(rig: Rig) -> None:
    async def forgotten(job: MemoryJob) -> int:
        if job.request.key.endswith("-1"):
            (await rig.compute()).jobs.pop(job.request.key)
            await asyncio.sleep(0)
        return await succeed(job) if job.request.key.endswith("-2") else 0

    rig.far_sides["alone"] = forgotten
    await rig.record()
    view = await rig.ended(await rig.start())

    assert view.execution.state is ExecutionState.SUCCEEDED
    assert [one.outcome for one in job_named(view, "alone").attempts] == ["lost", "succeeded"]


async def test_what_a_runner_said_of_the_end_is_checked_with_the_compute(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart in the middle of collecting must not turn a time limit into something to retry."""

    async def too_long(job: MemoryJob) -> JobReport:
        return JobReport("exited", -9, "walltime")

    rig.far_sides["alone"] = too_long
    await rig.record()
    begin = Effects.collect

    async def without_report(self: Effects, execution: Any, job: Job, *rest: Any) -> Any:
        return await begin(self, execution, job, None, *rest[1:])

    monkeypatch.setattr(Effects, "collect", without_report)
    view = await rig.ended(await rig.start())

    failure = job_named(view, "alone").failure
    assert failure is not None
    assert failure.kind == "time_limit"
    assert len(job_named(view, "alone").attempts) == 1


async def test_a_hundred_jobs_side_by_side(rig: Rig) -> None:
    body = "".join(f"    one_{number} = First().execute()\n" for number in range(100))
    names = ", ".join(f"one_{number}" for number in range(100))
    await rig.record(
        {
            "operations/first.py": CHAIN["operations/first.py"],
            "operations/join.py": (
                "class Join:\n    def execute(self, *parts):\n        whole = 1\n"
                "        return whole\n"
            ),
            "pipelines/wide.py": (
                "from operations.first import First\nfrom operations.join import Join\n\n\n"
                f"def wide():\n{body}    whole = Join().execute({names})\n    return whole\n"
            ),
        }
    )
    view = await rig.ended(await rig.start(), within_s=60)

    assert view.execution.state is ExecutionState.SUCCEEDED
    assert len(rig.ran) == len(set(rig.ran)) == 101
    assert rig.ran[-1] == job_named(view, "whole").key(1)


async def test_the_compute_gives_a_job_longer_than_its_operation_has(rig: Rig) -> None:
    """Both limits at once, and the runner would be ended before it could say what happened."""
    asked = []

    async def far_side(job: MemoryJob) -> int:
        asked.append((job.request.resources.walltime_s, job_of(job).limits.time_s))
        return await succeed(job)

    rig.far_sides = dict.fromkeys(("one", "two"), far_side)
    head = "# /// script\n# [tool.deepforge.resources]\n# time = '90s'\n# ///\n"
    await rig.record({**CHAIN, "operations/after.py": head + CHAIN["operations/after.py"]})
    await rig.ended(await rig.start())

    ((no_walltime, no_limit), (walltime_s, limit_s)) = asked
    assert (no_walltime, no_limit) == (None, None)
    assert limit_s == 90
    assert walltime_s is not None
    assert walltime_s > 90 + 60


async def test_a_compute_that_does_not_answer_is_said_and_waited_for(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, away = await rig.compute(), True
    poll = compute.poll

    async def polling(handles: Sequence[JobHandle]) -> list[JobReport]:
        if away:
            raise AuthError("the login has expired", expired=True)
        return await poll(handles)

    monkeypatch.setattr(compute, "poll", polling)
    await rig.record()
    id = await rig.start()
    said = await rig.until(id, lambda view: view.execution.paused_by is not None)
    away = False
    view = await rig.ended(id)

    assert said.execution.paused_by == "compute 'mem': the login has expired"
    assert view.execution.state is ExecutionState.SUCCEEDED
    assert view.execution.paused_by is None
    assert len(rig.ran) == 3


@pytest.mark.parametrize("cancel", [False, True])
async def test_an_expired_login_holds_up_what_is_submitted(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, cancel: bool
) -> None:
    monkeypatch.setattr("deepforge.execution.effects.FIRST_PAUSE_S", 0.02)
    compute = await rig.compute()
    submit, away = compute.submit, True

    async def submitting(request: JobRequest) -> JobHandle:
        if away:
            raise AuthError("the login has expired", expired=True)
        return await submit(request)

    monkeypatch.setattr(compute, "submit", submitting)
    await rig.record()
    id = await rig.start()
    said = await rig.until(id, lambda view: view.execution.paused_by is not None)
    if cancel:
        await rig.executions.cancel(id, LOCAL_OWNER)
    else:
        away = False
    view = await rig.ended(id)

    held_up_by = "a job could not be handed to compute 'mem': the login has expired"
    assert said.execution.paused_by == held_up_by
    ended = ExecutionState.CANCELLED if cancel else ExecutionState.SUCCEEDED
    assert view.execution.state is ended
    assert view.execution.paused_by is None
    assert len(rig.ran) == (0 if cancel else 3)
    assert {len(job.attempts) for job in view.jobs} <= {0, 1}


@pytest.mark.parametrize("cancel", [False, True])
async def test_a_compute_that_was_removed_does_not_hold_an_execution_for_ever(
    rig: Rig, cancel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def endless(job: MemoryJob) -> int:
        await asyncio.sleep(3600)
        return 0

    rig.far_sides["one"] = endless
    await rig.record()
    id = await rig.start()
    await rig.until(id, lambda view: states(view.jobs)["alone"] == "succeeded")

    async def removed(name: str, *, owner: str) -> ComputeClient:
        raise NotFound(f"there is no compute {name!r}", hint="there is: server")

    with monkeypatch.context() as patch:
        patch.setattr(rig.opener, "compute", removed)
        if cancel:
            await rig.executions.cancel(id, LOCAL_OWNER)
        view = await rig.ended(id)

    failure = job_named(view, "one").failure
    assert view.execution.state == ("cancelled" if cancel else "failed")
    assert cancel or (failure is not None and "no compute 'mem'" in failure.message)


async def test_a_cancel_ends_although_the_compute_does_not_answer_any_more(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its far side still leaves, or says, does not count."""
    gate, left = asyncio.Event(), asyncio.Event()

    async def waits(job: MemoryJob) -> int:
        await gate.wait()
        leave_result(job_of(job))
        left.set()
        return 0

    async def away(*arguments: Any) -> Any:
        raise AuthError("the machine is gone")

    async with opened(home, policy=replace(QUICK, unasked_s=0.5)) as rig:
        rig.far_sides["one"] = waits
        await rig.record()
        id = await rig.start()
        await rig.until(id, lambda view: job_named(view, "one").state is JobState.RUNNING)
        compute = await rig.compute()
        for name in ("poll", "cancel"):
            monkeypatch.setattr(compute, name, away)
        began = time.monotonic()
        await rig.executions.cancel(id, LOCAL_OWNER)
        view = await rig.ended(id)
        gate.set()
        await left.wait()
        key = job_named(view, "one").key()
        with pytest.raises(AttemptOver):
            await rig.attempts.finished(key, rig.handover.token(key))
        after = await rig.view(id)

    assert time.monotonic() - began >= 0.5
    assert ExecutionState.CANCELLED is view.execution.state is after.execution.state
    one = job_named(after, "one")
    assert one.failure is not None
    assert "could not be asked to end (compute 'mem' does not answer" in one.failure.message
    assert {"cancelled"} <= set(states(after.jobs).values()) <= {"cancelled", "succeeded"}
    assert not one.outputs
    assert after.execution.paused_by is None


async def test_a_compute_that_answers_in_time_is_asked_to_cancel(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(home, policy=replace(QUICK, unasked_s=30)) as rig:
        forever = asyncio.Event()

        async def waits(job: MemoryJob) -> int:
            await forever.wait()
            return 0

        rig.far_sides["one"] = waits
        await rig.record()
        id = await rig.start()
        await rig.until(id, lambda view: job_named(view, "one").state is JobState.RUNNING)
        compute = await rig.compute()
        poll, tries = compute.poll, 0

        async def polling(handles: Sequence[JobHandle]) -> list[JobReport]:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise AuthError("away for a moment")
            return await poll(handles)

        monkeypatch.setattr(compute, "poll", polling)
        await rig.executions.cancel(id, LOCAL_OWNER)
        view = await rig.ended(id)

    assert ExecutionState.CANCELLED is view.execution.state
    assert job_named(view, "one").failure is None


async def test_ten_troubles_at_once_end_when_the_last_one_does(rig: Rig) -> None:
    await rig.record()

    async def far_side(job: MemoryJob) -> int:
        found = rig.driver.conductor(job.request.labels["execution"])
        assert found is not None
        said = []
        for number in range(10):
            await found._trouble(f"collect {number}", f"trouble {number}")
        for number in range(10):
            said.append(found.execution.paused_by)
            await found._trouble(f"collect {number}", None)
        assert said == [f"trouble {number}" for number in range(10)]
        assert found.execution.paused_by is None
        return await succeed(job)

    rig.far_sides["alone"] = far_side
    view = await rig.ended(await rig.start())

    assert view.execution.state is ExecutionState.SUCCEEDED
