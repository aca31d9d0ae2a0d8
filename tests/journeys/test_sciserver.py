"""Pipelines inside SciServer: a stand-in that runs the jobs for real, each seeing its volumes alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepforge.testing.sciserver import SciServer, running
from journeys.parts import Server, serving, steps_project, view_of, wait_until
from seaweed import Seaweed
from shell import EXAMPLES, Shell

WAITING = """
(folder / f"began-{n}").touch()
while n == 0 and not (folder / "gate").exists():
    time.sleep(0.02)
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SciServer]:
    with running(tmp_path / "sciserver") as site:
        site.users.add_user("alice", "wonderland")
        for domain in site.state.domains:
            domain.jobs_per_user = 4
        yield site


@pytest.fixture
def server(shell: Shell) -> Iterator[Server]:
    with serving(shell) as running:
        yield running


def connect(server: Server, site: SciServer, *options: str, secret: str = "wonderland") -> None:
    """Add the storage `sky` and the compute `sci`, as alice."""
    account = ("--site", site.url, "--username", "alice", *(options or ("--password", "-")))
    python = ("--python", sys.executable)
    server.client("storage", "add", "sciserver", "sky", *account, input=secret.encode())
    server.client("compute", "add", "sciserver", "sci", *account, *python, input=secret.encode())


def test_digits_inside_sciserver_moves_no_data_through_us(server: Server, site: SciServer) -> None:
    connect(server, site)

    ran = server.client(
        "run", EXAMPLES / "digits", "--storage", "sky", "--compute", "sci", "--json", timeout_s=300
    ).json

    assert "succeeded" == ran["status"]
    made = {one["name"] for one in ran["artifacts"]}
    assert made == {"model", "history", "accuracy", "confusion"}
    moved = {
        one.path.rpartition("/")[2]
        for one in site.requests
        if one.method in ("GET", "PUT") and "/api/file/" in one.path and "/executions/" in one.path
    }
    assert moved <= {"result.json", "log.txt", "events.jsonl"}
    scratch = site.state.volume("Temporary", "alice", "scratch")
    assert scratch is not None
    assert list((scratch.folder / "deepforge").iterdir()) == []


def test_digits_inside_sciserver_with_a_bucket(
    server: Server, site: SciServer, seaweed: Seaweed
) -> None:
    """Our server cannot be called from there: signed requests are enough."""
    connect(server, site)
    values = seaweed.settings(seaweed.new_bucket())
    server.client(
        "storage", "add", "s3", "bucket", "--endpoint-url", values["endpoint_url"],
        "--bucket", values["bucket"], "--access-key-id", values["access_key_id"],
        "--secret-access-key", "-", input=values["secret_access_key"].encode(),
    )  # fmt: skip

    ran = server.client(
        "run", EXAMPLES / "digits", "--storage", "bucket", "--compute", "sci", "--json",
        timeout_s=300,
    ).json  # fmt: skip

    assert "succeeded" == ran["status"]


def test_a_token_that_ends_in_the_middle_is_waited_for(
    server: Server, site: SciServer, tmp_path: Path
) -> None:
    token = site.users.add_token("alice")
    connect(server, site, "--token", "-", secret=token)
    folder = tmp_path / "steps"
    project = steps_project(folder, 2, WAITING, chained=True)
    begun = server.client(
        "run", project, "--storage", "sky", "--compute", "sci", "--detach", "--json"
    ).json
    execution = begun["execution"]
    wait_until((folder / "began-0").exists)
    site.users.revoke(token)

    paused = wait_until(lambda: view_of(server.client, execution)["paused_by"])
    (folder / "gate").touch()
    server.client(
        "sciserver", "link", "--site", site.url, "--username", "alice", "--password",
        input=b"wonderland\n",
    )  # fmt: skip
    ended = wait_until(
        lambda: (view := view_of(server.client, execution))["status"] != "running" and view
    )

    assert "SciServer" in paused
    assert "succeeded" == ended["status"]
    assert [1, 1] == [job["attempts"] for job in ended["jobs"]]
    assert len(site.jobs.by_id) == 2
