"""The exam of the compute port, with the worker program itself as the far side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deepforge.compute.port import Host
from deepforge.compute.worker import WorkerCompute, WorkerSettings
from deepforge.server.listen import base_url, bind, serving
from deepforge.testing.compute import ComputeContract, Opener
from webgme.rig import OWNER, opened
from worker.programs import Workers


class TestWorkerExam(ComputeContract):
    slots = 2

    @pytest.fixture
    async def opener(self, tmp_path: Path, workers: Workers) -> AsyncIterator[Opener]:
        async with opened(tmp_path / "home") as rig:
            with bind("127.0.0.1", 0) as listener:
                async with serving(rig.app, listener, stopping=rig.app.state.stopping.set):
                    worker = workers(base_url(listener), "--jobs", "2", "--cpus", "2")
                    while not await rig.hand_out.registry.of_owner(OWNER):
                        assert worker.process.poll() is None, worker.said
                        await asyncio.sleep(0.01)
                    host = Host(tmp_path, rig.services.documents, OWNER)
                    yield lambda: WorkerCompute(WorkerSettings(), host)
                    await asyncio.to_thread(workers.end)
