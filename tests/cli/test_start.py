"""`deepforge start`: a server for other commands, and what a restart keeps."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from shell import EXAMPLES, Shell, write_project

HELLO = EXAMPLES / "hello"


@contextmanager
def serving(shell: Shell, *options: str) -> Iterator[tuple[Shell, subprocess.Popen[bytes]]]:
    """A running server, and a shell with another home whose commands speak to it."""
    with shell.begin("start", "--port", "0", *options) as process:
        try:
            assert process.stdout is not None
            url = re.search(rb"http://\S+", process.stdout.readline())
            assert url is not None, process.stderr and process.stderr.read().decode()
            client = replace(
                shell,
                home=shell.home.with_name("other-home"),
                environment={"DEEPFORGE_URL": url[0].decode()},
            )
            yield client, process
        finally:
            process.kill()
            process.communicate()


def test_commands_speak_to_a_server(shell: Shell) -> None:
    with serving(shell) as (client, _):
        made = client("run", HELLO, "--json").json
        assert made["status"] == "succeeded"
        assert client("artifacts", "get", "letters", "-").data
        assert not client.home.exists()

    assert shell("executions", "list", "--json").json[0]["id"] == made["execution"]


def test_a_detached_run_goes_on_by_itself(shell: Shell) -> None:
    with serving(shell) as (client, _):
        execution = client("run", HELLO, "--detach").out.strip()
        followed = client("executions", "logs", "-f", execution)

    assert "hello succeeded" in followed.err


def test_it_stops_at_ctrl_c_and_leaves_no_address(shell: Shell) -> None:
    with serving(shell) as (_, process):
        assert (shell.home / "address").exists()
        process.send_signal(2)
        assert process.wait(timeout=20) == 0

    assert not (shell.home / "address").exists()


def test_an_execution_goes_on_after_the_server_was_killed(shell: Shell) -> None:
    """kill -9 in the middle: the running job is found again and is not started twice."""
    gate, count = shell.folder / "gate", shell.folder / "count"
    project = waiting_project(shell.folder / "project", gate, count)
    with serving(shell) as (client, process):
        execution = client("run", project, "--detach").out.strip()
        _wait_for(count.exists)
        process.kill()
        process.wait()
    gate.touch()

    with serving(shell) as (client, _):
        followed = client("executions", "logs", "-f", execution)

    assert "trial succeeded" in followed.err
    assert count.read_text() == "x"


def test_what_a_killed_run_left_goes_on_when_somebody_follows_it(shell: Shell) -> None:
    """The same without a server: kill -9 of `deepforge run` itself."""
    gate, count = shell.folder / "gate", shell.folder / "count"
    project = waiting_project(shell.folder / "project", gate, count)
    with shell.begin("run", project) as process:
        _wait_for(count.exists)
        process.kill()
        process.communicate()
    execution = shell("executions", "list", "--json").json[0]
    assert execution["status"] == "running"
    gate.touch()

    followed = shell("executions", "logs", "-f", execution["id"])

    assert "trial succeeded" in followed.err
    assert count.read_text() == "x"


def test_a_server_for_others_wants_a_token(shell: Shell) -> None:
    told = shell("start", "--host", "0.0.0.0", "--port", "0", code=3)
    assert "deepforge users add" in told.err

    shell("users", "add", "ada", input=b"correct horse\n")
    with serving(shell, "--host", "0.0.0.0") as (client, _):
        assert "token" in client("executions", "list", code=3).err

        wrong = replace(client, environment={**client.environment, "DEEPFORGE_TOKEN": "wrong"})
        assert "token" in wrong("executions", "list", code=3).err

        token = client("login", "ada", input=b"correct horse\n").out.strip()
        right = replace(client, environment={**client.environment, "DEEPFORGE_TOKEN": token})
        assert right("executions", "list", "--json").json == []
        assert token not in right("executions", "list").err


def test_the_api_describes_itself(shell: Shell) -> None:
    with (
        serving(shell) as (client, _),
        urllib.request.urlopen(
            f"{client.environment['DEEPFORGE_URL']}/api/v1/openapi.json", timeout=30
        ) as answer,
    ):
        described = json.load(answer)

    assert "/api/v1/executions/{execution}/events" in described["paths"]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--port", "99999"], 2, "--port"),
        (["--host", "not a host"], 3, "not a host"),
        (["--public-url", "nonsense"], 3, "--public-url"),
    ],
)
def test_wrong_options_are_told(shell: Shell, options: list[str], code: int, words: str) -> None:
    assert words in shell("start", *options, code=code).err


def waiting_project(folder: Path, gate: Path, count: Path) -> Path:
    """A pipeline whose first job writes an `x` to `count`, then waits until `gate` is there."""
    return write_project(
        folder,
        {
            "operations/wait.py": "import time\nfrom pathlib import Path\n\n\nclass Wait:\n"
            "    def execute(self):\n"
            f"        with open({str(count)!r}, 'a') as file:\n            file.write('x')\n"
            f"        while not Path({str(gate)!r}).exists():\n            time.sleep(0.05)\n"
            "        z = 1\n        return z\n",
            "operations/add.py": "class Add:\n    def execute(self, z):\n"
            "        total = z + 1\n        return total\n",
            "pipelines/trial.py": "from operations.add import Add\n"
            "from operations.wait import Wait\n\n\ndef trial():\n    z = Wait().execute()\n"
            "    total = Add().execute(z)\n    return total\n",
        },
    )


def _wait_for(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
