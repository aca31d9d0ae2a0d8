"""The exam of the worker adapter: our routes in between, a small worker as the far side."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deepforge.compute.port import Host
from deepforge.compute.worker import WorkerCompute, WorkerSettings
from deepforge.testing.compute import ComputeContract, Opener
from webgme.rig import OWNER, opened
from webgme.small_worker import SmallWorker


class TestWorkerExam(ComputeContract):
    slots = 2
    ends_daemons = False  # that of a real worker is asked of it, not of this one

    @pytest.fixture
    async def opener(self, tmp_path: Path) -> AsyncIterator[Opener]:
        async with opened(tmp_path / "home") as rig:

            async def files(hash: str) -> dict[str, bytes]:
                return await rig.queue.job_files(OWNER, hash)

            host = Host(tmp_path, rig.services.documents, OWNER)
            async with SmallWorker(rig.http, files, slots=self.slots):
                until = time.monotonic() + 10
                while not await rig.hand_out.registry.of_owner(OWNER):
                    assert time.monotonic() < until
                    await asyncio.sleep(0.01)
                yield lambda: WorkerCompute(WorkerSettings(), host)
