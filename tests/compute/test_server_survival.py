"""Server Compute on bad days: whoever is killed, no job is lost and none is started twice."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from compute.supervised import (
    OpenServer,
    QuickServerCompute,
    ended,
    log_of,
    processes_of,
    running,
    supervisor_pid,
    wait_for,
    wait_gone,
)
from deepforge.compute.port import PYTHON, Host, JobReport, JobRequest, Resources
from deepforge.compute.server import link, processes, wire
from deepforge.compute.server.adapter import ServerSettings
from deepforge.compute.server.folder import NOBODY, Folder, Process
from deepforge.testing.compute import new_key, python

SLEEP = "import time; time.sleep(600)"


def kill_supervisor(folder: Path) -> None:
    pid = supervisor_pid(folder)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)


def write_job(folder: Path, key: str, code: str, **said: object) -> None:
    """Leave a job on the disk as a supervisor that died would have left it."""
    store = Folder(folder)
    store.make()
    job = store.job(key)
    job.root.mkdir()
    request = {
        "command": [sys.executable, "-c", code],
        "is_runner": False,
        "environment": {},
        "walltime_s": None,
        "grace_s": 1.0,
        "labels": {},
        "submitted_ns": time.time_ns(),
        "urgent": False,
    }
    job.begin_record({**request, **said})


# -- the supervisor is killed --------------------------------------------------------------


async def test_running_jobs_outlive_their_supervisor(
    open_server: OpenServer, server_folder: Path
) -> None:
    go = server_folder.parent / "go"
    code = (
        "import os, sys, time\n"
        "print('up')\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
        "sys.exit(7)"
    )
    async with open_server() as compute:
        handle = await compute.submit(python(code))
        await log_of(compute, handle, until=b"up")
        kill_supervisor(server_folder)
        assert (await compute.poll([handle]))[0].state == "running"
        go.touch()
        assert await ended(compute, handle) == JobReport("exited", 7, "normal")
        assert await log_of(compute, handle) == b"up\n"


async def test_a_job_that_ended_while_nobody_watched_is_reported(
    open_server: OpenServer, server_folder: Path
) -> None:
    async with open_server() as compute:
        codes = {
            "raise SystemExit(5)": JobReport("exited", 5, "normal"),
            "import os; os.kill(os.getpid(), 9)": JobReport("exited", -9, "signal"),
        }
        handles = [
            await compute.submit(python(f"import time; time.sleep(0.3); {code}")) for code in codes
        ]
        for handle in handles:
            await running(compute, handle)
        kill_supervisor(server_folder)
    wait_for(lambda: not processes_of(server_folder), "the jobs have ended")
    async with open_server() as compute:
        assert await compute.poll(handles) == list(codes.values())


async def test_the_queue_goes_on_in_order_after_the_supervisor_was_killed(
    open_server: OpenServer, server_folder: Path
) -> None:
    async with open_server(slots=1) as compute:
        code = "import time; print(time.time()); time.sleep(0.05)"
        handles = [await compute.submit(python(code)) for _ in range(5)]
        kill_supervisor(server_folder)
        assert (await compute.poll(handles[-1:]))[0].state == "queued"
        for handle in handles:
            assert (await ended(compute, handle)).exit_code == 0
        starts = [float(await log_of(compute, handle)) for handle in handles]
        assert starts == sorted(starts)


async def test_killing_the_supervisor_again_and_again_starts_nothing_twice(
    open_server: OpenServer, server_folder: Path
) -> None:
    async with open_server() as compute:
        handles = []
        for number in range(12):
            handles.append(await compute.submit(python("import os; print(os.getpid())")))
            if number % 2:
                kill_supervisor(server_folder)
        for handle in handles:
            assert await ended(compute, handle) == JobReport("exited", 0, "normal")
            assert len((await log_of(compute, handle)).split()) == 1


async def test_a_cancel_is_carried_out_though_the_supervisor_dies(
    open_server: OpenServer, server_folder: Path
) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(600)"
    async with open_server() as compute:
        handle = await compute.submit(python(code))
        await log_of(compute, handle, until=b"up")
        await compute.cancel([handle])
        kill_supervisor(server_folder)
        assert (await ended(compute, handle)).state == "cancelled"


async def test_a_time_limit_holds_though_the_supervisor_dies(
    open_server: OpenServer, server_folder: Path
) -> None:
    async with open_server() as compute:
        request = python(SLEEP, resources=Resources(walltime_s=0.6))
        handle = await compute.submit(request)
        await running(compute, handle)
        kill_supervisor(server_folder)
        assert (await ended(compute, handle)).reason == "walltime"


async def test_a_killed_first_process_takes_the_job_with_it(
    open_server: OpenServer, server_folder: Path
) -> None:
    code = "import os, time; os.kill(os.getppid(), 9); time.sleep(600)"
    async with open_server() as compute:
        handle = await compute.submit(python(code))
        assert await ended(compute, handle) == JobReport("exited", -9, "signal")
        wait_for(lambda: not _jobs_of(server_folder), "the job is gone")


async def test_all_killed_at_once_is_a_node_failure_and_no_second_start(
    open_server: OpenServer, server_folder: Path
) -> None:
    async with open_server() as compute:
        handle = await compute.submit(python("print('ran', flush=True); " + SLEEP))
        await log_of(compute, handle, until=b"ran")
        recorded = Folder(server_folder).job(str(handle["key"])).read()
        assert recorded is not None
        assert recorded.process is not None
        kill_supervisor(server_folder)
        os.kill(recorded.process.pid, signal.SIGKILL)
        report = await ended(compute, handle)
        assert (report.state, report.exit_code, report.reason) == ("exited", None, "node_failure")
        assert report.message is not None
        wait_for(lambda: not _jobs_of(server_folder), "what was left of the job is ended")
        assert await log_of(compute, handle) == b"ran\n"


def _jobs_of(folder: Path) -> list[str]:
    return [one for one in processes_of(folder).values() if "supervisor" not in one]


# -- what is found on the disk -------------------------------------------------------------


async def test_a_job_nobody_started_is_started(
    open_server: OpenServer, server_folder: Path
) -> None:
    write_job(server_folder, "left-1", "raise SystemExit(4)")
    async with open_server() as compute:
        assert (await ended(compute, {"key": "left-1"})).exit_code == 4


async def test_a_job_of_an_earlier_boot_is_a_node_failure(
    open_server: OpenServer, server_folder: Path
) -> None:
    """Though a process with that pid and start time lives: this one."""
    write_job(server_folder, "left-1", "print('ran')")
    started = processes.start_time(os.getpid())
    assert started is not None
    job = Folder(server_folder).job("left-1")
    assert job.claim(Process(os.getpid(), started, "another boot"), time.time())
    async with open_server() as compute:
        report = await ended(compute, {"key": "left-1"})
        assert (report.state, report.reason) == ("exited", "node_failure")
        assert await log_of(compute, {"key": "left-1"}) == b""


async def test_a_pid_that_was_used_again_is_not_taken_for_the_job(
    open_server: OpenServer, server_folder: Path
) -> None:
    write_job(server_folder, "left-1", "print('ran')")
    job = Folder(server_folder).job("left-1")
    assert job.claim(Process(os.getpid(), 1, processes.boot_id()), time.time())
    async with open_server() as compute:
        assert (await ended(compute, {"key": "left-1"})).reason == "node_failure"


async def test_a_job_cancelled_before_it_started_stays_cancelled(
    open_server: OpenServer, server_folder: Path
) -> None:
    write_job(server_folder, "left-1", "print('ran')")
    assert Folder(server_folder).job("left-1").claim(NOBODY, 0.0)
    async with open_server() as compute:
        assert await compute.poll([{"key": "left-1"}]) == [JobReport("cancelled")]
        assert await log_of(compute, {"key": "left-1"}) == b""


async def test_an_odd_record_hides_no_other_job(
    open_server: OpenServer, server_folder: Path
) -> None:
    write_job(server_folder, "left-1", "raise SystemExit(4)")
    write_job(server_folder, "left-2", "print('ran')", walltime_s="soon")
    (Folder(server_folder).job("left-3").root).write_text("not even a folder")
    job = Folder(server_folder).job("left-2")
    assert job.claim(Process(os.getpid(), 1, processes.boot_id()), 0.0)
    async with open_server() as compute:
        assert (await ended(compute, {"key": "left-1"})).exit_code == 4
        reports = await compute.poll([{"key": "left-2"}, {"key": "left-3"}])
        assert reports == [JobReport("missing")] * 2


@pytest.mark.parametrize("cancel", [False, True])
async def test_a_process_that_was_quicker_than_ours_keeps_the_job(
    open_server: OpenServer, server_folder: Path, cancel: bool
) -> None:
    """The last act of a killed supervisor may be to start what the next one finds unstarted."""
    async with open_server(slots=1) as compute:
        first = await compute.submit(python(SLEEP))
        handle = await compute.submit(python("print('ran')"))
        job = Folder(server_folder).job(str(handle["key"]))
        with _python(SLEEP, server_folder) as quicker:
            started = processes.start_time(quicker.pid)
            assert started is not None
            assert job.claim(Process(quicker.pid, started, processes.boot_id()), time.time())
            if cancel:
                await compute.cancel([handle])
                await asyncio.to_thread(quicker.wait)
                assert (await ended(compute, handle)).state == "cancelled"
            await compute.cancel([first])
            await ended(compute, first)
            if not cancel:
                await running(compute, handle)
                await asyncio.sleep(0.2)
                assert (await compute.poll([handle]))[0].state == "running"
                quicker.kill()
                await asyncio.to_thread(quicker.wait)
                assert (await ended(compute, handle)).reason == "node_failure"
        assert b"ran" not in await log_of(compute, handle)


async def test_what_an_adapter_never_submitted_is_thrown_away(
    open_server: OpenServer, server_folder: Path
) -> None:
    store = Folder(server_folder)
    store.make()
    for name, age_s in (("old", 7200), ("new", 0)):
        (store.staging / name).mkdir()
        at = time.time() - age_s
        os.utime(store.staging / name, (at, at))
    async with open_server() as compute:
        await compute.check()
        assert [one.name for one in store.staging.iterdir()] == ["new"]
        assert list(store.trash.iterdir()) == []


async def test_a_folder_without_a_record_is_no_job_and_in_nobodys_way(
    open_server: OpenServer, server_folder: Path
) -> None:
    store = Folder(server_folder)
    store.make()
    store.job("left-1").root.mkdir()
    (store.job("left-1").root / "something").write_text("half a job")
    async with open_server() as compute:
        assert await compute.poll([{"key": "left-1"}]) == [JobReport("missing")]
        handle = await compute.submit(python("raise SystemExit(3)", key="left-1"))
        assert (await ended(compute, handle)).exit_code == 3


async def test_a_folder_somebody_removed_ends_the_job_and_not_the_supervisor(
    open_server: OpenServer, server_folder: Path
) -> None:
    code = "import os, shutil; shutil.rmtree(os.getcwd()); raise SystemExit(3)"
    async with open_server() as compute:
        handle = await compute.submit(python(code))
        report = await ended(compute, handle)
        assert report.state in ("exited", "missing")
        await compute.release(handle)
        await compute.check()


# -- the server is killed ------------------------------------------------------------------

_SERVER = """
import asyncio, json, sys
from contextlib import suppress
from pathlib import Path
from compute.supervised import QuickServerCompute
from deepforge.compute.port import Host
from deepforge.compute.server.adapter import ServerSettings
from deepforge.testing.compute import new_key, python

