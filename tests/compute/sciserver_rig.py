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

    def open_one(*, files_come_within_s: float = 0.5, **changes: object) -> QuickSciServerCompute:
        values = {"site": site.url, "username": USER, "password": Secret(PASSWORD), **changes}
        settings = SciServerComputeSettings(**values)  # type: ignore[arg-type]
        made = QuickSciServerCompute(settings, Host(folder))
        made.files_come_within_s = files_come_within_s
        return made

    return open_one


async def over(adapter: SciServerCompute, handle: JobHandle, within_s: float = 20.0) -> JobReport:
    """Poll until the job is over."""
    until = time.monotonic() + within_s
    while (report := await state_of(adapter, handle)).state in ("queued", "running"):
        assert time.monotonic() < until, f"still {report}"
        await asyncio.sleep(0.02)
    return report


def asked(site: SciServer, method: str, path: str) -> int:
    return sum(one.method == method and one.path.startswith(path) for one in site.requests)


def folders_of_jobs(site: SciServer) -> list[str]:
    scratch = site.state.volume("Temporary", USER, "scratch")
    assert scratch is not None
    return [one.name for one in (scratch.folder / "deepforge").iterdir()]


async def settled(site: SciServer, count: int) -> None:
    """A request is counted when its answer was sent: wait for that, and for what should not come."""
    await until(lambda: len(site.requests) >= count)
    await asyncio.sleep(0.05)
    assert count in (0, len(site.requests))


async def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def started(adapter: SciServerCompute, handle: JobHandle) -> None:
    end = time.monotonic() + 20
    while (await state_of(adapter, handle)).state != "running":
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def wait_over(site: SciServer) -> None:
    until = time.monotonic() + 20
    while any(one.is_open for one in list(site.jobs.by_id.values())):
        assert time.monotonic() < until
        time.sleep(0.01)
