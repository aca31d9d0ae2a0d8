"""What cannot be done is blamed on whom it failed at, and on nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from deepforge.errors import InvalidRequest, StorageFull
from deepforge.execution.model import JobState
from execution.rig import Rig, job_named


async def refusal(rig: Rig) -> str:
    """What is said of a job that could not be handed over."""
    await rig.record()
    view = await rig.ended(await rig.start())
    job = job_named(view, "one")
    assert job.state is JobState.FAILED
    assert job.failure is not None
    return job.failure.message


def failing(error: Exception) -> Any:
    async def fail(*arguments: Any, **named: Any) -> None:
        raise error

    return fail


async def test_a_storage_that_fails_is_not_the_compute_s_fault(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = await rig.opener.storage("local")
    monkeypatch.setattr(storage, "put_bytes", failing(StorageFull("no room for it")))

    said = await refusal(rig)

    assert said == "the job could not be prepared with storage 'local': no room for it"


async def test_a_compute_that_refuses_is_not_the_storage_s_fault(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(await rig.compute(), "submit", failing(InvalidRequest("too many cores")))

    said = await refusal(rig)

    assert said == "the job could not be handed to compute 'mem': too many cores"


async def test_a_compute_that_cannot_be_opened_is_not_the_storage_s_fault(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.record()
    adopt = rig.driver.adopt

    async def gone_by_then(id: str) -> bool:
        monkeypatch.setattr(rig.opener, "compute", failing(InvalidRequest("its plugin is gone")))
        return await adopt(id)

    monkeypatch.setattr(rig.driver, "adopt", gone_by_then)

    said = await refusal(rig)

    assert said == "the job could not be handed to compute 'mem': its plugin is gone"


async def test_results_that_the_database_does_not_take_are_not_the_storage_s_fault(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepforge.execution.effects.FIRST_PAUSE_S", 0.02)
    add, full = rig.artifacts.add, True

    async def until_room(**named: Any) -> Any:
        if full:
            raise StorageFull("no room left")
        return await add(**named)

    monkeypatch.setattr(rig.artifacts, "add", until_room)
    await rig.record()
    id = await rig.start()
    said = await rig.until(id, lambda view: view.execution.paused_by is not None)
    full = False
    view = await rig.ended(id)

    assert said.execution.paused_by == "the database: no room left"
    assert view.execution.paused_by is None
