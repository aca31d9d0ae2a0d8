"""What does SciServer have to answer for our jobs and data, and what passes through our server?

Requests and bytes are counted by the stand-in, not timed: for a job from its submission to its release,
for a minute of many jobs that run and of one whose log somebody watches, for single objects, and for a
pipeline inside SciServer. The original client, by its published code, asks for all jobs of an account
each second for each running job, and again for what it prints.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.measure import table
from deepforge.compute.port import PYTHON, Host, JobHandle, JobRequest, State
from deepforge.compute.sciserver.adapter import SciServerCompute, SciServerComputeSettings
from deepforge.settings import Secret
from deepforge.storage.sciserver import SciServerFilesAdapter, SciServerFilesSettings
from deepforge.testing.sciserver import SciServer, running

USER, PASSWORD = "alice", "wonderland"
JOBS, SMALL_JOBS = 40, 6
WATCHED_S, SMALL_WATCHED_S = 60.0, 15.0
LIMIT_A_JOB, LIMIT_A_MINUTE, LIMIT_WATCHED = 12, 12, 20
WITHIN_S = 300.0
LISTED, SMALL, LARGE = 100, 1000, 16 * 2**20
EXAMPLE = Path(__file__).parent.parent / "examples" / "hello"
OURS = {"result.json", "log.txt", "events.jsonl"}
TALKING = {
    "deepforge.toml": 'name = "talking"\n',
    "operations/talk.py": (
        "import time\n\n\nclass Talk:\n    def __init__(self, seconds: int):\n"
        "        self.seconds = seconds\n\n    def execute(self):\n"
        "        for second in range(self.seconds):\n            print(second, flush=True)\n"
        "            time.sleep(1)\n        return second\n"
    ),
    "pipelines/talking.py": (
        "from operations.talk import Talk\n\n\ndef talking(seconds: int):\n"
        "    last = Talk(seconds=seconds).execute()\n    return last\n"
    ),
}
"""A job that prints a line each second."""


def main(rounds: int, *, small: bool) -> None:
    """Counts do not vary: `rounds` is not needed."""
    jobs, watched_s = (SMALL_JOBS, SMALL_WATCHED_S) if small else (JOBS, WATCHED_S)
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "site") as site:
        site.users.add_user(USER, PASSWORD, quota_bytes=0)
        for domain in site.state.domains:
            domain.jobs_per_user = jobs
        a_job, a_minute, logs = asyncio.run(count(site, Path(folder), jobs, watched_s))
        objects = asyncio.run(count_objects(site))
        data_bytes, all_bytes = count_moved(site, Path(folder))
        watched = count_watched(site, Path(folder), watched_s)
    table(
        f"Requests to SciServer Compute, {jobs} jobs of one user at once over two connections",
        ["", "ours", "limit", "original"],
        [
            ["for a job, submission to release", f"{a_job:.1f}", str(LIMIT_A_JOB), ""],
            ["in a minute of running jobs", f"{a_minute:.1f}", str(LIMIT_A_MINUTE), str(60 * jobs)],
            ["reads of logs in it, nobody watching", str(logs), "0", str(60 * jobs)],
            ["for the log of a job somebody watches", f"{watched:.1f}", str(LIMIT_WATCHED), "120"],
        ],
    )
    table(
        "Requests to SciServer Files, and bytes that they carry",
        ["", "requests", "bytes", "of data"],
        [[name, str(asked), str(moved), str(data)] for name, asked, moved, data in objects],
    )
    table(
        "Bytes through our server, a pipeline in SciServer with a mounted volume",
        ["", "ours", "limit"],
        [
            ["of data", str(data_bytes), "0"],
            ["of code, results, logs", str(all_bytes - data_bytes), ""],
        ],
    )


async def count(
    site: SciServer, folder: Path, jobs: int, watched_s: float
) -> tuple[float, float, int]:
    """Requests for a job, those in between left out; in a minute in between; for logs in it."""
    gate = folder / "gate"
    code = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.2)"
    settings = SciServerComputeSettings(USER, Secret(PASSWORD), site=site.url)
    async with AsyncExitStack() as stack:
        two = [
            await stack.enter_async_context(SciServerCompute(settings, Host(folder)))
            for _ in range(2)
        ]
        for one in two:
            await one.check()
        began = len(site.requests)
        requests = [JobRequest(f"bench-{n}", (PYTHON, "-c", code)) for n in range(jobs)]
        parts = [
            (one, await asyncio.gather(*map(one.submit, requests[number::2])))
            for number, one in enumerate(two)
        ]
        await asyncio.gather(*(all_are("running", *part) for part in parts))
        submitted, since = len(site.requests), time.monotonic()
        while time.monotonic() - since < watched_s:
            await asyncio.gather(*(one.poll(handles) for one, handles in parts))
            await asyncio.sleep(1)
        watched = len(site.requests)
        gate.touch()
        await asyncio.gather(*(all_are("exited", *part) for part in parts))
        await asyncio.gather(*(one.release(each) for one, some in parts for each in some))
        ended = len(site.requests)
    a_job = (submitted - began + ended - watched) / jobs
    logs = sum("output.txt" in one.path for one in site.requests[submitted:watched])
    return a_job, (watched - submitted) * 60 / watched_s, logs


async def all_are(state: State, adapter: SciServerCompute, handles: Sequence[JobHandle]) -> None:
    until = time.monotonic() + WITHIN_S
    while {one.state for one in await adapter.poll(handles)} != {state}:
        if time.monotonic() > until:
            raise RuntimeError(f"not all jobs are {state} within {WITHIN_S:.0f} s")
        await asyncio.sleep(1)


async def count_objects(site: SciServer) -> list[tuple[str, int, int, int]]:
    """What is done with objects: requests, the bytes that these carry, the bytes of the objects."""
    found = []
    settings = SciServerFilesSettings(USER, password=Secret(PASSWORD), site=site.url)
    async with SciServerFilesAdapter(settings) as adapter:

        async def put(key: str, size_bytes: int) -> None:
            await adapter.put(key, _content(size_bytes), size_bytes=size_bytes)

        async def get(key: str) -> None:
            async for _ in adapter.get(key):
                pass

        async def list_all() -> None:
            count = [one.key async for one in adapter.list("many/")]
            assert len(count) == LISTED

        await put("folder/first", 1)  # what is learned once
        for number in range(LISTED):
            await put(f"many/{number}", 1)
        done: list[tuple[str, Callable[[], Awaitable[object]], int]] = [
            (f"upload of {SMALL} bytes", lambda: put("folder/small", SMALL), SMALL),
            (f"upload of {LARGE >> 20} MiB", lambda: put("folder/large", LARGE), LARGE),
            (f"download of {LARGE >> 20} MiB", lambda: get("folder/large"), LARGE),
            ("size of an object", lambda: adapter.stat("folder/large"), 0),
            (f"list of {LISTED} objects", list_all, 0),
            (
                "copy of 16 MiB, by SciServer",
                lambda: adapter.copy("folder/large", "folder/copy"),
                0,
            ),
            ("deletion of an object", lambda: adapter.delete(["folder/small"]), 0),
        ]
        for name, act, data in done:
            before = len(site.requests)
            await act()
            asked = site.requests[before:]
            found.append((name, len(asked), sum(one.size_bytes for one in asked), data))
    return found


async def _content(size_bytes: int) -> AsyncIterator[bytes]:
    block = bytes(min(size_bytes, 2**20))
    for _ in range(size_bytes // len(block)):
        yield block


def deepforge(folder: Path, *words: str) -> None:
    """Run a command on a home in this folder."""
    command = [str(Path(sys.executable).with_name("deepforge")), *words]
    environment = {**os.environ, "DEEPFORGE_HOME": str(folder / "home")}
    subprocess.run(
        command, check=True, env=environment, input=PASSWORD, text=True, capture_output=True
    )


def count_watched(site: SciServer, folder: Path, watched_s: float) -> float:
    """Requests in a minute for the log of a job that prints each second and cannot call us, while
    `deepforge run` shows it."""
    project = folder / "talking"
    for name, text in TALKING.items():
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    before = len(site.requests)
    chosen = ("--set", f"seconds={int(watched_s)}")
    deepforge(folder, "run", str(project), *chosen, "--storage", "storage", "--compute", "compute")
    reads = sum("output.txt" in one.path for one in site.requests[before:])
    return reads * 60 / watched_s


def count_moved(site: SciServer, folder: Path) -> tuple[int, int]:
    """The bytes of a pipeline with SciServer Files that our server itself sent or got: those of
    inputs and outputs, and all of them."""
    for port in ("storage", "compute"):
        account = ("--site", site.url, "--username", USER, "--password", "-")
        deepforge(folder, port, "add", "sciserver", port, *account)
    before = len(site.requests)
    deepforge(folder, "run", str(EXAMPLE), "--storage", "storage", "--compute", "compute")
    carried = [
        one
        for one in site.requests[before:]
        if one.method in ("GET", "PUT") and "/file/" in one.path
    ]
    read = sum(
        one.size_bytes
        for one in carried
        if one.method == "GET"
        and "/executions/" in one.path
        and one.path.rpartition("/")[2] not in OURS
    )
    uploads = [one for one in carried if one.method == "PUT" and "/.deepforge/parts/" in one.path]
    volume = site.state.volume("Storage", USER, "deepforge_data")
    assert volume is not None
    code = sum(path.stat().st_size for path in (volume.folder / "bundles").iterdir())
    data = read + sum(one.size_bytes for one in uploads) - code
    return data, sum(one.size_bytes for one in carried)
