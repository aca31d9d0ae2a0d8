"""What a compute is told that a job needs."""

from __future__ import annotations

import pytest

from deepforge.compute.memory import MemoryJob
from deepforge.compute.port import NeededPath
from deepforge.execution.model import ExecutionState
from deepforge.machine import machine_space
from deepforge.storage.local import LocalAdapter
from execution.rig import Rig, succeed

ROOT = "/Storage/alice/lab"


async def test_a_job_needs_the_folder_of_its_storage_where_it_can_be_seen(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalAdapter, "file_root", property(lambda self: ROOT))
    needed: set[tuple[NeededPath, ...]] = set()

    async def looking(job: MemoryJob) -> int:
        needed.add(job.request.paths)
        return await succeed(job)

    rig.far_sides.update(dict.fromkeys(("one", "two", "alone"), looking))
    await rig.record()
    view = await rig.ended(await rig.start())

    assert view.execution.state is ExecutionState.SUCCEEDED
    assert needed == {(NeededPath(machine_space(), ROOT, writable=True),)}
