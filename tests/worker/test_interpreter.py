"""An interpreter chosen with `--python` that is not there, or breaks: clear ends, and no loop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.far_side import FarSide, until
from worker.fake_server import FakeServer
from worker.programs import Running, Workers, handed

QUICK = "class Op:\n    def execute(self): return 1\n"


class Interpreter:
    """A Python that counts how often it is started, and can vanish or break."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "venv" / "python"
        self._starts = folder / "starts"
        self.path.parent.mkdir()
        self._starts.touch()
        self._write(f'exec {sys.executable} "$@"')

    def vanish(self) -> None:
        self.path.unlink()

    def die_at_start(self) -> None:
        self._write("echo a library is missing >&2\nexit 3")

    def die_slowly(self) -> None:
        self._write("sleep 0.2\nexit 3")

    @property
    def starts(self) -> int:
        return len(self._starts.read_text())

    def _write(self, ends_with: str) -> None:
        script = f"#!/bin/sh\nprintf x >> {self._starts}\n{ends_with}\n"
        new = self.path.with_name("new")
        new.write_text(script)
        new.chmod(0o755)
        new.rename(self.path)


@pytest.fixture
def interpreter(tmp_path: Path) -> Interpreter:
    return Interpreter(tmp_path)


FORK_RUNNER = """
import os, sys, time
from deepforge.worker.starter import _fork_runner
names = ("START", "PYTHON", "CACHE")
values = ("fork", "/nowhere/python", sys.argv[1])
settings = {"DEEPFORGE_RUNNER_" + name: value for name, value in zip(names, values)}
pid, writer = _fork_runner(settings)
time.sleep(0.7)
print(os.waitpid(pid, os.WNOHANG)[0])
os.close(writer)
os.waitpid(pid, 0)
"""


def starter_of(worker: Running) -> int:
    """The pid of the process that starts the worker's jobs."""
    for entry in Path("/proc").iterdir():
        try:
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            if (
                int(parent) == worker.process.pid
                and b"starter-" in (entry / "cmdline").read_bytes()
            ):
                return int(entry.name)
        except (OSError, ValueError, IndexError):
            continue
    raise AssertionError("the worker has no starter")


def failure_of(server: FakeServer, far: FarSide, hash: str) -> str:
    """What is said of why a job failed: in its result, or else by the worker."""
    until(lambda: server.status(hash), within_s=60)
    assert "FAILED_TO_EXECUTE" == server.status(hash), server.updates[hash]
    result = far.store / "result.json"
    said = result.read_text() if result.exists() else ""
    return said + str(server.updates[hash][-1]["deepforge"].get("message"))


def test_a_missing_interpreter_is_said_when_the_worker_starts(
    workers: Workers, server: FakeServer, interpreter: Interpreter
) -> None:
    interpreter.vanish()
    worker = workers(server, "--python", str(interpreter.path))

    assert worker.process.wait(20) != 0
    assert f"{interpreter.path} cannot be started: No such file" in worker.said
    assert "--python" in worker.said


def test_an_interpreter_that_dies_at_start_is_said_when_the_worker_starts(
    workers: Workers, server: FakeServer, interpreter: Interpreter
) -> None:
    interpreter.die_at_start()
    worker = workers(server, "--python", str(interpreter.path))

    assert worker.process.wait(20) != 0
    assert (
        f"{interpreter.path} cannot be started: it ended at once, with exit code 3" in worker.said
    )
    assert "a library is missing" in worker.said
    assert "--python" in worker.said
    assert 1 == interpreter.starts


@pytest.mark.parametrize(
    "breaks", [Interpreter.vanish, Interpreter.die_at_start, Interpreter.die_slowly]
)
@pytest.mark.parametrize("is_starter_killed", [False, True])
def test_jobs_fail_clearly_when_the_interpreter_breaks_later(
    workers: Workers,
    server: FakeServer,
    interpreter: Interpreter,
    tmp_path: Path,
    breaks: Callable[[Interpreter], None],
    is_starter_killed: bool,
) -> None:
    """What was started before may still do; whatever needs a new start fails and says why."""
    worker = workers(server, "--python", str(interpreter.path), "--jobs", "1")
    until(lambda: len(server.polls) > 1)
    breaks(interpreter)
    if is_starter_killed:
        os.kill(starter_of(worker), signal.SIGKILL)
    told = []
    for number in range(4):
        far = FarSide(tmp_path / f"far{number}")
        server.offer(f"job{number}", handed(far.job(QUICK)))
        until(lambda hash=f"job{number}": server.status(hash), within_s=60)  # type: ignore[misc]
        if server.status(f"job{number}") != "SUCCESS":
            told.append(failure_of(server, far, f"job{number}"))

    assert len(told) >= 3
    assert [str(interpreter.path) in one for one in told] == [True] * len(told), told
    starts = interpreter.starts
    assert starts < 20
    time.sleep(0.5)  # a loop of forks would go on
    assert interpreter.starts - starts < 4
    assert {1} == {len(updates) for updates in server.updates.values()}
    until(lambda: not worker.job_folders)
    assert worker.process.poll() is None


def test_a_worker_goes_on_when_its_interpreter_is_there_again(
    workers: Workers, server: FakeServer, interpreter: Interpreter, tmp_path: Path
) -> None:
    worker = workers(server, "--python", str(interpreter.path), "--jobs", "1")
    until(lambda: len(server.polls) > 1)
    kept = interpreter.path.read_text()
    interpreter.die_at_start()
    os.kill(starter_of(worker), signal.SIGKILL)
    far = FarSide(tmp_path / "one")
    server.offer("aa", handed(far.job(QUICK)))
    assert str(interpreter.path) in failure_of(server, far, "aa")
    interpreter.path.write_text(kept)
    server.offer("bb", handed(FarSide(tmp_path / "two").job(QUICK)))
    until(lambda: server.status("bb"), within_s=60)

    assert "SUCCESS" == server.status("bb")


def test_a_spare_runner_without_an_interpreter_waits_for_its_job_to_tell(tmp_path: Path) -> None:
    """An order that came while it gave up would be lost with it."""
    done = subprocess.run(
        [sys.executable, "-c", FORK_RUNNER, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert "0" == done.stdout.strip(), done.stderr
