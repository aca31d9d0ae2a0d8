"""Server Compute on a folder of the test, and the promise that nothing runs on afterwards."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compute.supervised import (
    OpenServer,
    QuickServerCompute,
    processes_of,
    supervisor_pid,
    wait_gone,
)
from deepforge.compute.port import Host
from deepforge.compute.server.adapter import ServerSettings

pytest.register_assert_rewrite("deepforge.testing")


@pytest.fixture
def server_folder(tmp_path: Path) -> Iterator[Path]:
    """A host folder. Afterwards its supervisor is stopped by its pid; no process may be left."""
    folder = tmp_path / "host"
    yield folder
    supervisor = supervisor_pid(folder)
    if supervisor is not None:
        os.kill(supervisor, signal.SIGTERM)
        wait_gone(supervisor)
    deadline = time.monotonic() + 2
    while (left := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.005)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, f"left running: {left}"


@pytest.fixture
def open_server(server_folder: Path) -> OpenServer:
    """Open Server Compute with two slots on the folder; keywords change the settings."""

    def open_one(**changes: object) -> QuickServerCompute:
        values = {"slots": 2, **changes}
        return QuickServerCompute(ServerSettings(**values), Host(server_folder))  # type: ignore[arg-type]

    return open_one
