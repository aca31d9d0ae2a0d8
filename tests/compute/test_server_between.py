"""One process runs many jobs in turn: the next sees nothing of the last.

The first tests have a stand-in for the runner, which misbehaves; the process is forked from a fresh
interpreter, as the supervisor does. The later ones run real jobs of the real runner.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from compute.supervised import (
    OpenServer,
    ended,
    log_of,
    processes_of,
    supervisor_pid,
    wait_for,
    wait_gone,
)
from deepforge.compute.port import PYTHON, JobHandle, JobReport, JobRequest, Resources
from deepforge.compute.server import processes
from deepforge.compute.server.folder import Folder, JobFolder, Recorded
from deepforge.runner.protocol import to_json
from deepforge.testing.compute import new_key, python
from runner.far_side import FarSide

_PARENT = """
import json, os, select, signal, sys, threading, time
from deepforge.compute.server import launch
from deepforge.compute.server.launch import FirstProcess, News, Start
{setup}
def state():
    me = f"/proc/self/task/{{os.getpid()}}/children"
    files = [f"/proc/self/fd/{{number}}" for number in os.listdir("/proc/self/fd")]
    return {{
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "argv": sys.argv,
        "path": sys.path,
        "umask": [os.umask(0o022), os.umask(0o022)][0],
        "threads": threading.active_count(),
        "handlers": [str(signal.getsignal(number)) for number in (15, 2, 1, 17)],
        "mask": sorted(signal.pthread_sigmask(0, ())),
        "wakeup": signal.set_wakeup_fd(-1),
        "children": open(me).read(),
        "open": {{one: os.path.realpath(one) for one in files if os.path.exists(one)}},
    }}
def runner(arguments, handed, settings, helper, client):
    print(json.dumps([settings, state()]))
    {misbehave}
    return 7
news = News()
process = FirstProcess(runner, news)
for number, folder in enumerate(sys.argv[1:], 1):
    words = ["python", "runner.pyz", f"job-{{number}}.json"]
    environment = {{f"OF_{{number}}": "x", "A": folder}}
    try:
        process.start(Start(f"job-{{number}}", folder, words, environment, True))
    except BrokenPipeError:
        break
    ready, _, _ = select.select([news.reader, os.pidfd_open(process.pid)], [], [], 20)
    assert ready
    heard = news.read()
    assert heard in ([], [(process.pid, f"job-{{number}}", 7)]), heard
    print("waits" if heard else "ended", flush=True)
    if not heard:
        break
