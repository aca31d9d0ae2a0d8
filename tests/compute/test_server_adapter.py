"""Server Compute from the side of the server: settings, checks, files, refusals."""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compute.supervised import (
    OpenServer,
    QuickServerCompute,
    ended,
    log_of,
    stop_all,
    supervisor_pid,
)
from deepforge.compute.environment import clean_environment
from deepforge.compute.port import PYTHON, Host, JobReport, JobRequest, Resources
from deepforge.compute.server.adapter import ServerCompute, ServerSettings
from deepforge.errors import ConfigError, InvalidRequest, StorageFull, Unavailable
from deepforge.machine import machine_space
from deepforge.testing.compute import new_key, python


def test_settings_below_1_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        ServerCompute(ServerSettings(slots=0, cache_bytes=0), Host(tmp_path))
    assert set(caught.value.fields) == {"slots", "cache_bytes"}


def test_it_says_where_it_is(open_server: OpenServer) -> None:
    compute = open_server()
    assert compute.machine == machine_space()
    assert compute.file_spaces == {machine_space(): "/"}
    assert compute.reaches_server == "loopback"


def test_opening_it_starts_nothing(open_server: OpenServer, server_folder: Path) -> None:
    open_server()
    assert not server_folder.exists()


@pytest.mark.parametrize(
    ("python_text", "problem"),
    [
        ("/no/such/python", "cannot be started"),
        ("/etc/passwd", "cannot be started"),
        ("/bin/true", "is no Python interpreter"),
        ("/bin/false", "is no Python interpreter"),
    ],
)
async def test_a_wrong_interpreter_is_named(
    open_server: OpenServer, python_text: str, problem: str
) -> None:
    async with open_server(python=python_text) as compute:
        with pytest.raises(ConfigError, match=problem) as caught:
            await compute.check()
    assert list(caught.value.fields) == ["python"]
    assert caught.value.hint is not None


async def test_check_leaves_nothing_behind(open_server: OpenServer, server_folder: Path) -> None:
    async with open_server() as compute:
        await compute.check()
    for name in ("jobs", "staging", "trash"):
        assert list((server_folder / name).iterdir()) == []


async def test_check_passes_while_all_slots_are_taken(open_server: OpenServer) -> None:
    async with open_server(slots=1) as compute:
        handle = await compute.submit(python("import time; time.sleep(600)"))
        await compute.check()
        await compute.cancel([handle])
        assert (await ended(compute, handle)).state == "cancelled"


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    async with QuickServerCompute(ServerSettings(), Host(tmp_path / "file" / "host")) as compute:
        with pytest.raises(ConfigError, match="file/host cannot be made"):
            await compute.submit(python(""))
        with pytest.raises(Unavailable, match="could not be started"):
            await compute.poll([])


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 100 kB, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_is_storage_full_and_leaves_nothing(
    open_server: OpenServer, server_folder: Path, small_files: None
) -> None:
    async with open_server() as compute:
        with pytest.raises(StorageFull) as caught:
            await compute.submit(python("", files={"big": bytes(200_000)}))
        assert caught.value.hint is not None
        assert list((server_folder / "staging").iterdir()) == []
        assert await compute.poll([]) == []


async def test_a_job_that_meets_a_full_disk_still_reports_its_end(
    open_server: OpenServer, small_files: None
) -> None:
    """The limit is inherited: the supervisor and the job cannot write beyond it either."""
    async with open_server() as compute:
        code = "import os\nwhile True: os.write(1, bytes(10_000))"
        report = await ended(compute, await compute.submit(python(code)))
    assert report.state == "exited"
    assert report.exit_code != 0


@pytest.mark.parametrize("name", [".deepforge-record", ".deepforge-log", "n" * 300])
async def test_impossible_file_names_are_refused(open_server: OpenServer, name: str) -> None:
    async with open_server() as compute:
        with pytest.raises(InvalidRequest) as caught:
            await compute.submit(python("", files={name: b""}))
    assert caught.value.part == "files"


async def test_more_than_the_machine_has_is_refused(open_server: OpenServer) -> None:
    asked = Resources(cpus=100_000, memory_bytes=2**60, gpus=1)
    refusals = await open_server().why_not(python("", resources=asked))
    parts = [refusal.part for refusal in refusals]
    assert parts == ["resources.cpus", "resources.memory_bytes", "resources.gpus"]


@pytest.mark.parametrize("handle", [{}, {"key": None}, {"key": "../x"}, {"other": 1}])
async def test_a_foreign_handle_is_a_missing_job(
    open_server: OpenServer, handle: dict[str, object]
) -> None:
    async with open_server() as compute:
        assert await compute.poll([handle]) == [JobReport("missing")]
        await compute.cancel([handle])
        await compute.release(handle)
        assert [chunk async for chunk in compute.log(handle)] == []


