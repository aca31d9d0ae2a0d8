"""Press play on the main job: real data, a real network, a real picture."""

from __future__ import annotations

import pickle

from shell import Shell


def test_digits(shell: Shell) -> None:
    result = shell("demo", "--json", timeout_s=300)

    assert result.json["status"] == "succeeded"
    artifacts = {one["name"]: one for one in result.json["artifacts"]}
    assert set(artifacts) == {"model", "history", "accuracy", "confusion"}
    assert all(one["digest"] and one["size_bytes"] > 0 for one in artifacts.values())
    # we wrote these bytes ourselves a moment ago
    assert pickle.loads(shell("artifacts", "get", "accuracy", "-").data) > 0.9
    assert len(pickle.loads(shell("artifacts", "get", "history", "-").data)) == 30
    assert shell("artifacts", "get", "confusion", "-").data.startswith(b"\x89PNG\r\n\x1a\n")
    shown = shell("artifacts", "show", "model").out
    assert "sklearn.neural_network" in shown
    assert result.json["execution"] in shown
