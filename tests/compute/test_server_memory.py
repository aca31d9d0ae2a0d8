"""A job that is killed for memory is told from one that is killed otherwise."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from compute.supervised import OpenServer, ended, supervisor_pid
from deepforge.testing.compute import python

_GROUPS = Path("/sys/fs/cgroup")


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group with 64 MiB of memory, made where the machine lets us."""
    version_1 = (_GROUPS / "memory").is_dir()
    group = (_GROUPS / "memory" if version_1 else _GROUPS) / f"deepforge-{secrets.token_hex(4)}"
    limit = "memory.limit_in_bytes" if version_1 else "memory.max"
    try:
        group.mkdir()
        (group / limit).write_text(str(64 * 1024 * 1024))
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"control groups cannot be made here: {error}")
    yield group
    for pid in (group / "cgroup.procs").read_text().split():
        (group.parent / "cgroup.procs").write_text(pid)
    group.rmdir()


async def test_a_job_killed_for_memory_says_so(
    open_server: OpenServer, server_folder: Path, small_group: Path
) -> None:
    async with open_server() as compute:
        await compute.poll([])
        supervisor = supervisor_pid(server_folder)
        (small_group / "cgroup.procs").write_text(str(supervisor))
        first = await compute.submit(python(""))  # the process that waited is outside the group
        assert (await ended(compute, first)).reason == "normal"
        hungry = "import os\ntaken = []\nwhile True: taken.append(bytearray(os.urandom(1 << 20)))"
        report = await ended(compute, await compute.submit(python(hungry)))
        assert (report.exit_code, report.reason) == (-9, "out_of_memory")
        killed = await compute.submit(python("import os; os.kill(os.getpid(), 9)"))
        assert (await ended(compute, killed)).reason == "signal"
