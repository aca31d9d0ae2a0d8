"""What journeys share: servers to kill, processes to look for, and projects that misbehave."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shell import Shell, write_project


@dataclass
class Server:
    """A running `deepforge start`, and a shell whose commands speak to it."""

    process: subprocess.Popen[bytes]
    url: str
    client: Shell

    def kill(self) -> None:
        """kill -9: nothing is finished, nothing is written."""
        self.process.kill()
        self.process.wait()


@contextmanager
def serving(shell: Shell, *, port: int = 0) -> Iterator[Server]:
    """Run a server on the shell's home until the block ends."""
    log = shell.home.with_name("server.log")
    with log.open("ab") as output:
        process = subprocess.Popen(
            shell.command("start", "--port", str(port)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            cwd=shell.folder,
            env=shell.environ(),
        )
    with process:
        try:
            assert process.stdout is not None
            found = re.search(rb"http://\S+", process.stdout.readline())
            assert found is not None, log.read_text()
            url = found[0].decode()
            client = replace(
                shell,
                home=shell.home.with_name("no-home"),
                environment={"DEEPFORGE_URL": url},
            )
            yield Server(process, url, client)
        finally:
            process.kill()


@contextmanager
def working(shell: Shell, url: str, *, name: str = "worker") -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker until the block ends. All of one shell and name are the same worker."""
    with (shell.folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            shell.command("worker", "--url", url, "--folder", shell.folder / name),
            stdin=subprocess.DEVNULL,
            stderr=log,
            env=shell.environ(),
        )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(reached: Callable[[], Any], *, within_s: float = 60) -> Any:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + within_s
    while not (answer := reached()):
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.02)
    return answer


def view_of(shell: Shell, execution: str) -> dict[str, Any]:
    view: dict[str, Any] = shell("executions", "show", execution, "--json").json
    return view


def states(view: Mapping[str, Any]) -> dict[str, str]:
    return {job["name"]: job["status"] for job in view["jobs"]}


def processes_of(home: Path) -> dict[int, str]:
    """Living processes that belong to a home: their command, environment or folder says so."""
    text, found = os.fsencode(home), {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            mentioned = text in command or text in (entry / "environ").read_bytes()
            if mentioned or text in os.fsencode((entry / "cwd").readlink()):
                found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended, or is somebody else's
            continue
    return found


def supervisors(home: Path) -> list[int]:
    """Pids of the supervisors that hold the lock of a compute's folder."""
    pids = []
    for lock in home.glob("computes/*/lock"):
        text = lock.read_text().strip()
        if text.isdecimal() and int(text) in processes_of(home):
            pids.append(int(text))
    return pids


def nothing_left(home: Path) -> None:
    """Stop the supervisors of a home. Fails unless everything else there ends by itself."""
    for pid in supervisors(home):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 10
    while left := processes_of(home):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)


def steps_project(folder: Path, count: int, body: str, *, chained: bool = False) -> Path:
    """A project of `count` operations with this body of `execute`; `n` and `folder` are at hand."""
    operation = (
        "import os\nimport signal\nimport sys\nimport time\nfrom pathlib import Path\n\n\n"
        "class Step:\n    def __init__(self, n: int):\n        self.n = n\n\n"
        "    def execute(self, before=None):\n"
        f"        n, folder = self.n, Path({str(folder)!r})\n"
        + "".join(f"        {line}\n" for line in body.strip().splitlines())
        + "        value = n\n        return value\n"
    )
    names = [f"v{number}" for number in range(count)]
    calls = []
    for number, name in enumerate(names):
        before = names[number - 1] if chained and number else ""
        calls.append(f"    {name} = Step({number}).execute({before})\n")
    pipeline = (
        "from operations.step import Step\n\n\ndef steps():\n"
        + "".join(calls)
        + f"    return {', '.join(names)}\n"
    )
    folder.mkdir(parents=True, exist_ok=True)
    return write_project(
        folder / "project",
        {"operations/step.py": operation, "pipelines/steps.py": pipeline},
        name="steps",
    )
