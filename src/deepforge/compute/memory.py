"""Compute for tests: jobs are tasks of this process, and a test may say what each of them does.

    async def fails_once(job: MemoryJob) -> int:
        return 1 if job.request.key.endswith("-1") else 0

    compute = MemoryCompute(MemorySettings(), host, program=fails_once)

Jobs belong to the host's folder, so a second adapter on the same host finds them, as with a real
backend. They end with the process.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deepforge.compute.environment import clean_environment
from deepforge.compute.port import (
    PYTHON,
    Capabilities,
    ComputeAdapter,
    Host,
    JobHandle,
    JobReport,
    JobRequest,
    Refusal,
)
from deepforge.machine import machine_space

_QUEUED = JobReport("queued")

_jobs: dict[Path, dict[str, MemoryJob]] = {}


@dataclass(frozen=True)
class MemorySettings:
    """There is nothing to set."""


@dataclass(eq=False)
class MemoryJob:
    """One job, as its program and a test see it."""

    request: JobRequest
    output: bytearray = field(default_factory=bytearray)
    """What the job has printed: `log` gives it out."""
    report: JobReport = _QUEUED
    """What `poll` answers. A test may set it to whatever it wants to be seen."""
    task: asyncio.Task[None] | None = None


Program = Callable[[MemoryJob], Awaitable[int | JobReport]]
"""What a job does. It returns its exit code, or the whole report; cancelling it ends the job."""


async def run_command(job: MemoryJob) -> int:
    """The program of jobs by default: the command itself, as a child process in a new folder."""
    with tempfile.TemporaryDirectory(prefix="deepforge-") as folder:
        await asyncio.to_thread(_write, Path(folder), job.request)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable if word == PYTHON else word for word in job.request.command),
            cwd=folder,
            env=clean_environment(os.environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            assert process.stdout is not None
            while chunk := await process.stdout.read(65536):
                job.output += chunk
            return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


class MemoryCompute(ComputeAdapter):
    """Runs jobs as tasks. Closing it ends none of them: that is `end_jobs`."""

    capabilities = Capabilities(log="live", cancel_running=True, walltime=True, poll_every_s=0.01)

    def __init__(
        self, settings: MemorySettings, host: Host, *, program: Program = run_command
    ) -> None:
        super().__init__(settings, host)
        self.program = program
        self.jobs = _jobs.setdefault(host.folder, {})
        """Every job that was not released, by key."""

    @property
    def file_spaces(self) -> dict[str, str]:
        return {machine_space(): "/"}

    @property
    def machine(self) -> str:
        return machine_space()

    async def check(self) -> None:
        """Always fine."""

    async def why_not(self, request: JobRequest) -> Sequence[Refusal]:
        if request.resources.gpus:
            return [Refusal("resources.gpus", "memory has no GPUs")]
        return []

    async def submit(self, request: JobRequest) -> JobHandle:
        if request.key not in self.jobs:
            job = self.jobs[request.key] = MemoryJob(request)
            job.task = asyncio.create_task(_run(job, self.program), name=request.key)
        return {"key": request.key}

    async def poll(self, handles: Sequence[JobHandle]) -> list[JobReport]:
        found = (self.jobs.get(str(handle.get("key"))) for handle in handles)
        return [JobReport("missing") if job is None else job.report for job in found]

    async def cancel(self, handles: Sequence[JobHandle]) -> None:
        for handle in handles:
            job = self.jobs.get(str(handle.get("key")))
            if job is None or job.task is None:
                continue
            if job.report.state == "queued":
                job.report = JobReport("cancelled")  # a task that never ran cannot say it
            job.task.cancel()

    async def log(self, handle: JobHandle, *, start: int = 0) -> AsyncIterator[bytes]:
        job = self.jobs.get(str(handle.get("key")))
        if job is not None and len(job.output) > start:
            yield bytes(job.output[start:])

    async def release(self, handle: JobHandle) -> None:
        job = self.jobs.get(str(handle.get("key")))
        if job is not None and job.report.state not in ("queued", "running"):
            del self.jobs[job.request.key]

    async def end_jobs(self) -> None:
        """Cancel every job of this host, wait until they have ended, and forget them."""
        tasks = [job.task for job in self.jobs.values() if job.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.jobs.clear()


async def _run(job: MemoryJob, program: Program) -> None:
    try:
        job.report = JobReport("running")
        async with asyncio.timeout(job.request.resources.walltime_s):
            ended = await program(job)
    except TimeoutError:
        job.report = JobReport("exited", -9, "walltime")
    except asyncio.CancelledError:
        job.report = JobReport("cancelled")
        raise
    except Exception as error:  # a program is test code: let the test see what it raised
        job.report = JobReport("exited", 1, "normal", repr(error))
    else:
        if isinstance(ended, int):
            ended = JobReport("exited", ended, "signal" if ended < 0 else "normal")
        job.report = ended


def _write(folder: Path, request: JobRequest) -> None:
    for name, data in request.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
