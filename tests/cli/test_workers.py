"""`deepforge workers`: what the machines of a user do, on a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from journeys.parts import Server, serving
from shell import Shell
from webgme.rig import question


@pytest.fixture
def server(shell: Shell, tmp_path: Path) -> Iterator[Server]:
    with serving(shell) as running:
        yield running


def ask(server: Server, client_id: str, *running: str, **more: object) -> None:
    asked = question(client_id, *running, **more)  # type: ignore[arg-type]
    answer = httpx.post(f"{server.url}/rest/executor/worker", json=asked)
    assert answer.status_code == 200, answer.text


def test_workers_are_listed_shown_and_forgotten(server: Server) -> None:
    client = server.client
    assert [] == client("workers", "list", "--json").json
    httpx.post(f"{server.url}/rest/executor/create/job", json={}).raise_for_status()
    ask(server, "lab box", labels=("gpu", "lab"), gpus=2)
    ask(server, "old_4711", instance=None)

    table = client("workers", "list").out.splitlines()
    shown = client("workers", "show", "lab box").out
    (job,) = client("workers", "show", "lab box", "--json").json["jobs"]

    assert ["ID", "NAME", "STATUS"] == table[0].split()[:3]
    assert "8.0 GiB" in table[1]
    assert "gpu lab" in shown
    assert "connected" in shown
    assert "job" == job["id"]

    client("workers", "forget", "lab box")
    assert ["old_4711"] == [one["id"] for one in client("workers", "list", "--json").json]


def test_a_worker_that_is_not_there_is_said_to_be_so(server: Server) -> None:
    for command in ("show", "forget"):
        told = server.client("workers", command, "nobody", code=4).err
        assert "there is no worker 'nobody'" in told
        assert "deepforge workers list" in told
