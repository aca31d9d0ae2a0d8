"""The client adds retries, batches, deadlines and error discipline to any adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from deepforge.compute.client import ComputeClient
from deepforge.compute.memory import MemoryCompute, MemoryJob, MemorySettings
from deepforge.compute.port import (
    Capabilities,
    Host,
    JobHandle,
    JobReport,
    JobRequest,
    NeededPath,
    Refusal,
    Resources,
)
from deepforge.errors import (
    AdapterBug,
    AuthError,
    InvalidRequest,
    NoCapacity,
    OutcomeUnknown,
    RateLimited,
    Unavailable,
)
from deepforge.machine import machine_space

REQUEST = JobRequest("job-1", ("anything",))


async def nothing(job: MemoryJob) -> int:
    return 0


class Moody(MemoryCompute):
    """Raises what a test put in `moods` before it does its work."""

    def __init__(self, folder: Path, *moods: Exception) -> None:
        super().__init__(MemorySettings(), Host(folder), program=nothing)
        self.moods = list(moods)
        self.calls: list[str] = []
        self.batches: list[int] = []

    def _mood(self, verb: str) -> None:
        self.calls.append(verb)
        if self.moods:
            raise self.moods.pop(0)

    async def check(self) -> None:
        self._mood("check")

    async def submit(self, request: JobRequest) -> JobHandle:
        self._mood(f"submit {request.key}")
        return await super().submit(request)

    async def poll(self, handles: Sequence[JobHandle]) -> list[JobReport]:
        self._mood("poll")
        self.batches.append(len(handles))
        return await super().poll(handles)

    async def cancel(self, handles: Sequence[JobHandle]) -> None:
        self._mood("cancel")
        self.batches.append(len(handles))

    async def log(self, handle: JobHandle, *, start: int = 0) -> AsyncIterator[bytes]:
        self._mood("log")
        yield b"log"

    async def release(self, handle: JobHandle) -> None:
        self._mood("release")


class Pauses:
    """A sleep that takes no time and remembers how long it would have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


def client(adapter: MemoryCompute, pauses: Pauses, **changes: Any) -> ComputeClient:
    return ComputeClient(adapter, "test", sleep=pauses, jitter=lambda: 0.5, **changes)


async def test_submit_is_repeated_with_the_same_key_and_growing_pauses(
    tmp_path: Path, pauses: Pauses
) -> None:
    adapter = Moody(tmp_path, OutcomeUnknown("?"), Unavailable("!"), OutcomeUnknown("?"))
    assert await client(adapter, pauses).submit(REQUEST) == {"key": "job-1"}
    assert adapter.calls == ["submit job-1"] * 4
    assert pauses.seconds == [0.2, 0.4, 0.8]
    await adapter.end_jobs()


async def test_pauses_have_jitter_and_a_limit(tmp_path: Path) -> None:
    adapter, pauses = Moody(tmp_path, *[Unavailable("!")] * 9), Pauses()
    jitters = iter([0.0, 0.999] * 5)
    impatient = ComputeClient(adapter, "test", tries=10, sleep=pauses, jitter=lambda: next(jitters))
    await impatient.cancel([{"key": "x"}])
    assert pauses.seconds[0] == pytest.approx(0.1)
    assert pauses.seconds[1] == pytest.approx(0.6, abs=0.01)
    assert max(pauses.seconds) <= 15


async def test_what_stays_transient_is_raised_in_the_end(tmp_path: Path, pauses: Pauses) -> None:
    adapter = Moody(tmp_path, *[Unavailable("gone")] * 9)
    with pytest.raises(Unavailable, match="gone"):
        await client(adapter, pauses, tries=3).submit(REQUEST)
    assert len(adapter.calls) == 3


async def test_an_outcome_once_unknown_stays_unknown(tmp_path: Path, pauses: Pauses) -> None:
    adapter = Moody(tmp_path, OutcomeUnknown("lost"), Unavailable("a"), Unavailable("b"))
    with pytest.raises(OutcomeUnknown, match="lost") as caught:
        await client(adapter, pauses, tries=3).submit(REQUEST)
    assert isinstance(caught.value.__cause__, Unavailable)


async def test_a_rate_limit_is_waited_for(tmp_path: Path, pauses: Pauses) -> None:
    adapter = Moody(tmp_path, RateLimited("slow down", retry_after_s=7))
    await client(adapter, pauses).submit(REQUEST)
    assert pauses.seconds == [7]
    await adapter.end_jobs()


@pytest.mark.parametrize("error", [NoCapacity("full"), AuthError("who?"), InvalidRequest("no")])
async def test_what_only_the_caller_can_answer_is_raised_at_once(
    tmp_path: Path, pauses: Pauses, error: Exception
) -> None:
    adapter = Moody(tmp_path, error)
    with pytest.raises(type(error)):
        await client(adapter, pauses).submit(REQUEST)
    assert pauses.seconds == []


@pytest.mark.parametrize("verb", ["check", "submit", "poll", "cancel", "release", "log"])
async def test_a_foreign_exception_is_an_adapter_bug_with_its_cause(
    tmp_path: Path, pauses: Pauses, verb: str
) -> None:
    one = client(Moody(tmp_path, KeyError("oops")), pauses)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "check": one.check,
        "submit": lambda: one.submit(REQUEST),
        "poll": lambda: one.poll([{}]),
        "cancel": lambda: one.cancel([{}]),
        "release": lambda: one.release({}),
        "log": lambda: anext(one.log({})),
    }
    with pytest.raises(AdapterBug, match=f"test: {verb} raised KeyError") as caught:
        await calls[verb]()
    assert isinstance(caught.value.__cause__, KeyError)
    assert pauses.seconds == []


