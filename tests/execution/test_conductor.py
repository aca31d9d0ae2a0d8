"""Driving one execution when other processes, slow answers and lost hints come between."""

from __future__ import annotations

from pathlib import Path

from deepforge.compute.memory import MemoryJob
from deepforge.execution.access import Address
from deepforge.execution.model import ExecutionState
from execution.rig import Rig, job_of, leave_result, opened, states, ticket_of

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
