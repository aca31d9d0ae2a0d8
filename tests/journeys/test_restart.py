"""Whatever is killed, and whenever: the execution goes on, and no job is started twice."""

from __future__ import annotations

import os
import random
import signal
import time
from functools import partial
from pathlib import Path

from journeys.parts import (
    serving,
    states,
    steps_project,
    supervisors,
    view_of,
    wait_until,
)
from shell import Shell

COUNTED = """
with open(folder / "lines", "a") as file:
    file.write(f"{n}\\n")
"""
"""Each job leaves one line outside: whoever is started twice leaves two."""

WAITING = (
    COUNTED
    + """
print("before", n, flush=True)
while n == 1 and not (folder / "gate").exists():
    time.sleep(0.02)
print("after", n)
"""
)


def lines(folder: Path) -> list[int]:
    try:
        return sorted(map(int, (folder / "lines").read_text().split()))
    except FileNotFoundError:
        return []


def has_lines(folder: Path, count: int) -> bool:
    return len(lines(folder)) >= count


def test_a_killed_server_goes_on_where_it_was(shell: Shell) -> None:
    """Job 0 is done, job 1 runs while there is no server, job 2 waits for it."""
    folder = shell.folder / "steps"
    project = steps_project(folder, 3, WAITING, chained=True)
    with serving(shell) as server:
        execution = server.client("run", project, "--detach").out.strip()
        wait_until(lambda: lines(folder) == [0, 1])
        with server.client.begin("executions", "logs", "-f", execution, "v1") as follower:
            assert follower.stdout is not None
            assert follower.stdout.readline() == b"before 1\n"
            server.kill()
            follower.kill()
    assert states(view_of(shell, execution)) == {
        "v0": "succeeded",
        "v1": "running",
        "v2": "waiting",
    }

    with serving(shell) as server:
        with server.client.begin("executions", "logs", "-f", execution, "v1") as follower:
            time.sleep(0.5)  # the runner finds the server again while it goes on
            (folder / "gate").touch()
            output, _ = follower.communicate(timeout=60)
        view = view_of(server.client, execution)

    assert output == b"before 1\nafter 1\n"
    assert follower.returncode == 0
    assert view["status"] == "succeeded"
    assert [job["attempts"] for job in view["jobs"]] == [1, 1, 1]
    assert lines(folder) == [0, 1, 2]


def test_a_server_killed_again_and_again_starts_every_job_once(shell: Shell) -> None:
    """Killed right before, while or after a job was submitted, wherever chance has it."""
    folder = shell.folder / "steps"
    project = steps_project(folder, 20, COUNTED, chained=True)
    chance = random.Random(4)
    with serving(shell) as server:
        execution = server.client("run", project, "--detach").out.strip()
    for _ in range(7):
        with serving(shell):
            further = min(20, len(lines(folder)) + chance.randint(1, 2))
            wait_until(partial(has_lines, folder, further))
            time.sleep(chance.uniform(0, 0.05))
    with serving(shell) as server:
        followed = server.client("executions", "logs", "-f", execution)
        view = view_of(server.client, execution)

    assert "steps succeeded" in followed.err
    assert set(states(view).values()) == {"succeeded"}
    assert {job["attempts"] for job in view["jobs"]} == {1}
    assert lines(folder) == list(range(20))
    assert len({one["name"] for one in view["artifacts"]}) == len(view["artifacts"]) == 20
    assert {one["version"] for one in view["artifacts"]} == {1}


def test_a_killed_supervisor_costs_nothing(shell: Shell) -> None:
    folder = shell.folder / "steps"
    project = steps_project(folder, 3, WAITING, chained=True)
    with serving(shell) as server:
        execution = server.client("run", project, "--detach").out.strip()
        wait_until(lambda: lines(folder) == [0, 1])
        (pid,) = supervisors(shell.home)
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)
        (folder / "gate").touch()
        followed = server.client("executions", "logs", "-f", execution)
        view = view_of(server.client, execution)

    assert "steps succeeded" in followed.err
    assert [job["attempts"] for job in view["jobs"]] == [1, 1, 1]
    assert lines(folder) == [0, 1, 2]


def test_server_and_supervisor_killed_together(shell: Shell) -> None:
    folder = shell.folder / "steps"
    project = steps_project(folder, 3, WAITING, chained=True)
    with serving(shell) as server:
        execution = server.client("run", project, "--detach").out.strip()
        wait_until(lambda: lines(folder) == [0, 1])
        (pid,) = supervisors(shell.home)
        server.kill()
        os.kill(pid, signal.SIGKILL)
    (folder / "gate").touch()
    time.sleep(0.3)  # the job ends while nobody watches
    with serving(shell) as server:
        followed = server.client("executions", "logs", "-f", execution)
        view = view_of(server.client, execution)

    assert "steps succeeded" in followed.err
    assert [job["attempts"] for job in view["jobs"]] == [1, 1, 1]
    assert lines(folder) == [0, 1, 2]


def test_a_killed_run_is_taken_up_by_the_next_command_that_follows(shell: Shell) -> None:
    """Without a server too: what ran goes on by itself, the rest with `executions logs -f`."""
    folder = shell.folder / "steps"
    project = steps_project(folder, 3, WAITING, chained=True)
    with shell.begin("run", project) as run:
        wait_until(lambda: lines(folder) == [0, 1])
        run.kill()
        run.communicate()
    (execution,) = (one["id"] for one in shell("executions", "list", "--json").json)
    left = view_of(shell, execution)
    (folder / "gate").touch()
    followed = shell("executions", "logs", "-f", execution)
    view = view_of(shell, execution)

    assert (left["status"], states(left)["v1"]) == ("running", "running")
    assert "steps succeeded" in followed.err
    assert "v1 | after 1" in followed.out
    assert view["status"] == "succeeded"
    assert [job["attempts"] for job in view["jobs"]] == [1, 1, 1]
    assert lines(folder) == [0, 1, 2]


def test_two_runs_side_by_side_share_a_home(shell: Shell) -> None:
    """Runners of the one may call the other, and find nobody there when it has ended."""
    projects = [
        steps_project(shell.folder / name, 4, f"{COUNTED}\nprint('from', n)\ntime.sleep({pause})")
        for name, pause in (("first", 0.7), ("second", 0.2))
    ]
    with shell.begin("run", projects[0]) as first:
        time.sleep(0.4)
        second = shell("run", projects[1])
        _, error = first.communicate(timeout=60)

    assert "steps succeeded" in second.err
    assert "steps succeeded" in error.decode()
    assert first.returncode == 0
    assert lines(shell.folder / "first") == lines(shell.folder / "second") == [0, 1, 2, 3]