process.dismiss()
print(os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1]))
"""


def run_two(folder: Path, misbehave: str, *, setup: str = "") -> tuple[list[str], list[JobFolder]]:
    """Hand two jobs to one process whose runner misbehaves; return what the parent saw."""
    jobs = [JobFolder(folder / "job-1"), JobFolder(folder / "job-2")]
    for job in jobs:
        job.root.mkdir()
        job.begin_record({})
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            _PARENT.format(misbehave=misbehave, setup=setup),
            *(str(job.root) for job in jobs),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), jobs


@pytest.mark.parametrize(
    "misbehave",
    [
        "pass",
        "os.environ['SECRET'] = 'of the first'; del os.environ['PATH']; os.environ['A'] = 'other'",
        "os.mkdir('below'); os.chdir('below')",
        "sys.argv.append('more'); sys.path.insert(0, '/elsewhere')",
        "os.umask(0o177)",
        "for n in (15, 2, 1, 17): signal.signal(n, lambda *_: None)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, [10, 12, 15])",
        "r, w = os.pipe(); os.set_blocking(w, False); signal.set_wakeup_fd(w); "
        "os.close(r); os.close(w)",
        "sys.stdout.write('not flushed'); sys.stderr.write('nor this')",
        "thread = threading.Thread(target=print, args=('hello',)); thread.start(); thread.join()",
        "with open('file', 'w') as file: file.write('x')",
    ],
)
def test_the_next_job_sees_nothing_of_the_last(tmp_path: Path, misbehave: str) -> None:
    said, jobs = run_two(tmp_path, misbehave)
    assert said == ["waits", "waits", "7"]
    records = [_record(job) for job in jobs]
    assert [one.exit for one in records] == [{"code": 7}] * 2
    assert records[0].process == records[1].process
    first, second = (_first_line(job) for job in jobs)
    of_first = json.dumps(first).replace("job-1", "job-2").replace("OF_1", "OF_2")
    assert json.loads(of_first) == second


@pytest.mark.parametrize(
    "misbehave",
    [
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
        "os.open('file', os.O_CREAT | os.O_WRONLY)",
        "os.fork() or time.sleep(600)",
        "os.fork() or os._exit(0)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, [15]); os.kill(os.getpid(), 15)",
        "sys.stdout.close()",
    ],
)
def test_a_process_that_cannot_be_put_back_ends_with_its_job(
    tmp_path: Path, misbehave: str
) -> None:
    said, jobs = run_two(tmp_path, misbehave)
    assert said == ["ended", "7"]
    assert _record(jobs[0]).exit == {"code": 7}
    process = _record(jobs[0]).process
    assert process is not None
    assert processes.look(process.pid) is None
    assert _record(jobs[1]).process is None
    assert not jobs[1].log.exists()


@pytest.mark.parametrize(
    ("path", "read_bytes", "connections"),
    [("/", 50_000, 1), ("/", 100, 2), ("/hangs-up", 50_000, 2)],
    ids=["idle", "read in half", "closed by the server"],
)
def test_only_an_idle_connection_to_the_server_stays_open(
    tmp_path: Path, path: str, read_bytes: int, connections: int
) -> None:
    with counting_server() as (port, seen):
        url = f"http://127.0.0.1:{port}{path}"
        said, _ = run_two(tmp_path, f"client.send('GET', '{url}').read({read_bytes})")
    assert said == ["waits", "waits", "7"]
    assert len(seen) == connections


@contextmanager
def counting_server() -> Iterator[tuple[int, set[object]]]:
    """An HTTP server that keeps connections alive; gives its port and who connected."""
    seen: set[object] = set()

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            seen.add(self.client_address)
            self.send_response(200)
            self.send_header("Content-Length", "20000")
            if self.path == "/hangs-up":
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"x" * 20000)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], seen
        finally:
            server.shutdown()
            thread.join()


def _record(job: JobFolder) -> Recorded:
    recorded = job.read()
    assert recorded is not None
    return recorded


def _first_line(job: JobFolder) -> Any:
    return json.loads(job.log.read_text().splitlines()[0])


def test_a_process_does_not_stay_for_ever(tmp_path: Path) -> None:
    said, _ = run_two(tmp_path, "pass", setup="launch.MOST_JOBS = 1")
    assert said == ["ended", "7"]


# -- real jobs -----------------------------------------------------------------------------

SAYS = """
import os, sys
class Op:
    def execute(self):
        forked = "deepforge.runner.warm" in sys.modules
        parent = os.getppid()
        if forked:  # the runner is the parent of the helper
            with open("/proc/%d/stat" % parent) as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
        return parent, forked, {k: v for k, v in os.environ.items() if k.startswith("DEEP")}
"""

WAITS = """
import os, time
class Op:
    def execute(self):
        print("up", flush=True)
        while not os.path.exists("../go"):
            time.sleep(0.01)
"""


class Jobs:
    """Makes requests for real jobs, each with a storage of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.far: dict[str, FarSide] = {}

    def request(self, source: str, **more: Any) -> JobRequest:
        key = new_key()
        self.far[key] = far = FarSide(self.folder / key)
        files = {"job.json": to_json(far.job(source))}
        return JobRequest(key, (PYTHON, "runner.pyz", "job.json"), files, **more)

    def output(self, handle: JobHandle) -> Any:
        far = self.far[str(handle["key"])]
        data = (far.store / "outputs" / "result").read_bytes()
        import pickle

        return pickle.loads(data)


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path / "far")


async def test_jobs_share_a_process_and_none_of_its_settings(
    open_server: OpenServer, server_folder: Path, jobs: Jobs
) -> None:
    found = []
    async with open_server() as warm, open_server(start="fresh", cache_bytes=5) as fresh:
        for compute in (warm, warm, fresh, fresh):
            handle = await compute.submit(jobs.request(SAYS))
            assert await ended(compute, handle) == JobReport("exited", 0, "normal")
            assert await log_of(compute, handle) == b""
            found.append(jobs.output(handle))
            assert _pid(server_folder, handle) == found[-1][0]
    assert len({pid for pid, _, _ in found[:3]}) == 1
    assert [forked for _, forked, _ in found] == [True, True, False, False]
    assert [environment for _, _, environment in found] == [{}] * 4


