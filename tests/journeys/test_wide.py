"""Press play on a hundred operations side by side."""

from __future__ import annotations

import pickle

from shell import EXAMPLES, Shell


def test_wide(shell: Shell) -> None:
    result = shell("run", EXAMPLES / "wide", "--json", timeout_s=300)

    assert result.json["status"] == "succeeded"
    assert len(result.json["jobs"]) == 102
    assert {job["attempts"] for job in result.json["jobs"]} == {1}
    assert pickle.loads(shell("artifacts", "get", "total", "-").data) == 338350
