"""How long from "the job is ready" to "its operation starts" on a worker on this machine?

A chain of no-ops, pressed play on for real: our server in this process, the worker in one of its own,
each operation noting its first moment. A job is ready when the server has stored that it is. The floor
is the start of `python3 -c pass` in a clean virtual environment; the limit is twice that and 20 ms.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import structlog
import uvloop

from benchmarks.measure import Measurement, clean_environment, median, ratio, table
from benchmarks.objects import TESTS
from benchmarks.overhead import read_marks, write_project
from deepforge.events import Events
from deepforge.execution.access import Address
from deepforge.server.app import build_app
from deepforge.server.home import open_home
from deepforge.server.listen import base_url, bind, serving
from deepforge.server.services import open_services
from deepforge.worker.build import worker_archive

sys.path.insert(0, str(TESTS))

import server_client

JOBS, SMALL_JOBS = 50, 10
SPAWNS = 20
LIMIT_SPAWNS, LIMIT_MS = 2, 20
CONNECTED_WITHIN_S = 30


def main(rounds: int, *, small: bool) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(measure(SMALL_JOBS if small else JOBS, rounds))
    limits: list[Measurement] = [
        {"ms": LIMIT_SPAWNS * one["spawn_ms"] + LIMIT_MS, "p90_ms": 1} for one in found
    ]
    table(
        "Latency of a worker: job ready until its operation starts",
        ["", "median ms", "p90 ms", "x limit"],
        [
            [
                "DeepForge worker",
                f"{median([one['ms'] for one in found]):.1f}",
                f"{median([one['p90_ms'] for one in found]):.1f}",
                f"{ratio(found, limits, 'ms'):.2f}",
            ],
            [
                "limit: 2 spawns of python3 + 20 ms",
                f"{median([one['ms'] for one in limits]):.1f}",
                "",
                "1.00",
            ],
        ],
    )


async def measure(count: int, rounds: int) -> list[Measurement]:
    with tempfile.TemporaryDirectory(prefix="bench-") as name, bind("127.0.0.1", 0) as listener:
        folder = Path(name)
        home = open_home({"DEEPFORGE_HOME": str(folder / "home")})
        url = base_url(listener)
        python = clean_python(folder / "venv")
        write_project(folder / "chain", "chain", count)
        files = {
            str(path.relative_to(folder / "chain")): path.read_bytes()
            for path in (folder / "chain").rglob("*")
            if path.is_file()
        }
        address = Address(loopback_url=url, file=str(home.address))
        async with open_services(home, drive=True, address=address) as services:
            app = build_app(services)
            async with (
                serving(app, listener, stopping=app.state.stopping.set),
                httpx.AsyncClient(base_url=f"{url}/api/v1", timeout=60) as http,
            ):
                await server_client.record(http, "chain", files)
                made = await http.post(
                    "/connections/compute",
                    json={"name": "box", "adapter": "worker", "settings": {}},
                )
                made.raise_for_status()
                worker = await start_worker(folder, python, url)
                try:
                    measured = []
                    for number in range(-1, rounds):
                        print(f"  round {number + 1} of {rounds}", file=sys.stderr, flush=True)
                        spawn_ms = await asyncio.to_thread(spawn, python)
                        waits = await latencies(http, services.events, folder)
                        if number >= 0:
                            measured.append(summary(waits, spawn_ms))
                finally:
                    worker.terminate()
                    await asyncio.to_thread(worker.wait)
    return measured


async def start_worker(folder: Path, python: Path, url: str) -> subprocess.Popen[bytes]:
    """Start a worker and wait until the server knows it."""
    worker = await asyncio.to_thread(begin_worker, folder, python, url)
    deadline = time.monotonic() + CONNECTED_WITHIN_S
    while "connected" not in (folder / "worker.log").read_text():
        if worker.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(
                f"the worker does not connect: {(folder / 'worker.log').read_text()}"
            )
        await asyncio.sleep(0.02)
    return worker


def begin_worker(folder: Path, python: Path, url: str) -> subprocess.Popen[bytes]:
    pyz = folder / "worker.pyz"
    pyz.write_bytes(worker_archive())
    command = [str(python), str(pyz), "--url", url, "--folder", str(folder / "w"), "--jobs", "2"]
    with (folder / "worker.log").open("wb") as log:
        return subprocess.Popen(command, env=clean_environment(), stderr=log)


async def latencies(http: httpx.AsyncClient, events: Events, folder: Path) -> list[float]:
    """Run the chain once; return how long each job waited for its start, in seconds."""
    ready: dict[str, float] = {}
    execution = await server_client.start(http, "chain", compute="box")
    async with events.listen(execution["id"]) as news:
        while True:
            event = await asyncio.wait_for(news.get(), timeout=60)
            if event.kind == "job":
                job: Any = event.data["job"]
                if job.state != "waiting":
                    ready.setdefault(job.plan.name, time.time())
            elif event.kind == "execution" and event.data["execution"].state != "running":
                break
    ended = await server_client.ended(http, execution["id"])
    if ended["status"] != "succeeded":
        raise RuntimeError(f"the chain {ended['status']}: {ended['jobs'][0]['failure']}")
    (artifact,) = (one for one in ended["artifacts"] if one["name"].startswith("x"))
    data = await http.get(f"/artifacts/{artifact['id']}/data")
    (folder / "marks").write_bytes(data.content)
    started = sorted(float(one) for one in read_marks(folder / "marks"))
    # the first job was ready before anybody listened
    return [
        start - ready[f"x{number}"] for number, start in enumerate(started) if f"x{number}" in ready
    ][1:]


def summary(waits: list[float], spawn_ms: float) -> Measurement:
    ordered = sorted(waits)
    p90 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.9))]
    return {"ms": median(ordered) * 1000, "p90_ms": p90 * 1000, "spawn_ms": spawn_ms}


def spawn(python: Path) -> float:
    """How long a bare interpreter takes from start to end, in milliseconds."""
    times = []
    for _ in range(SPAWNS):
        began = time.perf_counter()
        subprocess.run([python, "-c", "pass"], env=clean_environment(), check=True)
        times.append((time.perf_counter() - began) * 1000)
    return median(times)


def clean_python(folder: Path) -> Path:
    """Make a virtual environment with nothing in it and return its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python3"
