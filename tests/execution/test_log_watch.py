"""Logs of jobs that cannot call us: read while somebody looks, politely, and kept when a job is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from deepforge.compute.memory import MemoryCompute, MemoryJob
from deepforge.compute.port import JobHandle, JobReport
from deepforge.connections.store import LOCAL_OWNER
from deepforge.errors import Unavailable
from deepforge.execution import log_watch
from deepforge.execution.access import Address
from deepforge.execution.model import JobState
from deepforge.runner.protocol import log_marks
from execution.rig import Rig, job_named, job_of, leave_result, opened

NOISE = b"container noise\n"
QUICK_S = 0.05


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_watch, "LEAST_PAUSE_S", QUICK_S)


@dataclass
class Talker:
    """A far side that prints what a test says, as a runner without a channel does."""

    rig: Rig
    stored: bytes | None = b""
    """What it leaves as its log in the end; None: no result at all."""
    execution: str = ""
    release: asyncio.Event = field(default_factory=asyncio.Event)
    reads: list[float] = field(default_factory=list)
    """When its platform was asked for the log."""

    async def __call__(self, job: MemoryJob) -> int | JobReport:
        self.job = job
        job.output += NOISE
        await self.release.wait()
        if self.stored is None:
            return JobReport("exited", -9, "walltime")
        leave_result(job_of(job), log=self.stored)
        return 0

    def prints(self, data: bytes) -> None:
        if log_marks(self.job.request.key)[0] not in self.job.output:
            self.job.output += log_marks(self.job.request.key)[0]
        self.job.output += data

    async def log(self, start: int = 0, attempt: int | None = None) -> bytes:
        """What somebody sees who asks once."""
        executions = self.rig.executions
        part = await executions.log(
            self.execution, "one", LOCAL_OWNER, attempt=attempt, start=start
        )
        return part.data

    async def until_seen(self, data: bytes) -> None:
        deadline = time.monotonic() + 10
        while (seen := await self.log()) != data:
            assert data.startswith(seen)
            assert time.monotonic() < deadline, seen
            await asyncio.sleep(0.01)


@pytest.fixture
async def talker(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Talker:
    """It runs, and has printed nothing but noise."""
    return await talking(rig, monkeypatch)


async def talking(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Talker:
    made = Talker(rig)
    rig.far_sides["one"] = made
    give = MemoryCompute.log

    def counted(self: MemoryCompute, handle: JobHandle, *, start: int = 0) -> AsyncIterator[bytes]:
        made.reads.append(time.monotonic())
        return give(self, handle, start=start)

    monkeypatch.setattr(MemoryCompute, "log", counted)
    await rig.record()
    made.execution = await rig.start()
    await rig.until(made.execution, lambda view: job_named(view, "one").state is JobState.RUNNING)
    return made


async def test_what_a_job_prints_is_seen_while_it_runs_and_is_the_log_in_the_end(
    rig: Rig, talker: Talker
) -> None:
    talker.prints(b"one\xff\r2%\n")
    await talker.until_seen(b"one\xff\r2%\n")
    talker.prints(b"two")
    await talker.until_seen(b"one\xff\r2%\ntwo")
    talker.stored = b"one\xff\r2%\ntwo\nthree\n"
    talker.prints(b"\nthree\n" + log_marks(talker.job.request.key)[1] + b"exception: no\n")
    await talker.until_seen(talker.stored)
    talker.release.set()
    await rig.ended(talker.execution)

    assert await talker.log() == b"one\xff\r2%\ntwo\nthree\n"


async def test_what_is_new_is_told_as_what_runners_send(rig: Rig, talker: Talker) -> None:
    async with rig.events.listen(talker.execution) as heard:
        talker.prints(b"one\n")
        await talker.until_seen(b"one\n")
        talker.prints(b"two\n")
        await talker.until_seen(b"one\ntwo\n")
        told = [heard.get_nowait() for _ in range(heard.qsize())]

    assert [one.data for one in told if one.kind == "log"] == [
        {"job": "one", "attempt": 1, "start": 0, "data": b"one\n"},
        {"job": "one", "attempt": 1, "start": 4, "data": b"two\n"},
    ]


async def test_who_asks_only_once_sees_what_there_is(talker: Talker) -> None:
    talker.prints(b"one\n")

    assert await talker.log() == b"one\n"


async def test_who_follows_sees_it_soon(talker: Talker) -> None:
    talker.prints(b"one\n")
    executions, deadline = talker.rig.executions, time.monotonic() + 10
    view = await talker.rig.view(talker.execution)
    job = job_named(view, "one")
    while not (part := await executions.read_log(view.execution, job, 1, 0)).data:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)

    assert (part.data, part.ended) == (b"one\n", False)


async def test_nobody_is_asked_while_nobody_looks(rig: Rig, talker: Talker) -> None:
    talker.prints(b"one\n")
    talker.stored = b"one\n"
    await asyncio.sleep(4 * QUICK_S)
    talker.release.set()
    await rig.ended(talker.execution)
    assert await talker.log() == b"one\n"

    assert talker.reads == []


async def test_two_who_look_share_one_reading_with_a_pause(
    talker: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause_s = 0.3
    monkeypatch.setattr(log_watch, "LEAST_PAUSE_S", pause_s)

    async def look_all_the_time() -> None:
        until = time.monotonic() + 3.5 * pause_s
        while time.monotonic() < until:
            await talker.log()
            await asyncio.sleep(0.005)

    await asyncio.gather(look_all_the_time(), look_all_the_time())

    pauses = [after - before for before, after in zip(talker.reads, talker.reads[1:], strict=False)]
    assert 1 <= len(pauses) <= 3
    assert min(pauses) >= pause_s


async def test_a_platform_is_asked_no_more_often_for_many_jobs(
    rig: Rig, talker: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause_s = 0.2
    polite = replace(MemoryCompute.capabilities, poll_every_s=pause_s)
    monkeypatch.setattr(MemoryCompute, "capabilities", polite)
    others = [Talker(rig, reads=talker.reads) for _ in range(3)]
    for other in others:
        rig.far_sides["one"] = other
        other.execution = await rig.start()
        await rig.until(
            other.execution, lambda view: job_named(view, "one").state is JobState.RUNNING
        )
    talkers = [talker, *others]
    since = time.monotonic()
    while time.monotonic() < since + 9 * pause_s:
        for one in talkers:
            await one.log()
        await asyncio.sleep(0.005)

    later = [at for at in talker.reads if at > since + pause_s]
    assert 1 <= len(later) <= 9


async def test_the_more_there_is_the_rarer_it_is_read(
    talker: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reading may receive all of it again."""
    monkeypatch.setattr(log_watch, "BYTES_A_SECOND", 1000)
    talker.prints(b"x" * 400)
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        await talker.log()
        await asyncio.sleep(0.005)

    assert 1 <= len(talker.reads) <= 3


