"""How many jobs can runners claim in a second, each on the disk before it is answered?

A claim is `POST /start` with the token of an attempt: a compare-and-set on the job's document, and
`job.json` with its grants as the answer. Ours is measured as it runs, with a conductor that drives the
execution. Beside it: the same writes by SQLite alone, one after the other, and a server that does
nothing but such a write, in a thread of its own for every request. All with `synchronous=FULL`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import structlog
import uvloop
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.measure import Measurement, clean_environment, median, ratio, table
from benchmarks.objects import TESTS
from deepforge.compute.memory import MemoryJob
from deepforge.execution.access import Address
from deepforge.server.app import build_channel_app
from deepforge.server.listen import base_url, bind, serving
from deepforge.server.services import Services

sys.path.insert(0, str(TESTS))

from execution.rig import Rig, opened, ticket_of

CLAIMS = 1000
SMALL_CLAIMS = 100
CONNECTIONS = 32
WRITE = "update jobs set revision = revision + 1, body = ? where id = ? and revision = ?"

OPERATION = "class Step:\n    def execute(self):\n        done = 1\n        return done\n"


def main(rounds: int, *, small: bool) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    count = SMALL_CLAIMS if small else CLAIMS
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        measured = runner.run(measure(count, rounds))
    floor, threads = measured["SQLite alone"], measured["FastAPI, a thread per claim"]
    table(
        f"Claims: {count} jobs, {CONNECTIONS} connections, synchronous=FULL",
        ["", "claims/s", "x SQLite alone", "x thread per claim"],
        [
            [
                label,
                f"{count / median([one['seconds'] for one in found]):.0f}",
                f"{1 / ratio(found, floor, 'seconds'):.2f}",
                f"{1 / ratio(found, threads, 'seconds'):.2f}",
            ]
            for label, found in measured.items()
        ],
    )


async def measure(count: int, rounds: int) -> dict[str, list[Measurement]]:
    measured: dict[str, list[Measurement]] = {
        "SQLite alone": [],
        "FastAPI, a thread per claim": [],
        "DeepForge": [],
    }
    with tempfile.TemporaryDirectory(prefix="bench-") as name, bind("127.0.0.1", 0) as listener:
        folder = Path(name)
        address = Address(public_url=base_url(listener))
        async with opened(folder / "home", address=address) as rig:
            app = build_channel_app(cast(Services, SimpleNamespace(attempts=rig.attempts)))
            async with serving(app, listener):
                await rig.record(project_of(count))
                for number in range(-1, rounds):
                    print(f"  round {number + 1} of {rounds}", file=sys.stderr, flush=True)
                    claimed, bodies = await ours(rig)
                    alone = await asyncio.to_thread(sqlite_alone, folder / "alone.db", bodies)
                    threads = await thread_per_claim(folder / "threads.db", bodies)
                    if number >= 0:
                        for label, found in zip(measured, (alone, threads, claimed), strict=True):
                            measured[label].append(found)
    return measured


async def ours(rig: Rig) -> tuple[Measurement, Sequence[str]]:
    """Start an execution, let every job wait until its ticket is handed over, and claim them all.

    Returns what the documents of its jobs look like, too.
    """
    compute = await rig.compute()
    tickets: list[Any] = []

    async def wait(job: MemoryJob) -> int:
        tickets.append(ticket_of(job)["channel"])
        await asyncio.Event().wait()
        return 0

    compute.program = wait
    execution = await rig.start(pipeline="wide")
    view = await rig.until(execution, lambda view: len(tickets) == len(view.jobs), within_s=120)
    found = await hammer([(one["url"] + "/start", one["token"]) for one in tickets])
    documents = await rig.documents.find("jobs", {"execution": execution})
    assert all(one.body["attempts"][0]["runner"] for one in documents)
    assert len(documents) == len(view.jobs)
    await rig.executions.cancel(execution, view.execution.owner)
    await rig.ended(execution, within_s=120)
    return found, [json.dumps(one.body) for one in documents]


async def hammer(calls: Sequence[tuple[str, str]]) -> Measurement:
    requests = [
        (url, token, json.dumps({"runner": f"{n}"})) for n, (url, token) in enumerate(calls)
    ]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("hammer.py")),
        str(CONNECTIONS),
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    said, _ = await process.communicate(json.dumps(requests).encode() + b"\n")
    if process.returncode != 0:
        raise RuntimeError(f"the clients ended with {process.returncode}")
    found: dict[str, float] = json.loads(said)
    return found


def sqlite_alone(path: Path, bodies: Sequence[str]) -> Measurement:
    """Every write in its own transaction, in one thread."""
    connection = prepared(path, bodies)
    began = time.perf_counter()
    for number, body in enumerate(bodies):
        assert connection.execute(WRITE, [body, f"{number}", 1]).rowcount == 1
    seconds = time.perf_counter() - began
    connection.close()
    return {"seconds": seconds}


class Claimed(BaseModel):
    body: str


async def thread_per_claim(path: Path, bodies: Sequence[str]) -> Measurement:
    """The same writes behind FastAPI, one at a time in whatever thread is free."""
    connection = prepared(path, bodies)
    free = asyncio.Lock()
    app = FastAPI()

    def write(number: str) -> int:
        return connection.execute(WRITE, [bodies[int(number)], number, 1]).rowcount

    with ThreadPoolExecutor(8) as pool, bind("127.0.0.1", 0) as listener:

        @app.post("/claims/{number}/start")
        async def claim(number: str) -> Claimed:
            async with free:
                loop = asyncio.get_running_loop()
                assert await loop.run_in_executor(pool, write, number) == 1
            return Claimed(body=bodies[int(number)])

        async with serving(app, listener):
            url = base_url(listener)
            found = await hammer([(f"{url}/claims/{n}/start", "") for n in range(len(bodies))])
    connection.close()
    return found


def prepared(path: Path, bodies: Sequence[str]) -> sqlite3.Connection:
    """A database with a job for every body, as the documents keep them."""
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    connection.execute("create table jobs (id text primary key, revision int, body text)")
    connection.execute("begin")
    rows = [(f"{number}", 1, body) for number, body in enumerate(bodies)]
    connection.executemany("insert into jobs values (?, ?, ?)", rows)
    connection.execute("commit")
    return connection


def project_of(count: int) -> dict[str, str]:
    names = [f"x{number}" for number in range(count)]
    body = "".join(f"    {name} = Step().execute()\n" for name in names)
    return {
        "operations/step.py": OPERATION,
        "pipelines/wide.py": (
            f"from operations.step import Step\n\n\ndef wide():\n{body}    return x0\n"
        ),
    }
