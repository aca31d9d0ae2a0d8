"""Press play on the smallest example."""

from __future__ import annotations

from shell import EXAMPLES, Shell, write_project


def test_hello(shell: Shell) -> None:
    result = shell("run", EXAMPLES / "hello", "--set", "name=Ada", "--json")

    assert result.json["status"] == "succeeded"
    shouted = shell("artifacts", "get", "shouted", "-").data
    assert b"HELLO, ADA!" in shouted


def test_a_second_run_makes_no_new_commit_and_new_versions(shell: Shell) -> None:
    for _ in range(2):
        shell("run", EXAMPLES / "hello")

    runs = shell("executions", "list", "--json").json
    assert len({one["commit"] for one in runs}) == 1
    versions = [
        one["version"] for one in shell("artifacts", "list", "--name", "shouted", "--json").json
    ]
    assert sorted(versions) == [1, 2]


def test_a_file_of_ones_own_goes_through_a_pipeline_and_comes_back(shell: Shell) -> None:
    project = write_project(
        shell.folder / "project",
        {
            "operations/turn.py": "class Turn:\n    def execute(self, data):\n"
            "        turned = data[::-1]\n        return turned\n",
            "pipelines/trial.py": "from operations.turn import Turn\n\n\n"
            "def trial(data=None):\n    turned = Turn().execute(data)\n    return turned\n",
        },
    )
    shell("artifacts", "put", "-", "--name", "mine", input=b"abc")
    shell("artifacts", "put", "-", "--name", "mine", input=b"xyz")

    shell("run", project, "--input", "data=mine@1")
    assert shell("artifacts", "get", "turned", "-").data == b"cba"

    shell("run", project, "--input", "data=mine")
    assert shell("artifacts", "get", "turned", "-").data == b"zyx"
    assert shell("artifacts", "get", "turned@1", "-").data == b"cba"
