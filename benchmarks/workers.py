"""What does the queue of workers bear: 500 that wait for answers, 20,000 jobs that take no time?

Three measurements on one server in a process of its own, over real connections, `synchronous=FULL`:
how many jobs a second go out and come back; how long one job takes from being queued until a waiting
worker has it, with 500 waiting; and the same crowd while the server is killed with -9 and started again.
Jobs are never handed out twice, and every one of them ends, or is known as lost.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import clean_environment, table

WORKERS, SMALL_WORKERS = 500, 50
JOBS, SMALL_JOBS = 20_000, 1_000
TRICKLE_JOBS, TRICKLE_EVERY_S = 500, 0.01
WITHIN_S = 600.0

HERE = Path(__file__).parent


class Program:
    """A process that is asked with a line and answers with one."""

    def __init__(self, *command: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=clean_environment(PYTHONPATH=str(HERE.parent)),
            text=True,
        )

    def ask(self, line: str) -> Any:  # JSON
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self.read()

    def read(self) -> Any:  # JSON
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def running(*command: object) -> Iterator[Program]:
    program = Program(*command)
    try:
        yield program
    finally:
        program.kill()


def main(rounds: int, *, small: bool) -> None:
    workers = SMALL_WORKERS if small else WORKERS
    count = SMALL_JOBS if small else JOBS
    found = measure(workers, count)
    table(
        f"Workers: {workers} wait for answers, {count} jobs, synchronous=FULL",
        ["", ""],
        [[name, value] for name, value in found.items()],
    )


def measure(workers: int, count: int) -> dict[str, str]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        server = Program(HERE / "queue_server.py", Path(folder, "home"), 0)
        try:
            url = server.read()["url"]
            queued = server.ask(json.dumps({"queue": count}))
            before = server.ask('{"tell": true}')
            with running(HERE / "crowd.py", url, workers) as crowd:
                drained_s = drain(crowd, count)
                after = server.ask('{"tell": true}')
                crowd.ask("forget")
                server.ask(json.dumps({"queue": TRICKLE_JOBS, "every_s": TRICKLE_EVERY_S}))
                drain(crowd, count + TRICKLE_JOBS)
                waiting = crowd.ask("tell")
                server.ask(json.dumps({"queue": count}))
                server, killed = kill_in_the_middle(server, crowd, url, folder, count)
        finally:
            server.kill()
    return {
        "jobs queued a second": f"{count / queued['seconds']:.0f}",
        "jobs a second, handed out and reported": f"{count / drained_s:.0f}",
        "from queued to a waiting worker, p50": f"{waiting['p50_s'] * 1000:.1f} ms",
        "from queued to a waiting worker, p99": f"{waiting['p99_s'] * 1000:.1f} ms",
        "writes of the database for each job": f"{1 + (after['writes'] - before['writes']) / count:.2f}",
        "memory of the server at its peak": f"{after['memory_bytes'] / 1e6:.0f} MB",
        "jobs handed out twice, the server killed meanwhile": str(killed["twice"]),
        "jobs known as lost, the server killed meanwhile": str(killed["lost"]),
        "jobs nobody knows of, the server killed meanwhile": str(killed["unknown"]),
    }


def drain(crowd: Program, count: int) -> float:
    """Wait until that many are done; return how long that took."""
    began = time.perf_counter()
    while crowd.ask("tell")["done"] < count:
        if time.perf_counter() - began > WITHIN_S:
            raise RuntimeError(f"not done: {crowd.ask('tell')}")
        time.sleep(0.05)
    return time.perf_counter() - began


def kill_in_the_middle(
    server: Program, crowd: Program, url: str, folder: str, count: int
) -> tuple[Program, dict[str, int]]:
    """Kill the server while half of the jobs are out, start it again, and see all of them end."""
    before = crowd.ask("tell")["done"]
    while crowd.ask("tell")["done"] < before + count // 2:
        time.sleep(0.02)
    server.kill()
    again = Program(HERE / "queue_server.py", Path(folder, "home"), url.rpartition(":")[2])
    again.read()
    began = time.perf_counter()
    while True:
        states = again.ask('{"tell": true}')["states"]
        if not states.get("CREATED") and not states.get("RUNNING"):
            break
        if time.perf_counter() - began > WITHIN_S:
            raise RuntimeError(f"not done: {states}")
        time.sleep(1)
    ended = states.get("SUCCESS", 0) + states.get("LOST", 0)
    return again, {
        "twice": crowd.ask("tell")["twice"],
        "lost": states.get("LOST", 0),
        "unknown": 2 * count + TRICKLE_JOBS - ended,
    }