async def test_a_command_finds_nothing_of_the_job_before(
    open_server: OpenServer, server_folder: Path, jobs: Jobs
) -> None:
    code = "import os; print(os.getcwd(), sorted(os.environ), os.listdir('/proc/self/fd'))"
    logs = []
    async with open_server(slots=1) as compute:
        for request in (python(code), jobs.request(SAYS), python(code)):
            handle = await compute.submit(request)
            assert (await ended(compute, handle)).exit_code == 0
            logs.append((await log_of(compute, handle)).decode().replace(request.key, ""))
            await compute.release(handle)
    assert logs[0] == logs[2] != ""


async def test_a_process_that_waits_is_in_no_jobs_folder_and_holds_no_file_of_it(
    open_server: OpenServer, server_folder: Path, jobs: Jobs
) -> None:
    async with open_server() as compute:
        handle = await compute.submit(jobs.request(SAYS))
        await ended(compute, handle)
        me = Path(f"/proc/{_pid(server_folder, handle)}")
        places = [(me / "cwd").readlink(), *(one.readlink() for one in (me / "fd").iterdir())]
        assert not [one for one in places if one.is_relative_to(server_folder / "jobs")]


@pytest.mark.parametrize("by", ["cancel", "walltime"])
async def test_a_process_whose_job_was_asked_to_end_gets_no_other(
    open_server: OpenServer, server_folder: Path, jobs: Jobs, by: str
) -> None:
    """A signal that comes late would end a job it was not meant for."""
    limit = Resources(walltime_s=1.0 if by == "walltime" else None)
    async with open_server(slots=1) as compute:
        handle = await compute.submit(jobs.request(WAITS, resources=limit))
        after = await compute.submit(jobs.request(SAYS))
        await log_of(compute, handle, until=b"up")
        pid = _pid(server_folder, handle)
        if by == "cancel":
            await compute.cancel([handle])
        report = await ended(compute, handle)
        assert (report.state, report.reason) in [("cancelled", None), ("exited", "walltime")]
        assert await ended(compute, after) == JobReport("exited", 0, "normal")
        assert _pid(server_folder, after) != pid
        wait_gone(pid)


async def test_a_new_supervisor_tells_the_ended_jobs_of_a_process_from_the_running_one(
    open_server: OpenServer, server_folder: Path, jobs: Jobs
) -> None:
    async with open_server(slots=1) as compute:
        over = await compute.submit(jobs.request(SAYS))
        await ended(compute, over)
        runs = await compute.submit(jobs.request(WAITS))
        await log_of(compute, runs, until=b"up")
        pid = _pid(server_folder, runs)
        assert _pid(server_folder, over) == pid
        _kill_supervisor(server_folder)
        states = [report.state for report in await compute.poll([over, runs])]
        assert states == ["exited", "running"]
        await compute.cancel([over])
        (server_folder / "jobs" / str(runs["key"]) / "go").touch()
        assert await ended(compute, runs) == JobReport("exited", 0, "normal")
        wait_gone(pid)


async def test_a_job_whose_supervisor_is_killed_ends_as_it_should_and_so_does_its_process(
    open_server: OpenServer, server_folder: Path, jobs: Jobs
) -> None:
    async with open_server(slots=1) as compute:
        handle = await compute.submit(jobs.request(WAITS))
        await log_of(compute, handle, until=b"up")
        _kill_supervisor(server_folder)
    (server_folder / "jobs" / str(handle["key"]) / "go").touch()
    wait_for(lambda: not processes_of(server_folder), "the process of the job has ended")
    recorded = Folder(server_folder).job(str(handle["key"])).read()
    assert recorded is not None
    assert recorded.exit == {"code": 0}
    async with open_server() as compute:
        assert await compute.poll([handle]) == [JobReport("exited", 0, "normal")]