async def test_a_platform_that_fails_is_asked_again_with_growing_pauses_and_nobody_is_disturbed(
    talker: Talker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = MemoryCompute.log
    troubles: list[Exception] = [Unavailable("away"), OSError("odd"), Unavailable("away")]

    def failing(self: MemoryCompute, handle: JobHandle, *, start: int = 0) -> AsyncIterator[bytes]:
        given = counted(self, handle, start=start)
        if troubles:
            raise troubles.pop(0)
        return given

    monkeypatch.setattr(MemoryCompute, "log", failing)
    talker.prints(b"one\n")
    await talker.until_seen(b"one\n")

    first, second, third, fourth = talker.reads
    assert second - first >= 2 * QUICK_S
    assert third - second >= 4 * QUICK_S
    assert fourth - third >= 8 * QUICK_S
    assert capsys.readouterr().out.count("platform_log_unreadable") == 1


async def test_a_slow_platform_holds_nobody_up(
    talker: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_watch, "FIRST_WITHIN_S", 1.0)
    begun = ended = 0

    async def silent(
        self: MemoryCompute, handle: JobHandle, *, start: int = 0
    ) -> AsyncIterator[bytes]:
        nonlocal begun, ended
        begun += 1
        try:
            await asyncio.sleep(60)
            yield b""
        finally:
            ended += 1

    monkeypatch.setattr(MemoryCompute, "log", silent)
    since = time.monotonic()
    for _ in range(3):
        assert await talker.log() == b""
    view = await talker.rig.view(talker.execution)
    await talker.rig.executions.read_log(view.execution, job_named(view, "one"), 1, 0)

    assert time.monotonic() - since < 2.5
    assert (begun, ended) == (1, 0)


async def test_leaving_ends_what_is_being_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_watch, "FIRST_WITHIN_S", 0.05)
    ended: list[str] = []

    async def silent(
        self: MemoryCompute, handle: JobHandle, *, start: int = 0
    ) -> AsyncIterator[bytes]:
        try:
            await asyncio.sleep(60)
            yield b""
        finally:
            ended.append("reading")

    async with opened(home) as rig:
        talker = await talking(rig, monkeypatch)
        monkeypatch.setattr(MemoryCompute, "log", silent)
        await talker.log()
        assert ended == []
        talker.release.set()
        since = time.monotonic()

    assert ended == ["reading"]
    assert time.monotonic() - since < 10


