"""Press play with everything that is kept in MongoDB, and kill the server in the middle."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from journeys.parts import serving, states, steps_project, view_of, wait_until
from mongo_server import MongoServer, started, with_database
from shell import EXAMPLES, Shell

WAITING = """
with open(folder / "lines", "a") as file:
    file.write(f"{n}\\n")
while n == 1 and not (folder / "gate").exists():
    time.sleep(0.02)
"""


def test_hello_and_a_killed_server_on_mongodb(shell: Shell, mongo_server: MongoServer) -> None:
    uri = mongo_server.new_database()
    shell = replace(shell, environment={"DEEPFORGE_DATABASE": uri})
    hello = shell("run", EXAMPLES / "hello", "--json")
    folder = shell.folder / "steps"
    project = steps_project(folder, 3, WAITING, chained=True)
    with serving(shell) as server:
        execution = server.client("run", project, "--detach").out.strip()
        wait_until(lambda: (folder / "lines").exists() and "1" in (folder / "lines").read_text())
        server.kill()
    (folder / "gate").touch()
    with serving(shell) as server:
        followed = server.client("executions", "logs", "-f", execution)
        view = view_of(server.client, execution)

    assert hello.json["status"] == "succeeded"
    assert "steps succeeded" in followed.err
    assert set(states(view).values()) == {"succeeded"}
    assert [job["attempts"] for job in view["jobs"]] == [1, 1, 1]
    assert (folder / "lines").read_text() == "0\n1\n2\n"
    assert b"HELLO, WORLD!" in shell("artifacts", "get", "shouted", "-").data
    assert not (shell.home / "deepforge.db").exists()


def test_a_database_that_is_away_for_a_while_costs_only_time(shell: Shell, tmp_path: Path) -> None:
    """It goes while job 1 runs; job 1 ends meanwhile, and job 2 follows when it is back."""
    data = tmp_path / "mongo"
    data.mkdir()
    folder = shell.folder / "steps"
    project = steps_project(folder, 3, WAITING, chained=True)
    with started(data) as database:
        uri = with_database(database.uri, "away")
        with serving(replace(shell, environment={"DEEPFORGE_DATABASE": uri})) as server:
            execution = server.client("run", project, "--detach").out.strip()
            lines = folder / "lines"
            wait_until(lambda: lines.exists() and "1" in lines.read_text())
            database.kill()
            (folder / "gate").touch()
            time.sleep(2)
            database.start()
            followed = server.client("executions", "logs", "-f", execution)
            view = view_of(server.client, execution)

    assert "steps succeeded" in followed.err
    assert [job["attempts"] for job in view["jobs"]] == [1, 1, 1]
    assert lines.read_text() == "0\n1\n2\n"
