"""Server Compute on a folder of the test, and the promise that nothing runs on afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from compute.supervised import OpenServer, QuickServerCompute, stop_all
from deepforge.compute.port import Host
from deepforge.compute.server.adapter import ServerSettings


@pytest.fixture
def server_folder(tmp_path: Path) -> Iterator[Path]:
    """A host folder. Afterwards its supervisor is stopped by its pid; no process may be left."""
    folder = tmp_path / "host"
    yield folder
    left = stop_all(folder)
    assert not left, f"left running: {left}"


@pytest.fixture
def open_server(server_folder: Path) -> OpenServer:
    """Open Server Compute with two slots on the folder; keywords change the settings."""

    def open_one(**changes: object) -> QuickServerCompute:
        values = {"slots": 2, **changes}
        return QuickServerCompute(ServerSettings(**values), Host(server_folder))  # type: ignore[arg-type]

    return open_one
