"""Pipelines on a worker: a program of its own that nobody but itself calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from journeys.parts import (
    Server,
    serving,
    states,
    steps_project,
    view_of,
    wait_until,
    working,
)
from seaweed import free_ports
from shell import EXAMPLES, Shell

WAITING = """
(folder / f"began-{n}").touch()
print("before", n, flush=True)
while n == 1 and not (folder / "gate").exists():
    time.sleep(0.02)
print("after", n)
"""


@pytest.fixture
def port() -> int:
    (found,) = free_ports(1)
    return found


@pytest.fixture
def server(shell: Shell, port: int) -> Iterator[Server]:
    with serving(shell, port=port) as running:
        running.client("compute", "add", "worker", "box")
        yield running


def begun(server: Server, project: Path) -> str:
    """Start a pipeline on the worker and return its execution's id."""
    ran = server.client("run", project, "--compute", "box", "--detach", "--json")
    execution: str = ran.json["execution"]
    return execution


def test_a_pipeline_runs_on_a_worker(server: Server, shell: Shell) -> None:
    with working(shell, server.url):
        ran = server.client("run", EXAMPLES / "hello", "--compute", "box", "--json").json

    assert "succeeded" == ran["status"]
    logs = server.client("executions", "logs", ran["execution"], "greeting").out
    assert "Hello, world!" in logs


def test_jobs_wait_for_a_worker_to_come(server: Server, shell: Shell) -> None:
    execution = begun(server, EXAMPLES / "hello")
    wait_until(lambda: states(view_of(server.client, execution))["greeting"] == "queued")
    with working(shell, server.url):
        wait_until(lambda: view_of(server.client, execution)["status"] == "succeeded")


def test_a_cancelled_pipeline_ends_on_the_worker(
    server: Server, shell: Shell, tmp_path: Path
) -> None:
    project = steps_project(tmp_path, 3, WAITING, chained=True)
    with working(shell, server.url):
        execution = begun(server, project)
        wait_until((tmp_path / "began-1").exists)
        server.client("executions", "cancel", execution)
        wait_until(lambda: view_of(server.client, execution)["status"] == "cancelled")
        wait_until(lambda: not list((shell.folder / "worker" / "jobs").iterdir()))


@pytest.mark.parametrize("killed", ["worker", "server", "both"])
def test_a_job_outlives_whoever_is_killed(
    shell: Shell, port: int, tmp_path: Path, killed: str
) -> None:
    """The attempt goes on, is found again, and is the only one."""
    project = steps_project(tmp_path, 3, WAITING, chained=True)
    with ExitStack() as stack:
        server = stack.enter_context(serving(shell, port=port))
        worker = stack.enter_context(working(shell, server.url))
        server.client("compute", "add", "worker", "box")
        execution = begun(server, project)
        wait_until((tmp_path / "began-1").exists)
        if killed != "worker":
            server.kill()
        if killed != "server":
            worker.kill()
            worker.wait()
        (tmp_path / "gate").touch()
        if killed != "worker":
            server = stack.enter_context(serving(shell, port=port))
        if killed != "server":
            stack.enter_context(working(shell, server.url))
        wait_until(lambda: view_of(server.client, execution)["status"] == "succeeded")

        view = view_of(server.client, execution)
        assert {1} == {job["attempts"] for job in view["jobs"]}
        logs = server.client("executions", "logs", execution, "v1").out
        assert "after 1" in logs


def test_an_attempt_that_was_given_up_is_run_again_and_never_counts(
    server: Server, shell: Shell, tmp_path: Path
) -> None:
    project = steps_project(
        tmp_path,
        1,
        """
print("in", folder / "worker", "silent" in str(Path.cwd()), flush=True)
while "silent" in str(Path.cwd()) and not (folder / "gate").exists():
    time.sleep(0.02)
n = str(Path.cwd())
""",
    )
    with working(shell, server.url, name="silent") as silent:
        execution = begun(server, project)
        wait_until(lambda: "True" in server.client("executions", "logs", execution, "v0").out)
        silent.kill()
        silent.wait()
        assert "no job 'v9'" in server.client("executions", "give-up", execution, "v9", code=4).err

        told = server.client("executions", "give-up", execution, "v0").err

        assert "the attempt of v0 was given up" in told
        with working(shell, server.url, name="other"):
            wait_until(lambda: view_of(server.client, execution)["status"] == "succeeded")
            (tmp_path / "gate").touch()
            with working(shell, server.url, name="silent"):  # it tells of what it had, too late
                wait_until(lambda: not list((shell.folder / "silent" / "jobs").iterdir()))
        view = view_of(server.client, execution)

    assert [2] == [job["attempts"] for job in view["jobs"]]
    assert b"/other/" in server.client("artifacts", "get", "v0", "-").data
    told = server.client("executions", "give-up", execution, "v0", code=5).err
    assert "there is no attempt to give up" in told