async def test_polls_and_cancels_are_split_into_batches_in_order(
    tmp_path: Path, pauses: Pauses
) -> None:
    adapter = Moody(tmp_path)
    adapter.capabilities = Capabilities(max_poll_batch=3)  # type: ignore[misc]
    for number in range(3):
        adapter.jobs[f"job-{number}"] = MemoryJob(
            REQUEST, report=JobReport("exited", number, "normal")
        )
    handles = [{"key": f"job-{number}"} for number in range(8)]
    reports = await client(adapter, pauses).poll(handles)
    assert [report.exit_code for report in reports] == [0, 1, 2, None, None, None, None, None]
    await client(adapter, pauses).cancel(handles)
    assert adapter.batches == [3, 3, 2] * 2
    assert await client(adapter, pauses).poll([]) == []
    adapter.jobs.clear()


async def test_a_report_too_few_is_an_adapter_bug(tmp_path: Path, pauses: Pauses) -> None:
    class Forgetful(Moody):
        async def poll(self, handles: Sequence[JobHandle]) -> list[JobReport]:
            return (await super().poll(handles))[1:]

    with pytest.raises(AdapterBug, match="1 reports for 2 handles"):
        await client(Forgetful(tmp_path), pauses).poll([{}, {}])


async def test_a_handle_that_is_not_json_is_an_adapter_bug(tmp_path: Path, pauses: Pauses) -> None:
    class Wrong(Moody):
        async def submit(self, request: JobRequest) -> JobHandle:
            return {"process": object()}

    with pytest.raises(AdapterBug, match="not JSON"):
        await client(Wrong(tmp_path), pauses).submit(REQUEST)


@pytest.mark.parametrize(
    ("request_", "part"),
    [
        (JobRequest("", ("x",)), "key"),
        (JobRequest("UPPER", ("x",)), "key"),
        (JobRequest("a" * 64, ("x",)), "key"),
        (JobRequest("a\n", ("x",)), "key"),
        (JobRequest("../a", ("x",)), "key"),
        (JobRequest("a", ()), "command"),
        (JobRequest("a", ("x", "a\0b")), "command"),
        (JobRequest("a", ("x",), {"../up": b""}), "files"),
        (JobRequest("a", ("x",), {"a/../../up": b""}), "files"),
        (JobRequest("a", ("x",), {"/etc/passwd": b""}), "files"),
        (JobRequest("a", ("x",), {"": b""}), "files"),
        (JobRequest("a", ("x",), {".": b""}), "files"),
        (JobRequest("a", ("x",), {"a\0": b""}), "files"),
        (JobRequest("a", ("x",), resources=Resources(walltime_s=0)), "resources.walltime_s"),
    ],
)
async def test_a_malformed_request_never_reaches_the_adapter(
    tmp_path: Path, pauses: Pauses, request_: JobRequest, part: str
) -> None:
    adapter = Moody(tmp_path)
    with pytest.raises(InvalidRequest) as caught:
        await client(adapter, pauses).submit(request_)
    assert caught.value.part == part
    assert adapter.calls == []


async def test_a_call_that_never_returns_has_a_deadline(tmp_path: Path, pauses: Pauses) -> None:
    class Stuck(Moody):
        async def submit(self, request: JobRequest) -> JobHandle:
            await asyncio.Event().wait()
            raise AssertionError

        async def poll(self, handles: Sequence[JobHandle]) -> list[JobReport]:
            await asyncio.Event().wait()
            raise AssertionError

    one = client(Stuck(tmp_path), pauses, tries=2, call_within_s=0.01)
    with pytest.raises(OutcomeUnknown, match="did not return"):
        await one.submit(REQUEST)
    with pytest.raises(Unavailable, match="did not return"):
        await one.poll([{}])


async def test_cancelling_the_caller_is_not_an_error_of_the_adapter(
    tmp_path: Path, pauses: Pauses
) -> None:
    class Slow(Moody):
        async def check(self) -> None:
            await asyncio.Event().wait()

    task = asyncio.create_task(client(Slow(tmp_path), pauses).check())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_space_the_jobs_cannot_see_is_refused_with_a_cure(
    tmp_path: Path, pauses: Pauses
) -> None:
    paths = (NeededPath("sciserver:files", "/a"), NeededPath("sciserver:files", "/b"),
             NeededPath(machine_space(), "/c"))  # fmt: skip
    request = JobRequest("a", ("x",), resources=Resources(gpus=1), paths=paths)
    refusals = await client(Moody(tmp_path), pauses).why_not(request)
    assert [refusal.part for refusal in refusals] == ["paths", "resources.gpus"]
    assert "sciserver:files" in refusals[0].message
    assert isinstance(refusals[0], Refusal)
    assert refusals[0].hint is not None


async def test_no_log_is_asked_of_an_adapter_without_one(tmp_path: Path, pauses: Pauses) -> None:
    adapter = Moody(tmp_path)
    adapter.capabilities = Capabilities(log="none")  # type: ignore[misc]
    assert [chunk async for chunk in client(adapter, pauses).log({})] == []
    assert adapter.calls == []


async def test_it_shows_what_the_adapter_declares(tmp_path: Path, pauses: Pauses) -> None:
    adapter = Moody(tmp_path)
    async with client(adapter, pauses) as one:
        assert one.name == "test"
        assert one.capabilities is adapter.capabilities
        assert one.machine == machine_space()
        assert one.file_spaces == {machine_space(): "/"}
        assert one.reaches_server == "public"
