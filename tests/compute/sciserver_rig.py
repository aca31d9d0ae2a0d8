"""What the tests of SciServer Compute share: a stand-in with a user, and adapters without patience."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from deepforge.compute.port import Host, JobHandle, JobReport
from deepforge.compute.sciserver.adapter import SciServerCompute, SciServerComputeSettings
from deepforge.settings import Secret
from deepforge.testing.compute_tools import state_of
from deepforge.testing.sciserver import SciServer

USER, PASSWORD = "alice", "wonderland"


class QuickSciServerCompute(SciServerCompute):
    """It asks all the time."""

    list_every_s = 0.02


Open = Callable[..., QuickSciServerCompute]


def opening(site: SciServer, folder: Path) -> Open:
    """Makes adapters for the user of a site; keywords change the settings."""

    def open_one(**changes: object) -> QuickSciServerCompute:
        values = {"site": site.url, "username": USER, "password": Secret(PASSWORD), **changes}
        settings = SciServerComputeSettings(**values)  # type: ignore[arg-type]
        return QuickSciServerCompute(settings, Host(folder))

    return open_one


async def over(adapter: SciServerCompute, handle: JobHandle, within_s: float = 20.0) -> JobReport:
    """Poll until the job is over."""
    until = time.monotonic() + within_s
    while (report := await state_of(adapter, handle)).state in ("queued", "running"):
        assert time.monotonic() < until, f"still {report}"
        await asyncio.sleep(0.02)
    return report
