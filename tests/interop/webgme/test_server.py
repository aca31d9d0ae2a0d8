"""That the original programs run here at all, so that a skipped or failed test says what it means."""

from __future__ import annotations

import hashlib
import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from interop.webgme.server import Engine, missing, worker_running

WITHIN_S = 30.0


@pytest.mark.parametrize("which", ["engine", "engine_auth"])
def test_the_original_worker_runs_a_job_of_the_original_server(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    engine: Engine = request.getfixturevalue(which)
    config = {"cmd": "python3", "args": ["main.py"], "resultArtifacts": []}
    files = {
        "executor_config.json": json.dumps(config).encode(),
        "main.py": b"print('hello')",
    }
    labelled = _new_job(engine, files, labels=["red"])
    unlabelled = _new_job(engine, {**files, "more": b"1"}, labels=[])

    with worker_running(tmp_path, engine.url, token=engine.token) as worker:
        ended = _ended(engine, unlabelled)
        waiting = _call(engine, f"/rest/executor/info/{labelled}")

    assert ended["status"] == "SUCCESS", worker.log.read_text()
    assert waiting["status"] == "CREATED", "a worker without the label must not get it"


def test_what_is_missing_is_said_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    assert "node and unzip" in (missing() or "")


def _new_job(engine: Engine, files: dict[str, bytes], labels: list[str]) -> str:
    content = {}
    for name, data in files.items():
        _call(engine, f"/rest/blob/createFile/{name}", data)
        content[name] = {"content": hashlib.sha1(data).hexdigest(), "contentType": "object"}
    metadata = {
        "name": "job.zip", "size": sum(map(len, files.values())), "mime": "application/zip",
        "content": content, "contentType": "complex",
    }  # fmt: skip
    (job,) = _call(engine, "/rest/blob/createMetadata/", json.dumps(metadata).encode())
    body = json.dumps({"hash": job, "labels": labels}).encode()
    _call(engine, f"/rest/executor/create/{job}", body, "application/json")
    return str(job)


def _ended(engine: Engine, job: str) -> dict[str, Any]:
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        info = _call(engine, f"/rest/executor/info/{job}")
        if info["status"] not in ("CREATED", "RUNNING"):
            return info
        time.sleep(0.05)
    raise AssertionError(f"job {job} did not end within {WITHIN_S} s")


def _call(
    engine: Engine, path: str, data: bytes | None = None, type: str = "application/octet-stream"
) -> dict[str, Any]:
    request = urllib.request.Request(engine.url + path, data, engine.headers)
    if data is not None:
        request.add_header("Content-Type", type)
    with urllib.request.urlopen(request, timeout=10) as answer:
        result: dict[str, Any] = json.load(answer)
        return result
