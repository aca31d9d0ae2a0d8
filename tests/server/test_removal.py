from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import httpx

from deepforge.server.home import Home
from server_client import ended, record, start

PROJECT = {
    "operations/wait.py": b"""\
import time


class Wait:
    def __init__(self, seconds: float):
        self.seconds = seconds

    def execute(self, after=None):
        time.sleep(self.seconds)
        return self.seconds
""",
    "pipelines/waiting.py": b"""\
from operations.wait import Wait


def waiting(seconds: float, after=None):
    one = Wait(seconds).execute(after)
    return one
""",
}


async def add(live: httpx.AsyncClient, tmp_path: Path) -> None:
    """A storage `lab` and a compute `box`."""
    for port, name, adapter, settings in (
        ("storage", "lab", "local", {"folder": str(tmp_path / "lab")}),
        ("compute", "box", "server", {"slots": 1}),
    ):
        body = {"name": name, "adapter": adapter, "settings": settings}
        assert (await live.post(f"/connections/{port}", json=body)).status_code == 201


async def refused(live: httpx.AsyncClient, path: str, **query: str) -> dict[str, Any]:
    response = await live.delete(f"/connections/{path}", params=query)
    assert response.status_code == 409, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error["code"] == "conflict"
    return error


async def test_what_a_running_execution_needs_stays(
    live: httpx.AsyncClient, tmp_path: Path
) -> None:
    await add(live, tmp_path)
    await record(live, "waiting", PROJECT)
    choices = {"attributes": {"seconds": 600}, "storage": "lab", "compute": "box"}
    running = (await start(live, "waiting", **choices))["id"]

    for path, query in (("storage/lab", {"force": "true"}), ("compute/box", {})):
        error = await refused(live, path, **query)
        assert running in error["message"]
        assert error["hint"].endswith(f"deepforge executions cancel {running}")

    await live.post(f"/executions/{running}/cancel")
    await ended(live, running)
    for path in ("storage/lab", "compute/box"):
        assert (await live.delete(f"/connections/{path}")).status_code == 204


async def test_a_storage_of_inputs_is_needed_too(live: httpx.AsyncClient, tmp_path: Path) -> None:
    await add(live, tmp_path)
    await record(live, "waiting", PROJECT)
    first = await start(live, "waiting", attributes={"seconds": 0}, storage="lab")
    await ended(live, first["id"])
    running = await start(live, "waiting", attributes={"seconds": 600}, inputs={"after": "one"})

    assert running["id"] in (await refused(live, "storage/lab", force="true"))["message"]

    await live.post(f"/executions/{running['id']}/cancel")
    await ended(live, running["id"])


async def test_a_storage_with_artifacts_goes_only_by_force_and_its_data_stay(
    live: httpx.AsyncClient, tmp_path: Path
) -> None:
    await add(live, tmp_path)
    await record(live, "waiting", PROJECT)
    for _ in range(2):
        begun = await start(live, "waiting", attributes={"seconds": 0}, storage="lab")
        view = await ended(live, begun["id"])
    artifact = view["artifacts"][0]["id"]

    error = await refused(live, "storage/lab")
    assert "2 artifacts lie in the storage 'lab'" in error["message"]
    assert "deepforge storage remove lab --force" in error["hint"]

    removed = await live.delete("/connections/storage/lab", params={"force": "true"})
    lost = await live.get(f"/artifacts/{artifact}/data")
    await live.delete("/connections/compute/box")
    await add(live, tmp_path)
    found = await live.get(f"/artifacts/{artifact}/data")
    assert (removed.status_code, lost.status_code, found.status_code) == (204, 404, 200)


async def test_a_removed_compute_leaves_neither_a_folder_nor_a_process(
    live: httpx.AsyncClient, home: Home, tmp_path: Path
) -> None:
    await add(live, tmp_path)
    assert (await live.post("/connections/compute/box/check", json={})).json()["ok"]
    (folder,) = home.computes.iterdir()
    lock = next(path for path in folder.rglob("*lock*") if path.is_file())
    supervisor = int(lock.read_text())

    assert (await live.delete("/connections/compute/box")).status_code == 204

    assert list(home.computes.iterdir()) == []
    deadline = time.monotonic() + 20
    while _is_alive(supervisor):
        assert time.monotonic() < deadline, "the supervisor goes on without its folder"
        await asyncio.sleep(0.1)
    assert list(home.computes.iterdir()) == []


async def test_a_compute_that_was_never_used_can_be_removed(
    http: httpx.AsyncClient, tmp_path: Path
) -> None:
    await add(http, tmp_path)

    assert (await http.delete("/connections/compute/box")).status_code == 204


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
