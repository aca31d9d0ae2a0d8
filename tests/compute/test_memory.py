"""The memory adapter takes the exam, and plays what a test scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deepforge.compute.memory import MemoryCompute, MemoryJob, MemorySettings
from deepforge.compute.port import Host, JobReport, JobRequest
from deepforge.testing.compute import ComputeContract, Opener


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path)
    yield host
    await MemoryCompute(MemorySettings(), host).end_jobs()


class TestMemory(ComputeContract):
    ends_daemons = False  # a child of this process is all it can end

    @pytest.fixture
    def opener(self, host: Host) -> Opener:
        return lambda: MemoryCompute(MemorySettings(), host)


async def test_a_program_says_what_a_job_does(host: Host) -> None:
    async def program(job: MemoryJob) -> int | JobReport:
        job.output += b"hello from " + job.request.key.encode()
        return JobReport("exited", -9, "out_of_memory", "no memory left")

    compute = MemoryCompute(MemorySettings(), host, program=program)
    handle = await compute.submit(JobRequest("job-1", ("anything",)))
    task = compute.jobs["job-1"].task
    assert task is not None
    await task
    (report,) = await compute.poll([handle])
    assert report == JobReport("exited", -9, "out_of_memory", "no memory left")
    assert b"".join([chunk async for chunk in compute.log(handle)]) == b"hello from job-1"


async def test_what_a_program_raises_is_seen(host: Host) -> None:
    async def program(job: MemoryJob) -> int:
        raise RuntimeError("scripted")

    compute = MemoryCompute(MemorySettings(), host, program=program)
    handle = await compute.submit(JobRequest("job-1", ("anything",)))
    task = compute.jobs["job-1"].task
    assert task is not None
    await task
    (report,) = await compute.poll([handle])
    assert report == JobReport("exited", 1, "normal", "RuntimeError('scripted')")