async def main():
    async with QuickServerCompute(ServerSettings(slots=1), Host(Path(sys.argv[1]))) as compute:
        handles = [
            await compute.submit(python(f"import time; print('ran'); time.sleep(0.3); exit({n})"))
            for n in range(3)
        ]
        print(json.dumps(handles), flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_jobs_of_a_killed_server_are_found_by_the_next(
    open_server: OpenServer, server_folder: Path
) -> None:
    with _python(_SERVER, server_folder) as server:
        assert server.stdout is not None
        try:
            handles = json.loads(await asyncio.to_thread(server.stdout.readline))
        finally:
            server.kill()
    async with open_server(slots=1) as compute:
        for number, handle in enumerate(handles):
            assert await ended(compute, handle) == JobReport("exited", number, "normal")
            assert await log_of(compute, handle) == b"ran\n"


_RACER = """
import asyncio, sys, time
from contextlib import suppress
from pathlib import Path
from compute.supervised import QuickServerCompute
from deepforge.compute.port import Host
from deepforge.compute.server.adapter import ServerSettings
from deepforge.testing.compute import new_key, python

async def main():
    async with QuickServerCompute(ServerSettings(slots=2), Host(Path(sys.argv[1]))) as compute:
        sys.stdin.read()
        for number in range(5):
            await compute.submit(python("print('ran')", key=f"race-{number}"))

asyncio.run(main())
"""


async def test_processes_that_race_share_one_supervisor_and_run_each_key_once(
    open_server: OpenServer, server_folder: Path
) -> None:
    racers = [_python(_RACER, server_folder) for _ in range(4)]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.close()  # they have waited for it
    for racer in racers:
        await asyncio.to_thread(racer.wait)
        assert racer.stdout is not None
        racer.stdout.close()
    assert [racer.returncode for racer in racers] == [0] * 4
    async with open_server() as compute:
        for number in range(5):
            handle = {"key": f"race-{number}"}
            assert (await ended(compute, handle)).exit_code == 0
            assert await log_of(compute, handle) == b"ran\n"
    supervisors = [one for one in processes_of(server_folder).values() if "supervisor" in one]
    assert len(supervisors) <= 2  # itself, and the process that waits for its next job


def _python(code: str, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )


# -- the supervisor comes and goes ---------------------------------------------------------


async def test_it_leaves_when_there_is_nothing_to_do(tmp_path: Path) -> None:
    class Brief(QuickServerCompute):
        idle_s = 0.2

    folder, go = tmp_path / "host", tmp_path / "go"
    async with Brief(ServerSettings(), Host(folder)) as compute:
        await compute.check()
        supervisor = supervisor_pid(folder)
        assert supervisor is not None
        await asyncio.sleep(0.4)
        assert supervisor_pid(folder) == supervisor, "it stays while somebody is connected"
        code = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)"
        handle = await compute.submit(python(code))
    await asyncio.sleep(0.4)
    assert supervisor_pid(folder) == supervisor, "it stays while a job runs"
    go.touch()
    wait_gone(supervisor)
    wait_for(lambda: not processes_of(folder), "nothing is left")
    async with Brief(ServerSettings(), Host(folder)) as compute:
        assert (await ended(compute, handle)).exit_code == 0
    wait_for(lambda: not processes_of(folder), "nothing is left")


