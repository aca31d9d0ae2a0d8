"""`deepforge executions`: looking back, logs, running again."""

from __future__ import annotations

import resource
import signal
import subprocess
from pathlib import Path

import pytest

from shell import EXAMPLES, Shell, write_project

HELLO = EXAMPLES / "hello"


@pytest.fixture
def flaky(shell: Shell) -> Path:
    """A project whose second operation fails until a file appears."""
    gate = shell.folder / "gate"
    return write_project(
        shell.folder / "project",
        {
            "operations/first.py": "class First:\n    def execute(self):\n"
            "        print('once')\n        number = 7\n        return number\n",
            "operations/second.py": "from pathlib import Path\n\n\nclass Second:\n"
            "    def execute(self, number):\n        print('at the gate')\n"
            f"        assert Path({str(gate)!r}).exists(), 'closed'\n"
            "        result = number + 1\n        return result\n",
            "pipelines/trial.py": "from operations.first import First\n"
            "from operations.second import Second\n\n\ndef trial():\n"
            "    number = First().execute()\n    result = Second().execute(number)\n"
            "    return result\n",
        },
    )


def test_an_execution_is_listed_and_shown(shell: Shell) -> None:
    made = shell("run", HELLO, "--set", "name=Ada", "--json").json

    listed = shell("executions", "list").out.splitlines()
    assert listed[0].split() == ["EXECUTION", "PROJECT", "PIPELINE", "STATUS", "STARTED", "TIME"]
    assert listed[1].split()[:4] == [made["execution"], "hello", "hello", "succeeded"]

    shown = shell("executions", "show", made["execution"]).out
    assert "greeting  Greet" in shown
    assert "Ada" in shown
    view = shell("executions", "show", made["execution"], "--json").json
    assert view["id"] == made["execution"]
    assert [job["status"] for job in view["jobs"]] == ["succeeded", "succeeded"]


def test_lists_are_filtered_and_limited(shell: Shell, flaky: Path) -> None:
    shell("run", HELLO)
    shell("run", HELLO)
    shell("run", flaky, code=1)

    def ids(*options: str) -> int:
        return len(shell("executions", "list", "--json", *options).json)

    assert ids() == 3
    assert ids("--limit", "2") == 2
    assert ids("--project", "hello") == 2
    assert ids("--status", "failed") == 1
    assert ids("--status", "cancelled") == 0
    assert "no project 'nope'" in shell("executions", "list", "--project", "nope", code=4).err


def test_the_log_of_a_job_is_what_it_printed(shell: Shell, flaky: Path) -> None:
    execution = shell("run", flaky, "--json", code=1).json["execution"]

    assert shell("executions", "logs", execution, "number").data == b"once\n"
    assert shell("executions", "logs", execution, "result").out.startswith("at the gate\n")


def test_following_what_has_ended_gives_the_log_and_its_exit_code(
    shell: Shell, flaky: Path
) -> None:
    execution = shell("run", flaky, "--json", code=1).json["execution"]

    assert shell("executions", "logs", "-f", execution, "number", code=1).data == b"once\n"
    followed = shell("executions", "logs", "-f", execution, code=1)

    assert "number | once\n" in followed.out
    assert "result failed: AssertionError: closed" in followed.err


def test_following_what_has_ended_gives_all_of_a_long_log(shell: Shell) -> None:
    files = {
        "operations/talk.py": "class Talk:\n    def execute(self):\n"
        "        for number in range(40_000):\n"
        "            print(f'line {number} of what is a long log, line after line')\n"
        "        return 1\n",
        "pipelines/trial.py": "from operations.talk import Talk\n\n\ndef trial():\n"
        "    one = Talk().execute()\n    return one\n",
    }
    execution = shell("run", write_project(shell.folder / "project", files), "--json").json

    followed = shell("executions", "logs", "-f", execution["execution"]).out

    lines = [line for line in followed.splitlines() if line.startswith("one | line ")]
    assert len(followed) > 2 * 1024 * 1024
    assert [line.split()[3] for line in lines] == [str(number) for number in range(40_000)]


def test_running_again_takes_over_what_succeeded(shell: Shell, flaky: Path) -> None:
    failed = shell("run", flaky, "--json", code=1).json
    (shell.folder / "gate").touch()

    again = shell("executions", "rerun", failed["execution"], "--json").json

    assert again["execution"] != failed["execution"]
    jobs = {job["name"]: job for job in again["jobs"]}
    assert jobs["number"]["cached"]
    assert not jobs["result"]["cached"]
    assert [one["name"] for one in again["artifacts"]] == ["result"]


def test_cancelling_what_has_ended_leaves_it_as_it_is(shell: Shell) -> None:
    execution = shell("run", HELLO, "--json").json["execution"]

    assert shell("executions", "cancel", execution, "--json").json["status"] == "succeeded"


@pytest.mark.parametrize("verb", ["show", "logs", "cancel", "rerun"])
def test_an_unknown_execution_is_told(shell: Shell, verb: str) -> None:
    assert "../nothing" in shell("executions", verb, "../nothing", code=4).err


def test_an_unknown_job_is_told_with_those_there_are(shell: Shell) -> None:
    execution = shell("run", HELLO, "--json").json["execution"]

    assert "greeting, shouted" in shell("executions", "logs", execution, "nothing", code=4).err
    assert "greeting, shouted" in shell("executions", "logs", execution, code=2).err


def test_what_is_on_a_full_disk_can_still_be_looked_at(shell: Shell) -> None:
    """Not one byte fits into any file any more."""
    execution = shell("run", HELLO, "--set", "name=Ada", "--json").json["execution"]

    def no_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            shell.command(*arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=shell.environ(),
            preexec_fn=no_room,
            check=False,
        )

    for arguments, words in (
        (["executions", "list"], execution),
        (["executions", "show", execution], "greeting"),
        (["executions", "logs", execution, "greeting"], "Hello, Ada!"),
        (["artifacts", "list"], "shouted"),
    ):
        told = run(*arguments)
        assert (told.returncode, told.stderr) == (0, ""), arguments
        assert words in told.stdout
    told = run("storage", "add", "memory", "lab")
    assert told.returncode == 1
    assert "cannot grow: the disk or a quota is full" in told.stderr
    assert "hint: make room" in told.stderr
