"""`deepforge run`: targets, choices, results and bad input."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from shell import EXAMPLES, Shell, write_project

HELLO = EXAMPLES / "hello"

FAILING = {
    "operations/first.py": "class First:\n    def execute(self):\n        number = 7\n"
    "        return number\n",
    "operations/divide.py": "class Divide:\n    def execute(self, number):\n"
    "        result = number / 0\n        return result\n",
    "pipelines/trial.py": "from operations.divide import Divide\n"
    "from operations.first import First\n\n\ndef trial():\n"
    "    number = First().execute()\n    result = Divide().execute(number)\n"
    "    after = Divide().execute(result)\n    return after\n",
}


def test_a_pipeline_runs_and_leaves_artifacts(shell: Shell) -> None:
    result = shell("run", HELLO, "--set", "name=Ada", "--json")

    assert result.out.count("\n") == 1
    assert result.json["status"] == "succeeded"
    assert [job["name"] for job in result.json["jobs"]] == ["greeting", "shouted"]
    assert all(job["attempts"] == 1 and not job["cached"] for job in result.json["jobs"])
    artifacts = {one["name"]: one for one in result.json["artifacts"]}
    assert set(artifacts) == {"shouted", "letters"}
    assert all(one["digest"].startswith("sha256:") for one in artifacts.values())
    assert artifacts["shouted"]["version"] == 1
    assert artifacts["shouted"]["storage"] == "local"
    assert "greeting | Hello, Ada!" in result.err


def test_without_json_standard_output_stays_empty(shell: Shell) -> None:
    result = shell("run", HELLO)

    assert result.out == ""
    assert "hello succeeded after" in result.err
    assert "shouted: succeeded in" in result.err


def test_a_pipeline_may_be_named_behind_a_colon(shell: Shell) -> None:
    assert shell("run", f"{HELLO}:hello", "--json").json["status"] == "succeeded"


def test_the_folder_may_be_the_current_one(shell: Shell) -> None:
    here = replace(shell, folder=HELLO)

    assert here("run", ".", "--json").json["status"] == "succeeded"


def test_a_failure_shows_the_users_own_line_and_what_to_do(shell: Shell) -> None:
    project = write_project(shell.folder / "project", FAILING)

    result = shell("run", project, "--json", code=1)

    assert {job["name"]: job["status"] for job in result.json["jobs"]} == {
        "number": "succeeded",
        "result": "failed",
        "after": "skipped",
    }
    assert "result failed: ZeroDivisionError: division by zero" in result.err
    assert "at operations/divide.py:3" in result.err
    assert "after: skipped, because result did not succeed" in result.err
    execution = result.json["execution"]
    assert f"deepforge executions logs {execution} result" in result.err
    assert f"deepforge executions rerun {execution}" in result.err


@pytest.mark.parametrize(
    ("pipeline", "line", "words"),
    [
        ("def trial(:\n    return None\n", 1, ""),
        ("def trial():\n    for n in range(3):\n        pass\n", 2, ""),
        (
            "from operations.nothing import Nothing\n\n\n"
            "def trial():\n    a = Nothing().execute()\n    return a\n",
            1,
            "nothing",
        ),
        (
            "from operations.divide import Divide\n\n\n"
            "def trial():\n    a = Divide().execute()\n    return a\n",
            5,
            "number",
        ),
        (
            "from operations.divide import Divide\n\n\n"
            "def trial():\n    a = Divide().execute(b)\n    b = Divide().execute(a)\n"
            "    return b\n",
            5,
            "b",
        ),
    ],
    ids=["syntax", "unsupported statement", "unknown operation", "missing input", "cycle"],
)
def test_a_pipeline_that_breaks_a_rule_is_refused_with_its_place(
    shell: Shell, pipeline: str, line: int, words: str
) -> None:
    project = write_project(shell.folder / "project", {**FAILING, "pipelines/trial.py": pipeline})

    result = shell("run", "project", "--json", code=2)

    findings = result.json["error"]["details"]["findings"]
    place = f"{project.name}/pipelines/trial.py:{line}: "
    assert place in result.err
    assert any(one["line"] == line and words in one["message"] for one in findings)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere"], 2, "there is no folder nowhere"),
        (["nowhere:"], 2, "names no pipeline"),
        ([HELLO / "deepforge.toml"], 2, "deepforge.toml is a file, not the folder of a project"),
        ([f"{HELLO}:nothing"], 2, "nothing"),
        ([HELLO, "--set", "name"], 2, "NAME=VALUE"),
        ([HELLO, "--set", "name=a", "--set", "name=b"], 2, "given twice"),
        ([HELLO, "--set", "size=3"], 2, "size"),
        ([HELLO, "--input", "name=nothing"], 2, "name"),
        ([HELLO, "--storage", "nowhere"], 4, "nowhere"),
        ([HELLO, "--compute", "nowhere"], 4, "nowhere"),
        ([HELLO, "--compute", "a", "--compute", "b"], 2, "both"),
        ([HELLO, "--compute", "Nothing=server"], 2, "Nothing"),
        ([HELLO, "--detach"], 2, "DEEPFORGE_URL"),
    ],
    ids=lambda value: " ".join(map(str, value))[-40:] if isinstance(value, list) else None,
)
def test_bad_choices_are_refused_before_anything_runs(
    shell: Shell, arguments: list[str | Path], code: int, words: str
) -> None:
    result = shell("run", *arguments, code=code)

    assert words in result.err
    assert shell("executions", "list", "--json").json == []


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, 'name = "project"'), ("x = [", "not valid TOML"), ("a = 1", "has no name")],
)
def test_a_project_says_its_name(shell: Shell, text: str | None, words: str) -> None:
    project = write_project(shell.folder / "project", FAILING)
    (project / "deepforge.toml").unlink()
    if text is not None:
        (project / "deepforge.toml").write_text(text)

    assert words in shell("run", "project", code=2).err


def test_what_gitignore_ignores_is_not_recorded(shell: Shell) -> None:
    files = {
        "operations/look.py": "from pathlib import Path\n\n\nclass Look:\n"
        "    def execute(self):\n        root = Path(__file__).parents[1]\n"
        "        seen = sorted(p.name for p in root.iterdir())\n"
        "        print(seen)\n        return seen\n",
        "pipelines/look.py": "from operations.look import Look\n\n\ndef look():\n"
        "    seen = Look().execute()\n    return seen\n",
        ".gitignore": "secret.txt\n",
        "secret.txt": "do not take me along",
        "taken.txt": "take me along",
    }
    write_project(shell.folder / "project", files)

    told = shell("run", "project").err

    assert "taken.txt" in told
    assert "secret.txt" not in told


def test_ctrl_c_cancels_and_a_second_one_leaves(shell: Shell) -> None:
    project = write_project(shell.folder / "project", SLEEPING)
    with shell.begin("run", project) as process:
        _read_until(process, b"z | asleep")
        process.send_signal(2)
        told = _read_until(process, b"succeeded", b"cancelled after")
        assert process.wait(timeout=30) == 130
        _close(process)

    assert b"cancelling" in told
    assert shell("executions", "list", "--json").json[0]["status"] == "cancelled"


def test_who_leaves_by_a_second_ctrl_c_is_told_what_becomes_of_it(shell: Shell) -> None:
    asleep = "import signal\n" + SLEEPING["operations/sleep.py"].replace(
        "print(", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n        print("
    )  # and so it takes its time to end
    project = write_project(shell.folder / "project", {**SLEEPING, "operations/sleep.py": asleep})
    with shell.begin("run", project) as process:
        _read_until(process, b"z | asleep")
        process.send_signal(2)
        _read_until(process, b"cancelling")
        execution = shell("executions", "list", "--json").json[0]
        while execution["cancel_requested_at"] is None:
            execution = shell("executions", "list", "--json").json[0]
        process.send_signal(2)
        told = _read_until(process, b"stopped").decode()
        assert process.wait(timeout=30) == 130
        _close(process)

    assert f"left execution {execution['id']}: its cancellation is noted" in told
    assert f"\n  deepforge executions cancel {execution['id']}\n" in told
    assert shell("executions", "list", "--json").json[0]["status"] == "running"
    ended = shell("executions", "cancel", execution["id"], "--json").json
    assert ended["status"] == "cancelled"


SLEEPING = {
    "operations/sleep.py": "import time\n\n\nclass Sleep:\n    def execute(self):\n"
    "        print('asleep')\n        time.sleep(600)\n        z = 1\n        return z\n",
    "pipelines/trial.py": "from operations.sleep import Sleep\n\n\ndef trial():\n"
    "    z = Sleep().execute()\n    return z\n",
}


def _read_until(process: subprocess.Popen[bytes], *words: bytes) -> bytes:
    """Read standard error up to a line with one of the words."""
    assert process.stderr is not None
    told = b""
    for line in process.stderr:
        told += line
        if any(word in line for word in words):
            return told
    raise AssertionError(f"it ended without {words!r}:\n{told.decode()}")


def _close(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()


def test_executable_files_stay_so_and_links_are_told_of(shell: Shell) -> None:
    files = {
        "tools/greet.sh": "#!/bin/sh\necho it ran\n",
        "operations/greet.py": "import pathlib\nimport subprocess\n\n\nclass Greet:\n"
        "    def execute(self):\n        code = pathlib.Path(__file__).parents[1]\n"
        "        said = [subprocess.check_output([code / 'tools' / name], text=True)\n"
        "                for name in ('greet.sh', 'link.sh')]\n        return said\n",
        "pipelines/trial.py": "from operations.greet import Greet\n\n\n"
        "def trial():\n    said = Greet().execute()\n    return said\n",
    }
    project = write_project(shell.folder / "project", files)
    (project / "tools" / "greet.sh").chmod(0o755)
    (project / "tools" / "link.sh").symlink_to("greet.sh")

    result = shell("run", project, "--json")

    assert result.json["status"] == "succeeded", result.err
    words = "symbolic links are recorded as the files they lead to: 'tools/link.sh'"
    assert words in result.err.splitlines()
