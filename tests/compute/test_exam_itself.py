"""The exam is examined: an adapter broken in one way fails the test meant for it."""

from __future__ import annotations

import unittest
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from deepforge.compute.memory import MemoryCompute, MemorySettings
from deepforge.compute.port import (
    Capabilities,
    Host,
    JobHandle,
    JobReport,
    JobRequest,
    Refusal,
    Resources,
)
from deepforge.testing.compute import ComputeContract, Opener, examine, new_key


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path)
    yield host
    await MemoryCompute(MemorySettings(), host).end_jobs()


class RunsEveryTime(MemoryCompute):
    async def submit(self, request: JobRequest) -> JobHandle:
        key = new_key()
        await super().submit(JobRequest(key, request.command, request.files, request.resources))
        return {"key": key}


class RunsTwice(MemoryCompute):
    async def submit(self, request: JobRequest) -> JobHandle:
        code = request.command[-1]
        twice = (*request.command[:-1], f"exec({code!r}); exec({code!r})")
        return await super().submit(JobRequest(request.key, twice, request.files))


class PollsInItsOwnOrder(MemoryCompute):
    async def poll(self, handles: Sequence[JobHandle]) -> list[JobReport]:
        return (await super().poll(handles))[::-1]


class RaisesForUnknownJobs(MemoryCompute):
    async def poll(self, handles: Sequence[JobHandle]) -> list[JobReport]:
        for handle in handles:
            self.jobs[str(handle["key"])]
        return await super().poll(handles)


class IgnoresTheStartOfTheLog(MemoryCompute):
    async def log(self, handle: JobHandle, *, start: int = 0) -> AsyncIterator[bytes]:
        async for chunk in super().log(handle):
            yield chunk


class DecodesTheLog(MemoryCompute):
    async def log(self, handle: JobHandle, *, start: int = 0) -> AsyncIterator[bytes]:
        async for chunk in super().log(handle, start=start):
            yield chunk.decode("utf-8", "replace").encode()


class KeepsTheEndOfTheLog(MemoryCompute):
    async def log(self, handle: JobHandle, *, start: int = 0) -> AsyncIterator[bytes]:
        chunks = [chunk async for chunk in super().log(handle)]
        yield b"".join(chunks)[-200:][start:]


class ForgetsTheLogOfCancelledJobs(MemoryCompute):
    async def cancel(self, handles: Sequence[JobHandle]) -> None:
        await super().cancel(handles)
        for handle in handles:
            if (job := self.jobs.get(str(handle["key"]))) is not None:
                job.output.clear()


class DoesNotCancel(MemoryCompute):
    async def cancel(self, handles: Sequence[JobHandle]) -> None:
        pass


class LosesExitCodes(MemoryCompute):
    async def poll(self, handles: Sequence[JobHandle]) -> list[JobReport]:
        return [
            JobReport("exited", min(report.exit_code, 1), report.reason)
            if report.exit_code
            else report
            for report in await super().poll(handles)
        ]


class LosesFiles(MemoryCompute):
    async def submit(self, request: JobRequest) -> JobHandle:
        files = {name: data for name, data in request.files.items() if name.isascii()}
        return await super().submit(JobRequest(request.key, request.command, files))


class KillsOnRelease(MemoryCompute):
    async def release(self, handle: JobHandle) -> None:
        await self.cancel([handle])
        await super().release(handle)


class ForgetsItsOwnHandles(MemoryCompute):
    """Jobs are known to the instance alone."""

    def __init__(self, settings: MemorySettings, host: Host) -> None:
        super().__init__(settings, host)
        self.jobs = {}


class IgnoresTimeLimits(MemoryCompute):
    async def submit(self, request: JobRequest) -> JobHandle:
        return await super().submit(
            JobRequest(request.key, request.command, request.files, Resources())
        )


class PromisesGpus(MemoryCompute):
    async def why_not(self, request: JobRequest) -> Sequence[Refusal]:
        return []