async def test_release_removes_the_folder_even_a_read_only_one(
    open_server: OpenServer, server_folder: Path
) -> None:
    code = (
        "import os; os.makedirs('a/b'); open('a/b/c', 'w').close()\n"
        "os.chmod('a/b', 0o500); os.chmod('a', 0o500)"
    )
    async with open_server() as compute:
        handle = await compute.submit(python(code))
        assert (await ended(compute, handle)).exit_code == 0
        await compute.release(handle)
        assert list((server_folder / "jobs").iterdir()) == []
    assert list((server_folder / "trash").iterdir()) == []


async def test_a_home_with_a_very_long_path_works(tmp_path: Path) -> None:
    """The path of a socket may have 107 bytes."""
    folder = tmp_path / ("long" * 30) / ("path" * 30) / "host"
    async with QuickServerCompute(ServerSettings(), Host(folder)) as compute:
        report = await ended(compute, await compute.submit(python("raise SystemExit(3)")))
        assert report.exit_code == 3
    assert stop_all(folder) == {}


async def test_a_job_has_no_file_of_ours_open(open_server: OpenServer) -> None:
    code = "import os; print([os.path.realpath(f'/proc/self/fd/{n}') for n in range(3, 100)])"
    expected = str([f"/proc/PID/fd/{number}" for number in range(3, 100)])
    async with open_server() as compute:
        handle = await compute.submit(python("import os; print(os.getpid());" + code))
        await ended(compute, handle)
        pid, found = (await log_of(compute, handle)).decode().splitlines()
    assert found == expected.replace("PID", pid)


async def test_jobs_see_the_clean_environment_and_where_the_runner_finds_things(
    open_server: OpenServer, server_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    code = "import os; print(*sorted(f'{k}={v}' for k, v in os.environ.items()), sep='\\n')"
    async with open_server(cache_bytes=1000) as compute:
        handle = await compute.submit(python(code))
        await ended(compute, handle)
        lines = (await log_of(compute, handle)).decode().splitlines()
    found = dict(line.split("=", 1) for line in lines)
    allowed = {*clean_environment(os.environ), "LC_CTYPE"}  # Python sets it for the C locale
    assert {name for name in found if not name.startswith("DEEPFORGE_")} <= allowed
    assert found["TZ"] == "Europe/Berlin"
    assert {name: value for name, value in found.items() if name.startswith("DEEPFORGE_")} == {
        "DEEPFORGE_RUNNER_PYTHON": sys.executable,
        "DEEPFORGE_RUNNER_CACHE": str(server_folder / "cache"),
        "DEEPFORGE_RUNNER_CACHE_BYTES": "1000",
        "DEEPFORGE_RUNNER_START": "fork",
    }


async def test_another_interpreter_is_used(open_server: OpenServer, tmp_path: Path) -> None:
    other = tmp_path / "my python"
    other.write_text(f'#!/bin/sh\nVIA_OTHER=1 exec {sys.executable} "$@"\n')
    other.chmod(0o755)
    code = "import os; print(os.environ['VIA_OTHER'], os.environ['DEEPFORGE_RUNNER_START'])"
    async with open_server(python=str(other)) as compute:
        await compute.check()
        handle = await compute.submit(python(code))
        assert (await ended(compute, handle)).exit_code == 0
        assert (await log_of(compute, handle)).decode().split() == ["1", "fork"]


async def test_an_interpreter_may_be_named_as_in_a_shell(
    open_server: OpenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my-python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    code = "import os; print(os.environ['DEEPFORGE_RUNNER_PYTHON'])"
    for name in ("my-python", "~/my-python", "./my-python"):
        async with open_server(python=name) as compute:
            handle = await compute.submit(python(code))
            await ended(compute, handle)
            assert (await log_of(compute, handle)).decode().strip() == f"{tmp_path}/my-python"


async def test_fresh_starts_are_told_to_the_runner(open_server: OpenServer) -> None:
    code = "import os; print(os.environ.get('DEEPFORGE_RUNNER_START'))"
    async with open_server(start="fresh") as compute:
        handle = await compute.submit(python(code))
        await ended(compute, handle)
        assert (await log_of(compute, handle)).decode().split() == ["None"]


async def test_the_runner_runs_in_the_forked_process_itself(open_server: OpenServer) -> None:
    """A job document it cannot read: the real runner says so, and nothing was started for it."""
    request = JobRequest(
        new_key(),
        (PYTHON, "runner.pyz", "job.json"),
        {"runner.pyz": b"raise SystemExit(99)", "job.json": b"not a job"},
    )
    async with open_server() as compute:
        handle = await compute.submit(request)
        report = await ended(compute, handle)
        said = (await log_of(compute, handle)).decode()
    assert (report.exit_code, report.reason) == (1, "normal")
    assert "not JSON" in said


async def test_bytes_that_are_no_message_end_only_that_connection(
    open_server: OpenServer, server_folder: Path
) -> None:
    async with open_server() as compute:
        await compute.check()
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x02[]", b"\0\0\0\x02{]"):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.settimeout(5)
                stranger.connect(str(server_folder / "socket"))
                stranger.sendall(garbage)
                assert stranger.recv(100) == b""
        before = supervisor_pid(server_folder)
        await compute.check()
        assert supervisor_pid(server_folder) == before