async def test_it_leaves_when_its_folder_is_removed(
    open_server: OpenServer, server_folder: Path
) -> None:
    async with open_server() as compute:
        await compute.check()
        supervisor = supervisor_pid(server_folder)
        assert supervisor is not None
        shutil.rmtree(server_folder)
        wait_gone(supervisor, within_s=15)
        await compute.check()


async def test_new_code_replaces_the_supervisor_at_the_next_submit_and_jobs_go_on(
    open_server: OpenServer, server_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = server_folder.parent / "go"
    wait = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
    async with open_server() as old:
        before = await old.submit(python(wait + "raise SystemExit(5)"))
        await running(old, before)
        first = supervisor_pid(server_folder)
        monkeypatch.setattr(link, "code_version", lambda: "the next version")
        async with open_server() as new:
            assert (await new.poll([before]))[0].state == "running"
            assert supervisor_pid(server_folder) == first
            after = await new.submit(python(wait + "raise SystemExit(6)"))
            assert supervisor_pid(server_folder) != first
            assert [one.state for one in await new.poll([before, after])] == ["running"] * 2
            go.touch()
            for compute in (new, old):
                assert (await ended(compute, before)).exit_code == 5
                assert (await ended(compute, after)).exit_code == 6
            second = supervisor_pid(server_folder)
            await new.submit(python(""))
            assert supervisor_pid(server_folder) == second


async def test_a_supervisor_that_speaks_otherwise_is_sent_away_at_once(
    open_server: OpenServer, server_folder: Path
) -> None:
    """Whatever else changes, `hello` and `leave` mean the same in every version."""
    store, heard = Folder(server_folder), []
    store.make()
    with store.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(asyncio.IncompleteReadError):
                while True:
                    head = await reader.readexactly(wire.HEAD_BYTES)
                    message = wire.read(await reader.readexactly(wire.body_bytes(head)))
                    heard.append(message["op"])
                    answer = wire.pack({"version": "old", "pid": 0})
                    writer.write(answer.replace(b'"v":1', b'"v":0'))
                    if message["op"] == "leave":
                        store.socket.unlink()
                        lock.close()
            writer.close()

        async with await asyncio.start_unix_server(old, store.socket), open_server() as compute:
            assert await compute.poll([{"key": "x"}]) == [JobReport("missing")]
            await compute.check()
    assert heard == ["hello", "leave"]


async def test_jobs_go_on_when_the_supervisor_is_told_to_end(
    open_server: OpenServer, server_folder: Path
) -> None:
    async with open_server() as compute:
        handle = await compute.submit(python("import time; time.sleep(0.3); raise SystemExit(3)"))
        await running(compute, handle)
        supervisor = supervisor_pid(server_folder)
        assert supervisor is not None
        os.kill(supervisor, signal.SIGTERM)
        wait_gone(supervisor)
        assert await ended(compute, handle) == JobReport("exited", 3, "normal")


async def test_cancel_catches_up_with_processes_that_run_away(
    open_server: OpenServer, server_folder: Path
) -> None:
    """Each starts the next in a session of its own and ends: no pid is worth anything for long."""
    code = (
        "import os, time\n"
        "os.write(1, b'up')\n"
        "began = time.monotonic()\n"
        "if os.fork(): time.sleep(600)\n"
        "while time.monotonic() - began < 10:\n"
        "    os.setsid()\n"
        "    time.sleep(0.005)\n"
        "    if os.fork(): os._exit(0)\n"
    )
    async with open_server() as compute:
        handle = await compute.submit(python(code))
        await log_of(compute, handle, until=b"up")
        await asyncio.sleep(0.1)
        assert _jobs_of(server_folder)
        await compute.cancel([handle])
        assert (await ended(compute, handle, within_s=8)).state == "cancelled"
        assert not _jobs_of(server_folder)


async def test_folders_are_used_again_and_show_nothing_of_their_last_job(
    open_server: OpenServer, server_folder: Path
) -> None:
    jobs = server_folder / "jobs"
    async with open_server() as compute:
        first = await compute.submit(python("print('of the first')"))
        assert (await ended(compute, first)).exit_code == 0
        number = (jobs / str(first["key"])).stat().st_ino
        await compute.release(first)
        second = await compute.submit(
            JobRequest(new_key(), (PYTHON, "runner.pyz", "job.json"), {"job.json": b"not a job"})
        )
        assert (await ended(compute, second)).exit_code == 1
        said = await log_of(compute, second)
        assert (jobs / str(second["key"])).stat().st_ino == number
    assert b"of the first" not in said
    assert b"not JSON" in said