async def test_what_comes_after_the_end_of_an_attempt_is_not_kept(
    talker: Talker, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, asked, answer = MemoryCompute.log, asyncio.Event(), asyncio.Event()

    async def late(
        self: MemoryCompute, handle: JobHandle, *, start: int = 0
    ) -> AsyncIterator[bytes]:
        shown = b"".join([chunk async for chunk in counted(self, handle, start=start)])
        asked.set()
        await answer.wait()
        yield shown

    monkeypatch.setattr(MemoryCompute, "log", late)
    monkeypatch.setattr(log_watch, "FIRST_WITHIN_S", 0.01)
    talker.prints(b"one\n")
    await talker.log()
    await asked.wait()
    talker.stored = b"one\n"
    talker.release.set()
    await rig.ended(talker.execution)
    answer.set()
    await asyncio.sleep(0.1)

    assert rig.logs.size_bytes(talker.execution, "one", 1) is None
    assert await talker.log() == b"one\n"


async def test_a_job_that_can_call_us_is_never_read_so(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(home, address=Address(public_url="http://127.0.0.1:1")) as rig:
        rig.far_sides["one"] = talker = Talker(rig, stored=None)
        counted: list[str] = []
        give = MemoryCompute.log

        def count(
            self: MemoryCompute, handle: JobHandle, *, start: int = 0
        ) -> AsyncIterator[bytes]:
            counted.append(handle["key"])
            return give(self, handle, start=start)

        monkeypatch.setattr(MemoryCompute, "log", count)
        await rig.record()
        talker.execution = await rig.start()
        await rig.until(
            talker.execution, lambda view: job_named(view, "one").state is JobState.RUNNING
        )
        talker.prints(b"what it may print\n")
        for _ in range(5):
            assert await talker.log() == b""
            await asyncio.sleep(QUICK_S)
        assert f"{talker.execution}-one-1" not in counted
        talker.release.set()
        await rig.ended(talker.execution)

        assert rig.logs.size_bytes(talker.execution, "one", 1) is None


@pytest.mark.parametrize("looked", [False, True])
async def test_what_a_lost_attempt_printed_is_kept_whole(
    rig: Rig, talker: Talker, monkeypatch: pytest.MonkeyPatch, looked: bool
) -> None:
    printed = b"".join(b"line %d \xff\r\n" % number for number in range(200_000)) + b"the last ["
    talker.prints(printed[:1000])
    if looked:
        await talker.until_seen(printed[:1000])
    talker.prints(printed[1000:])
    talker.stored = None
    talker.release.set()
    view = await rig.ended(talker.execution)

    assert job_named(view, "one").state is JobState.FAILED
    seen = b""
    while piece := await talker.log(len(seen), attempt=1):
        seen += piece
    assert seen == printed


async def test_a_platform_that_is_away_when_an_attempt_is_lost_is_asked_again(
    rig: Rig, talker: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepforge.execution.effects.FIRST_PAUSE_S", 0.01)
    counted = MemoryCompute.log
    cut = [True, True]

    async def cutting(
        self: MemoryCompute, handle: JobHandle, *, start: int = 0
    ) -> AsyncIterator[bytes]:
        async for chunk in counted(self, handle, start=start):
            if cut:
                cut.pop()
                yield chunk[:-3]
                raise Unavailable("away")
            yield chunk

    monkeypatch.setattr(MemoryCompute, "log", cutting)
    talker.prints(b"one\ntwo\n")
    talker.stored = None
    talker.release.set()
    await rig.ended(talker.execution)

    assert await talker.log(attempt=1) == b"one\ntwo\n"


async def test_more_that_was_shown_than_stored_is_not_shown_any_more(
    rig: Rig, talker: Talker
) -> None:
    talker.prints(b"one\ntwo\n")
    await talker.until_seen(b"one\ntwo\n")
    view = await rig.view(talker.execution)
    job = job_named(view, "one")
    shorter = replace(job, attempts=(replace(job.attempts[0], log_bytes=4),))

    part = await rig.executions.read_log(view.execution, shorter, 1, 0)

    assert (part.data, part.ended) == (b"one\n", True)


async def test_two_servers_of_one_home_read_the_same_log(home: Path, talker: Talker) -> None:
    async with opened(home, drive=False, holder="another") as other:
        watcher = replace(talker, rig=other)
        printed = b""
        for number in range(20):
            line = b"line %d\n" % number
            printed += line
            talker.prints(line)
            await asyncio.gather(talker.until_seen(printed), watcher.until_seen(printed))
