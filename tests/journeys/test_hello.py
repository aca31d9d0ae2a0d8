"""Press play on the smallest example."""

from __future__ import annotations

from shell import EXAMPLES, Shell


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
