"""What the journeys with SciServer share: a stand-in with users, and a server without patience."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from deepforge.plugins import Port
from deepforge.testing.sciserver import SciServer, running
from journeys.parts import Server, nothing_left, serving, states, view_of, wait_until
from shell import Result, Shell, WarmShell, write_project

USER, PASSWORD = "alice", "wonderland"
JOBS_AT_ONCE = 4
LONGEST_S = 40
TIDY_WITHIN_S = 10

OPERATIONS = {
    "make": """\
class Make:
    def __init__(self, mark: str, seconds: float):
        self.mark = mark
        self.seconds = seconds

    def execute(self):
        import time

        print("making", self.mark, flush=True)
        time.sleep(self.seconds)
        data = self.mark.encode() * 3000
        return data
""",
    "count": """\
class Count:
    def __init__(self, mark: str):
        self.mark = mark

    def execute(self, data):
        assert data == self.mark.encode() * 3000, "other bytes"
        size = len(data)
        return size
""",
}
PIPELINE = """\
from operations.count import Count
from operations.make import Make


def relay(mark: str = "x", seconds: float = 0.0):
    data = Make(mark=mark, seconds=seconds).execute()
    size = Count(mark=mark).execute(data)
    return size
"""


@dataclass(frozen=True)
class QuickShell(Shell):
    """Its servers have little patience."""

    def command(self, *arguments: str | Path) -> list[str]:
        program = Path(__file__).with_name("quick_deepforge.py")
        return [sys.executable, str(program), *map(str, arguments)]


@dataclass
class Lab:
    """A stand-in, and a server that has the storage `sky` and the compute `sci` there, as alice."""

    site: SciServer
    server: Server
    shell: Shell
    """The one whose home the server has."""
    project: Path
    marks: int = 0

    def add(
        self,
        port: Port,
        name: str,
        *options: str,
        user: str = USER,
        secret: tuple[str, str] = ("password", PASSWORD),
    ) -> None:
        """Add a storage or a compute of a user, with a password or a token."""
        kind, value = secret
        python = ("--python", sys.executable) if port == "compute" else ()
        account = ("--site", self.site.url, "--username", user, f"--{kind}", "-", *python)
        self.server.client(port, "add", "sciserver", name, *account, *options, input=value.encode())

    def run(self, compute: str, *, code: int = 0, seconds: float = 0.0) -> Ran:
        """Run the pipeline to its end: make some bytes, and count them in a second job."""
        told = self._run(compute, seconds, "--json", code=code)
        return Ran(self.view(told.json["execution"]), told.err)

    def begin(self, compute: str, *, seconds: float = 0.0, storage: str = "sky") -> str:
        """Only begin it; return the id of the execution."""
        return self._run(compute, seconds, "--detach", storage=storage).out.strip()

    def ended(self, execution: str) -> Ran:
        """Wait for the end of what was begun."""
        return Ran(
            wait_until(
                lambda: (view := self.view(execution))["status"] != "running" and view,
                within_s=LONGEST_S,
            )
        )

    def view(self, execution: str) -> dict[str, Any]:
        return view_of(self.server.client, execution)

    def labels(self, execution: str) -> list[str]:
        """What the jobs are called that SciServer got for an execution."""
        jobs = list(self.site.jobs.by_id.values())
        return sorted(one.label for one in jobs if execution in one.label)

    def nothing_is_left(self) -> None:
        """No half upload and no folder of a job lies about, once all is tidied up."""
        places = (
            ("Storage", "deepforge_data", ".deepforge/parts"),
            ("Temporary", "scratch", "deepforge"),
        )
        for pool, name, path in places:
            volume = self.site.state.volume(pool, USER, name)
            if volume is None:
                continue
            wait_until(partial(_is_empty, volume.folder / path), within_s=TIDY_WITHIN_S)

    def _run(
        self, compute: str, seconds: float, *options: str, storage: str = "sky", code: int = 0
    ) -> Result:
        self.marks += 1  # nothing of an earlier run is taken over
        chosen = ("--set", f"mark=m{self.marks:03}", "--set", f"seconds={seconds}")
        places = ("--storage", storage, "--compute", compute)
        return self.server.client(
            "run", self.project, *chosen, *places, *options, code=code, timeout_s=LONGEST_S
        )


@dataclass
class Ran:
    """An execution that has ended, and what was told of it."""

    view: dict[str, Any]
    err: str = ""

    @property
    def execution(self) -> str:
        return str(self.view["id"])

    @property
    def attempts(self) -> dict[str, int]:
        return {job["name"]: job["attempts"] for job in self.view["jobs"]}

    @property
    def states(self) -> dict[str, str]:
        return states(self.view)


@pytest.fixture(scope="module")
def lab(warm_shell: WarmShell, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One for all journeys of a file: starting it takes longer than most of them."""
    with lab_running(tmp_path_factory.mktemp("lab"), warm_shell) as running_lab:
        yield running_lab


@contextmanager
def lab_running(folder: Path, warm_shell: WarmShell) -> Iterator[Lab]:
    """Everything of it is in `folder`. Fails at the end if a log holds a password or a token."""
    (folder / "here").mkdir()
    shell = QuickShell(folder / "home", folder / "here", warm_shell)
    with running(folder / "sciserver", tick_s=0.02) as site, serving(shell) as server:
        site.users.add_user(USER, PASSWORD)
        for domain in site.state.domains:
            domain.jobs_per_user = JOBS_AT_ONCE
        lab = Lab(site, server, shell, _project(folder))
        lab.add("storage", "sky")
        lab.add("compute", "sci")
        yield lab
        tells_no_secret(lab, folder)
    nothing_left(shell.home)


def tells_no_secret(lab: Lab, folder: Path) -> None:
    """Neither passwords nor tokens are in a log of ours, in the database or in the volumes."""
    secrets = [PASSWORD.encode(), *(one.encode() for one in lab.site.users.tokens)]
    for path in (file for file in folder.rglob("*") if file.is_file()):
        content = path.read_bytes()
        assert not any(one in content for one in secrets), path


def _is_empty(folder: Path) -> bool:
    return not folder.exists() or not list(folder.iterdir())


def _project(folder: Path) -> Path:
    files = {f"operations/{name}.py": text for name, text in OPERATIONS.items()}
    return write_project(folder / "project", {**files, "pipelines/relay.py": PIPELINE})
