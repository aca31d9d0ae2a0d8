"""A storage that goes away for a while costs time and nothing else."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from journeys.parts import serving, states, steps_project, view_of, wait_until
from seaweed import Seaweed, started
from shell import Shell

WAITING = """
with open(folder / "lines", "a") as file:
    file.write(f"{n}\\n")
print("before", n, flush=True)
while n == 1 and not (folder / "gate").exists():
    time.sleep(0.02)
"""


@dataclass
class Fragile:
    """A SeaweedFS that can be stopped, and started again on the same ports and data."""

    seaweed: Seaweed
    command: list[str]
    process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        os.kill(self.seaweed.pid, 9)

    def start(self) -> None:
        with (self.seaweed.folder / "log.txt").open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.seaweed.folder,
            )


@pytest.fixture
def fragile(tmp_path: Path) -> Iterator[Fragile]:
    with started(tmp_path / "seaweed") as seaweed:
        command = Path(f"/proc/{seaweed.pid}/cmdline").read_bytes().split(b"\0")[:-1]
        one = Fragile(seaweed, [os.fsdecode(word) for word in command])
        try:
            yield one
        finally:
            if one.process is not None:
                one.process.kill()
                one.process.wait()


def add(shell: Shell, seaweed: Seaweed) -> None:
    values = seaweed.settings(seaweed.new_bucket())
    secret = values.pop("secret_access_key").encode()
    options = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    shell("storage", "add", "s3", "lab", *options, "--secret-access-key", "-", input=secret)


def test_what_runs_meanwhile_stores_later_and_the_rest_follows(
    shell: Shell, fragile: Fragile
) -> None:
    """It goes while job 1 runs; job 1 ends, and is neither lost nor run again; job 2 comes after."""
    folder = shell.folder / "steps"
    project = steps_project(folder, 3, WAITING, chained=True)
    add(shell, fragile.seaweed)
    with serving(shell) as server:
        execution = server.client("run", project, "--storage", "lab", "--detach").out.strip()
        wait_until(lambda: (folder / "lines").exists() and "1" in (folder / "lines").read_text())
        fragile.stop()
        (folder / "gate").touch()
        time.sleep(3)
        during = view_of(server.client, execution)
        fragile.start()
        followed = server.client("executions", "logs", "-f", execution)
        view = view_of(server.client, execution)

    assert (during["status"], states(during)["v1"]) == ("running", "running")
    assert "steps succeeded" in followed.err
    assert view["paused_by"] is None
    assert [job["attempts"] for job in view["jobs"]] == [1, 1, 1]
    assert (folder / "lines").read_text() == "0\n1\n2\n"


def test_what_cannot_be_begun_is_tried_again(shell: Shell, fragile: Fragile) -> None:
    folder = shell.folder / "steps"
    project = steps_project(folder, 2, WAITING.replace("n == 1", "False"), chained=True)
    add(shell, fragile.seaweed)
    fragile.stop()
    with shell.begin("run", project, "--storage", "lab", "--json") as run:
        time.sleep(3)
        fragile.start()
        output, error = run.communicate(timeout=90)

    assert run.returncode == 0, error.decode()
    assert b'"status": "succeeded"' in output
    assert (folder / "lines").read_text() == "0\n1\n"
