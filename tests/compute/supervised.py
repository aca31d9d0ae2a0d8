"""What the tests of Server Compute share: a quick adapter, and looking at its processes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from deepforge.compute.port import ComputeAdapter, JobHandle, JobReport
from deepforge.compute.server import processes
from deepforge.compute.server.adapter import ServerCompute


class QuickServerCompute(ServerCompute):
    """Patience for tests."""

    grace_s = 1.0
    idle_s = 5.0


OpenServer = Callable[..., QuickServerCompute]


def supervisor_pid(folder: Path) -> int | None:
    """The pid of the living supervisor of a folder."""
    try:
        pid = int((folder / "lock").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return pid if pid in processes_of(folder) else None


def processes_of(folder: Path) -> dict[int, str]:
    """Living processes that belong to a folder: their command or current folder says so."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or processes.look(int(entry.name)) is None:
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
            where = str((entry / "cwd").readlink())
        except OSError:
            continue
        if where.startswith(str(folder)) or str(folder).encode() in command:
            found[int(entry.name)] = command.decode(errors="replace")
    return found


def stop_all(folder: Path) -> dict[int, str]:
    """End the supervisor of a folder, by its pid. Return what else still ran, and kill it."""
    supervisor = supervisor_pid(folder)
    if supervisor is not None:
        os.kill(supervisor, signal.SIGTERM)
        wait_gone(supervisor)
    deadline = time.monotonic() + 2
    while (left := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.005)
    for pid in left:
        processes.send(pid, signal.SIGKILL)
    return left


def wait_gone(pid: int, *, within_s: float = 10.0) -> None:
    """Wait until a process has ended, zombie or not."""
    deadline = time.monotonic() + within_s
    while processes.look(pid) is not None:
        assert time.monotonic() < deadline, f"process {pid} does not end"
        time.sleep(0.005)


def wait_for(condition: Callable[[], bool], what: str, *, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.005)


async def ended(adapter: ComputeAdapter, handle: JobHandle, *, within_s: float = 20) -> JobReport:
    """Poll until a job is over."""
    deadline = time.monotonic() + within_s
    while True:
        (report,) = await adapter.poll([handle])
        if report.state not in ("queued", "running"):
            return report
        assert time.monotonic() < deadline, f"still {report.state}"
        await asyncio.sleep(0.01)


async def running(adapter: ComputeAdapter, handle: JobHandle) -> None:
    """Poll until a job runs."""
    deadline = time.monotonic() + 20
    while (await adapter.poll([handle]))[0].state != "running":
        assert time.monotonic() < deadline, "it does not start"
        await asyncio.sleep(0.005)


async def log_of(adapter: ComputeAdapter, handle: JobHandle, *, until: bytes = b"") -> bytes:
    """Read the whole log, once it holds some bytes."""
    deadline = time.monotonic() + 20
    while True:
        text = b"".join([chunk async for chunk in adapter.log(handle)])
        if until in text:
            return text
        assert time.monotonic() < deadline, f"{until!r} was never printed"
        await asyncio.sleep(0.005)