class RefusesEverything(MemoryCompute):
    async def why_not(self, request: JobRequest) -> Sequence[Refusal]:
        return [Refusal("key", "not today")]


class OffersNothing(MemoryCompute):
    capabilities = replace(MemoryCompute.capabilities, choices=True)


Exam = type[ComputeContract]


class Quick(ComputeContract):
    within_s = 1.5


_GROWS = Quick.test_a_live_log_is_read_on_as_it_grows_and_kept_when_its_job_is_ended


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (RunsEveryTime, Quick.test_the_same_key_runs_once),
        (RunsTwice, Quick.test_the_same_key_from_many_at_once_runs_once),
        (PollsInItsOwnOrder, Quick.test_fifty_handles_are_answered_in_order),
        (RaisesForUnknownJobs, Quick.test_an_unknown_job_is_missing),
        (IgnoresTheStartOfTheLog, Quick.test_the_log_is_given_from_any_byte),
        (DecodesTheLog, Quick.test_the_log_may_hold_any_bytes),
        (KeepsTheEndOfTheLog, _GROWS),
        (ForgetsTheLogOfCancelledJobs, _GROWS),
        (DoesNotCancel, Quick.test_cancel_ends_a_running_job),
        (LosesExitCodes, Quick.test_exit_code_3_is_reported),
        (LosesFiles, Quick.test_files_arrive_whole_whatever_their_names),
        (KillsOnRelease, Quick.test_release_does_not_touch_a_running_job),
        (ForgetsItsOwnHandles, Quick.test_a_handle_works_in_another_adapter_as_json),
        (IgnoresTimeLimits, Quick.test_a_job_past_its_time_limit_is_ended),
        (PromisesGpus, Quick.test_gpus_are_refused_where_there_are_none),
        (OffersNothing, Quick.test_choices_are_for_settings_that_there_are),
        (RefusesEverything, Quick.test_a_plain_request_is_not_refused),
    ],
)
async def test_a_broken_adapter_fails_the_test_meant_for_it(
    host: Host, broken: type[MemoryCompute], test: Callable[..., object]
) -> None:
    adapters = []

    def opener() -> MemoryCompute:
        adapters.append(broken(MemorySettings(), host))
        return adapters[-1]

    with pytest.raises((AssertionError, KeyError)):
        await test(Quick(), opener)  # type: ignore[misc]
    for adapter in adapters:
        await adapter.end_jobs()


async def test_undeclared_capabilities_are_not_asked_for(host: Host) -> None:
    class Poor(MemoryCompute):
        capabilities = Capabilities(cancel_running=False)

    exam = Quick()
    for test in (
        exam.test_cancel_ends_a_running_job,
        exam.test_a_job_past_its_time_limit_is_ended,
        exam.test_the_log_may_hold_any_bytes,
        exam.test_never_more_than_the_slots_run_and_the_first_come_first,
    ):
        with pytest.raises(unittest.SkipTest):
            await test(lambda: Poor(MemorySettings(), host))


async def test_the_exam_is_taken_without_pytest_too(host: Host) -> None:
    class Short(ComputeContract):
        async def test_that_is_broken(self, opener: Opener) -> None:
            raise AssertionError("it is odd")

    asked = {"test_exit_code_3_is_reported", "test_that_is_broken",
             "test_cancel_of_a_queued_job_means_it_never_runs"}  # fmt: skip
    for name in set(dir(Short)) - asked:
        if name.startswith("test_"):
            setattr(Short, name, None)
    verdicts = [one async for one in examine(lambda: MemoryCompute(MemorySettings(), host), Short)]
    assert {one.promise: (one.outcome, one.message) for one in verdicts} == {
        "cancel of a queued job means it never runs": (
            "not asked",
            "the number of slots is not said",
        ),
        "exit code 3 is reported": ("kept", None),
        "that is broken": ("broken", "AssertionError: it is odd"),
    }
