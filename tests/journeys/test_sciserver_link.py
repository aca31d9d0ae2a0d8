"""Data in SciServer's volumes, jobs elsewhere: links that end, and a service that misbehaves."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deepforge.testing.sciserver import SciServer, running
from journeys.parts import Server, serving, states, steps_project, view_of, wait_until, working
from shell import EXAMPLES, Shell

WAITS = """
(folder / f"begun-{n}").touch()
while not (folder / f"go-{n}").exists():
    time.sleep(0.02)
"""


@pytest.fixture
def site() -> Iterator[SciServer]:
    with running() as site:
        site.users.add_user("alice", "wonderland")
        yield site


@pytest.fixture
def server(shell: Shell, site: SciServer) -> Iterator[Server]:
    with serving(shell) as server:
        server.client(
            "storage", "add", "sciserver", "sky", "--username", "alice", "--site", site.url
        )
        link(server)
        yield server


def link(server: Server) -> None:
    server.client("sciserver", "link", "--password", input=b"wonderland\n")


def test_it_goes_on_after_linking_again(server: Server, site: SciServer, tmp_path: Path) -> None:
    project = steps_project(tmp_path / "steps", 2, WAITS, chained=True)
    folder = tmp_path / "steps"
    execution = server.client("run", project, "--storage", "sky", "--detach").out.strip()
    wait_until((folder / "begun-0").exists)

    site.users.revoke()
    (folder / "go-0").touch()
    (folder / "go-1").touch()

    def paused_by() -> str:
        return str(view_of(server.client, execution)["paused_by"] or "")

    told = wait_until(paused_by)
    assert "your link to SciServer" in told
    assert "deepforge sciserver link" in told
    assert view_of(server.client, execution)["status"] == "running"

    link(server)

    wait_until(lambda: view_of(server.client, execution)["status"] != "running")
    view = view_of(server.client, execution)
    assert states(view) == {"v0": "succeeded", "v1": "succeeded"}, view
    assert view["paused_by"] is None
    assert site.state.volume("Storage", "alice", "deepforge_data") is not None


@pytest.mark.parametrize("compute", ["server", "worker"])
def test_digits_elsewhere_with_data_in_a_volume(
    server: Server, site: SciServer, shell: Shell, compute: str
) -> None:
    """The server passes the data on: no token reaches the job."""
    run = ("run", EXAMPLES / "digits", "--storage", "sky", "--json")
    if compute == "server":
        result = server.client(*run, timeout_s=300)
    else:
        server.client("compute", "add", "worker", "mine")
        with working(shell, server.url):
            result = server.client(*run, "--compute", "mine", timeout_s=300)

    assert result.json["status"] == "succeeded"
    accuracy = server.client("artifacts", "get", "accuracy", "-").data
    assert pickle.loads(accuracy) > 0.9  # we wrote these bytes ourselves a moment ago


@pytest.fixture(scope="module")
def lasting_site() -> Iterator[SciServer]:
    with running() as site:
        site.users.add_user("alice", "wonderland")
        yield site


FAULTS: dict[str, dict[str, Any]] = {
    "a proxy that is away": {"kind": "status", "status": 502, "times": 2},
    "too many requests": {"kind": "status", "status": 429, "times": 2},
    "an internal error": {"kind": "error", "times": 2},
    "an upload that is not begun": {"kind": "reset_before", "method": "PUT"},
    "an upload that breaks off": {"kind": "reset_before", "method": "PUT", "after_bytes": 50},
    "a stored object, not told": {"kind": "reset_after", "method": "PUT", "path": "/api/file/"},
    "a moved object, not told": {"kind": "reset_after", "method": "PUT", "path": "/api/data/"},
    "a short download": {"kind": "truncate", "method": "GET", "path": "/file/", "after_bytes": 20},
    "a changed byte": {"kind": "corrupt", "method": "GET", "path": "/file/", "after_bytes": 20},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_pipeline_survives(shell: Shell, lasting_site: SciServer, fault: dict[str, Any]) -> None:
    account = ("--username", "alice", "--site", lasting_site.url, "--password", "-")
    shell("storage", "add", "sciserver", "sky", *account, input=b"wonderland")
    values = {"path": "/fileservice/", **fault}
    lasting_site.faults.add(**values, skip=2 if "method" in fault else 10)

    done = shell("run", EXAMPLES / "hello", "--storage", "sky", "--json").json

    assert done["status"] == "succeeded"
    assert not lasting_site.faults.waiting
