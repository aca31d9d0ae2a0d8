"""What does SciServer have to answer for our jobs, and what passes through our server?

Requests are counted by the stand-in, not timed: for a job from its submission to its release, for a
minute of jobs that run, and for the data of a pipeline inside SciServer. The original client, by its
published code, asks for all jobs of an account each second for each running job.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import table
from deepforge.compute.port import PYTHON, Host, JobHandle, JobRequest, State
from deepforge.compute.sciserver.adapter import SciServerCompute, SciServerComputeSettings
from deepforge.settings import Secret
from deepforge.testing.sciserver import SciServer, running

USER, PASSWORD = "alice", "wonderland"
JOBS, SMALL_JOBS = 50, 5
WATCHED_S, SMALL_WATCHED_S = 60.0, 15.0
LIMIT_A_JOB, LIMIT_A_MINUTE = 12, 12
WITHIN_S = 300.0
EXAMPLE = Path(__file__).parent.parent / "examples" / "hello"
OURS = {"result.json", "log.txt", "events.jsonl"}


def main(rounds: int, *, small: bool) -> None:
    """Counts do not vary: `rounds` is not needed."""
    jobs, watched_s = (SMALL_JOBS, SMALL_WATCHED_S) if small else (JOBS, WATCHED_S)
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "site") as site:
        site.users.add_user(USER, PASSWORD)
        for domain in site.state.domains:
            domain.jobs_per_user = jobs
        a_job, a_minute = asyncio.run(count(site, Path(folder), jobs, watched_s))
        moved = count_moved(site, Path(folder))
    table(
        f"Requests to SciServer, with {jobs} jobs at once",
        ["", "ours", "limit", "original"],
        [
            ["for a job, submission to release", f"{a_job:.1f}", str(LIMIT_A_JOB), ""],
            ["in a minute of running jobs", f"{a_minute:.1f}", str(LIMIT_A_MINUTE), str(60 * jobs)],
            ["objects of a pipeline through us", str(moved), "0", ""],
        ],
    )


async def count(site: SciServer, folder: Path, jobs: int, watched_s: float) -> tuple[float, float]:
    """Requests for a job, those in between left out, and in a minute in between."""
    gate = folder / "gate"
    code = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.2)"
    settings = SciServerComputeSettings(USER, Secret(PASSWORD), site=site.url)
    async with SciServerCompute(settings, Host(folder)) as adapter:
        await adapter.check()
        began = len(site.requests)
        requests = [JobRequest(f"bench-{n}", (PYTHON, "-c", code)) for n in range(jobs)]
        handles = await asyncio.gather(*map(adapter.submit, requests))
        await all_are("running", adapter, handles)
        submitted, since = len(site.requests), time.monotonic()
        while time.monotonic() - since < watched_s:
            await adapter.poll(handles)
            await asyncio.sleep(1)
        watched = len(site.requests)
        gate.touch()
        await all_are("exited", adapter, handles)
        await asyncio.gather(*map(adapter.release, handles))
        ended = len(site.requests)
    a_job = (submitted - began + ended - watched) / jobs
    return a_job, (watched - submitted) * 60 / watched_s


async def all_are(state: State, adapter: SciServerCompute, handles: Sequence[JobHandle]) -> None:
    until = time.monotonic() + WITHIN_S
    while {one.state for one in await adapter.poll(handles)} != {state}:
        if time.monotonic() > until:
            raise RuntimeError(f"not all jobs are {state} within {WITHIN_S:.0f} s")
        await asyncio.sleep(1)


def count_moved(site: SciServer, folder: Path) -> int:
    """How many objects of a pipeline with SciServer Files our server read or wrote itself."""
    environment = {**os.environ, "DEEPFORGE_HOME": str(folder / "home")}

    def deepforge(*words: str) -> None:
        command = [str(Path(sys.executable).with_name("deepforge")), *words]
        subprocess.run(
            command, check=True, env=environment, input=PASSWORD, text=True, capture_output=True
        )

    for port in ("storage", "compute"):
        account = ("--site", site.url, "--username", USER, "--password", "-")
        deepforge(port, "add", "sciserver", port, *account)
    before = len(site.requests)
    deepforge("run", str(EXAMPLE), "--storage", "storage", "--compute", "compute")
    paths = [
        one.path
        for one in site.requests[before:]
        if one.method in ("GET", "PUT") and "/file/" in one.path and "/executions/" in one.path
    ]
    return sum(path.rpartition("/")[2] not in OURS for path in paths)