async def test_each_job_runs_once_whoever_is_killed_meanwhile(
    open_server: OpenServer, server_folder: Path, jobs: Jobs, tmp_path: Path
) -> None:
    """Supervisors leave in the middle of everything; a job in a killed process is not run again."""
    ran = tmp_path / "ran"
    marks = f"""
class Op:
    def execute(self):
        with open({str(ran)!r}, "a") as file:
            file.write("x")
"""
    async with open_server() as compute:
        handles = []
        for number in range(16):
            handles.append(await compute.submit(jobs.request(marks)))
            if number % 3 == 2:
                _kill_supervisor(server_folder)
        for handle in handles:
            assert await ended(compute, handle) == JobReport("exited", 0, "normal")
    assert ran.read_text() == "x" * len(handles)


@pytest.mark.parametrize("when", ["while it waits", "within a job"])
async def test_a_killed_process_costs_its_own_job_at_most(
    open_server: OpenServer, server_folder: Path, jobs: Jobs, when: str
) -> None:
    async with open_server(slots=1) as compute:
        handle = await compute.submit(jobs.request(SAYS))
        await ended(compute, handle)
        pid = _pid(server_folder, handle)
        if when == "within a job":
            handle = await compute.submit(jobs.request(WAITS))
            await log_of(compute, handle, until=b"up")
            assert _pid(server_folder, handle) == pid
            os.kill(pid, signal.SIGKILL)
            assert await ended(compute, handle) == JobReport("exited", -9, "signal")
        else:
            os.kill(pid, signal.SIGKILL)
        handle = await compute.submit(jobs.request(SAYS))
        assert await ended(compute, handle) == JobReport("exited", 0, "normal")
        assert _pid(server_folder, handle) != pid


@pytest.mark.parametrize("start", ["warm", "fresh"])
async def test_operations_run_in_the_interpreter_that_was_chosen(
    open_server: OpenServer, tmp_path: Path, jobs: Jobs, start: str
) -> None:
    other = tmp_path / "my python"
    other.write_text(f'#!/bin/sh\nVIA_OTHER=1 exec {sys.executable} "$@"\n')
    other.chmod(0o755)
    source = "import os\nclass Op:\n    def execute(self): return os.environ['VIA_OTHER']\n"
    async with open_server(python=str(other), start=start) as compute:
        handle = await compute.submit(jobs.request(source))
        assert await ended(compute, handle) == JobReport("exited", 0, "normal")
        assert jobs.output(handle) == "1"


@pytest.mark.parametrize("start", ["warm", "fresh"])
async def test_an_interpreter_that_is_gone_fails_the_job(
    open_server: OpenServer, tmp_path: Path, jobs: Jobs, start: str
) -> None:
    """A first process that ended over it would leave the job waiting for ever."""
    other = tmp_path / "python"
    other.symlink_to(sys.executable)
    async with open_server(python=str(other), start=start) as compute:
        other.unlink()
        handle = await compute.submit(jobs.request(SAYS))
        assert await ended(compute, handle) == JobReport("exited", 1, "normal")
        assert "cannot be started by" in (await log_of(compute, handle)).decode()


async def test_no_more_processes_wait_than_there_are_slots(
    open_server: OpenServer, server_folder: Path, jobs: Jobs
) -> None:
    async with open_server(slots=3) as compute:
        handles = [await compute.submit(jobs.request(SAYS)) for _ in range(9)]
        for handle in handles:
            assert (await ended(compute, handle)).exit_code == 0
        assert len({_pid(server_folder, handle) for handle in handles}) <= 4
        wait_for(lambda: _first_processes(server_folder) <= 3, "three wait at most")
        async with open_server(slots=1) as narrow:
            await ended(narrow, await narrow.submit(jobs.request(SAYS)))
            wait_for(lambda: _first_processes(server_folder) <= 1, "one waits at most")


def _pid(folder: Path, handle: JobHandle) -> int:
    process = _record(Folder(folder).job(str(handle["key"]))).process
    assert process is not None
    return process.pid


def _kill_supervisor(folder: Path) -> None:
    pid = supervisor_pid(folder)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)


def _first_processes(folder: Path) -> int:
    """How many there are: neither the supervisor nor warm helpers and what waits in them."""
    found = processes_of(folder)
    supervisor = supervisor_pid(folder)
    return sum("runner.warm" not in one and pid != supervisor for pid, one in found.items())
