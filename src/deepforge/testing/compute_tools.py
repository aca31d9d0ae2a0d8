"""What the exam of the compute port is written with."""

from __future__ import annotations

import asyncio
import secrets
import time
import unittest
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from deepforge.compute.port import (
    PYTHON,
    ComputeAdapter,
    JobHandle,
    JobReport,
    JobRequest,
    Resources,
)

Opener = Callable[[], ComputeAdapter]
"""Makes one more adapter with the same settings on the same host, to be opened with `async with`."""

DEFAULT = Resources()

DAEMON = """
import os, sys, time
def tick():
    while True:
        os.write(1, b"tick\\n")
        time.sleep(0.02)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        tick()
    os._exit(0)
os.wait()
"""


class Examiner:
    """What is known about the compute at its exam, and the ways to wait for it."""

    slots: ClassVar[int | None] = None
    """How many jobs run at once on what `opener` opens. None: the queue is not examined."""
    ends_daemons: ClassVar[bool] = True
    """Whether descendants are found that left the job's session. The port asks for it; an adapter
    that cannot do it must say so in its documentation."""
    within_s: ClassVar[float] = 30.0
    """How long a trivial job may take from submit to its report."""

    async def run(
        self, adapter: ComputeAdapter, code: str, *, resources: Resources = DEFAULT
    ) -> JobReport:
        return await self.ended(adapter, await adapter.submit(python(code, resources=resources)))

    async def ended(self, adapter: ComputeAdapter, handle: JobHandle) -> JobReport:
        """Poll until the job is over, and see that it stays so."""
        deadline = time.monotonic() + self.within_s
        while True:
            report = await state_of(adapter, handle)
            if report.state not in ("queued", "running"):
                assert await state_of(adapter, handle) == report, "a final report changed"
                return report
            assert time.monotonic() < deadline, f"still {report.state} after {self.within_s:.0f} s"
            await self.pause(adapter)

    async def running(self, adapter: ComputeAdapter, handle: JobHandle) -> None:
        deadline = time.monotonic() + self.within_s
        while (report := await state_of(adapter, handle)).state != "running":
            assert report.state == "queued", f"the job is {report.state}"
            assert time.monotonic() < deadline, "the job does not start"
            await self.pause(adapter)

    async def printed(self, adapter: ComputeAdapter, handle: JobHandle, text: bytes) -> None:
        """Wait until a running job has printed something; without a live log, until it runs."""
        if adapter.capabilities.log != "live":
            await self.running(adapter, handle)
            return
        deadline = time.monotonic() + self.within_s
        while text not in await log_of(adapter, handle):
            assert time.monotonic() < deadline, f"{text!r} was never printed"
            await self.pause(adapter)

    async def unknown(self, adapter: ComputeAdapter) -> JobHandle:
        """A handle of this adapter whose job nobody knows any more."""
        handle = await adapter.submit(python(""))
        await self.ended(adapter, handle)
        await adapter.release(handle)
        if (await state_of(adapter, handle)).state != "missing":
            raise unittest.SkipTest("the backend does not forget released jobs")
        return handle

    async def pause(self, adapter: ComputeAdapter) -> None:
        await asyncio.sleep(min(adapter.capabilities.poll_every_s, 0.02))

    def needs_cancel(self, adapter: ComputeAdapter) -> None:
        if not adapter.capabilities.cancel_running:
            raise unittest.SkipTest("cancel_running is not declared")

    def needs_log(self, adapter: ComputeAdapter) -> None:
        if adapter.capabilities.log == "none":
            raise unittest.SkipTest("a log is not declared")

    def needs_daemons(self, adapter: ComputeAdapter) -> None:
        if adapter.capabilities.log != "live" or not self.ends_daemons:
            raise unittest.SkipTest("descendants in sessions of their own are not looked for")

    def needs_slots(self, adapter: ComputeAdapter) -> int:
        self.needs_log(adapter)
        if self.slots is None:
            raise unittest.SkipTest("the number of slots is not said")
        return self.slots


def new_key() -> str:
    """A job key nobody has used."""
    return "exam-" + secrets.token_hex(8)


def python(
    code: str,
    *,
    key: str | None = None,
    files: Mapping[str, bytes] | None = None,
    resources: Resources = DEFAULT,
) -> JobRequest:
    """A job that runs a few lines of Python."""
    return JobRequest(
        key or new_key(), (PYTHON, "-u", "-c", code), files=files or {}, resources=resources
    )


async def state_of(adapter: ComputeAdapter, handle: JobHandle) -> JobReport:
    reports: Sequence[JobReport] = await adapter.poll([handle])
    assert len(reports) == 1, "one report for each handle"
    return reports[0]


async def log_of(adapter: ComputeAdapter, handle: JobHandle, *, start: int = 0) -> bytes:
    return b"".join([chunk async for chunk in adapter.log(handle, start=start)])


async def must_be_silent(adapter: ComputeAdapter, handle: JobHandle) -> None:
    """Nobody who ticks every 20 ms is left."""
    before = len(await log_of(adapter, handle))
    await asyncio.sleep(0.3)
    assert len(await log_of(adapter, handle)) == before, "something of the job still prints"
