"""The original worker, unmodified, runs our pipelines on our server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from interop.webgme.ours import server_running
from interop.webgme.server import worker_running
from shell import EXAMPLES, Shell, write_project

WITHIN_S = 60.0


@pytest.fixture
def far(original: None, shell: Shell, tmp_path: Path) -> Iterator[Shell]:
    """A shell at a server of ours with one original worker, as the compute `far`."""
    with (
        server_running(tmp_path / "server-home") as ours,
        worker_running(tmp_path / "worker", ours.url, jobs_at_once=2),
    ):
        there = replace(shell, environment={"DEEPFORGE_URL": ours.url})
        there("compute", "add", "worker", "far")
        there("compute", "check", "far")
        yield there


def test_it_runs_a_whole_pipeline_to_success(far: Shell) -> None:
    ran = far("run", EXAMPLES / "hello", "--compute", "far", "--json").json

    assert ran["status"] == "succeeded"
    assert {"succeeded"} == {one["status"] for one in ran["jobs"]}
    for one in ran["artifacts"]:
        assert far("artifacts", "get", one["name"], "-").data


def test_a_failing_pipeline_fails_with_its_traceback(far: Shell) -> None:
    project = project_of(far, "raise ValueError('no good')")

    ran = far("run", project, "--compute", "far", "--json", code=1)

    assert ran.json["status"] == "failed"
    shown = far("executions", "show", ran.json["execution"], "--json").json
    (job,) = shown["jobs"]
    assert "ValueError: no good" in job["failure"]["traceback"]
    assert 1 == job["attempts"]


def test_a_cancelled_pipeline_ends_on_the_far_side(far: Shell, tmp_path: Path) -> None:
    started = tmp_path / "started"
    project = project_of(
        far,
        "import os, pathlib, time\n"
        f"        pathlib.Path({str(started)!r}).write_text(str(os.getpid()))\n"
        "        time.sleep(600)",
    )
    process = far.begin("run", project, "--compute", "far", "--json")
    with process:
        until(lambda: started.exists() and started.read_text() != "")
        (running,) = far("executions", "list", "--json").json
        far("executions", "cancel", running["id"])
        out, _ = process.communicate(timeout=WITHIN_S)

    assert json.loads(out.splitlines()[-1])["status"] == "cancelled"
    until(lambda: not Path("/proc", started.read_text()).exists())
    until(lambda: not still_held(far))


def still_held(far: Shell) -> bool:
    (worker,) = far("workers", "list", "--json").json
    return bool(worker["jobs"])


def project_of(far: Shell, body: str) -> Path:
    return write_project(
        far.folder / "trial",
        {
            "operations/step.py": (
                f"class Step:\n    def execute(self):\n        {body}\n        done = 1\n"
                "        return done\n"
            ),
            "pipelines/one.py": (
                "from operations.step import Step\n\n\ndef one():\n"
                "    done = Step().execute()\n    return done\n"
            ),
        },
    )


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)
