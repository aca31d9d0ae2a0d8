"""Our worker in the service of the original server, unmodified, with and without authentication."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from deepforge.runner import protocol
from deepforge.runner.build import runner_archive
from deepforge.worker.build import worker_archive
from interop.webgme.server import Engine
from runner.far_side import Ended, FarSide, lives, until
from worker.programs import Running, Workers


class Client:
    """A client of the original server, as small as possible."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def ask(self, path: str, body: bytes | None = None, kind: str = "octet-stream") -> bytes:
        headers = {**self._engine.headers, "Content-Type": f"application/{kind}"}
        request = urllib.request.Request(self._engine.url + path, body, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            data: bytes = answer.read()
        return data

    def store(self, name: str, data: bytes) -> str:
        return self._key("/rest/blob/createFile/" + quote(name, safe=""), data)

    def artifact(self, files: Mapping[str, bytes]) -> str:
        """Store files as one complex artifact and return its hash."""
        content = {
            name: {"content": hashlib.sha1(data).hexdigest(), "contentType": "object"}
            for name, data in files.items()
        }
        for name, data in files.items():
            self.store(Path(name).name, data)
        metadata = {
            "name": "job.zip",
            "size": sum(map(len, files.values())),
            "mime": "application/zip",
            "content": content,
            "contentType": "complex",
        }
        return self._key("/rest/blob/createMetadata/", json.dumps(metadata).encode())

    def create(self, hash: str) -> str:
        """Put a job into the queue and return its secret."""
        made = json.loads(self.ask(f"/rest/executor/create/{hash}", b"{}", "json"))
        return str(made["secret"])

    def info(self, hash: str) -> Any:
        return json.loads(self.ask(f"/rest/executor/info/{hash}"))

    def status(self, hash: str) -> str:
        return str(self.info(hash)["status"])

    def output(self, hash: str) -> str:
        found = json.loads(self.ask(f"/rest/executor/output/{hash}?start=0&end=0"))
        return "".join(one["output"] for one in found)

    def cancel(self, hash: str, secret: str) -> None:
        body = json.dumps({"secret": secret}).encode()
        self.ask(f"/rest/executor/cancel/{hash}", body, "json")

    def result(self, hash: str, artifact: str, path: str) -> bytes:
        found = self.info(hash)["resultHashes"][artifact]
        return self.ask(f"/rest/blob/view/{found}/{quote(path)}")

    def _key(self, path: str, data: bytes) -> str:
        (key,) = json.loads(self.ask(path, data))
        return str(key)


@pytest.fixture(params=["engine", "engine_auth"])
def site(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def client(site: Engine) -> Client:
    return Client(site)


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    pyz = tmp_path / "worker.pyz"
    pyz.write_bytes(worker_archive())
    made = Workers(tmp_path, pyz)
    yield made
    made.end()


@pytest.fixture
def worker(site: Engine, workers: Workers) -> Running:
    return workers(site.url, "--jobs", "2", token=site.token)


def files(script: str, **config: Any) -> dict[str, bytes]:
    """The files of a job that runs a script of Python. Each time another job."""
    patterns = [
        {"name": "results", "resultPatterns": ["result.txt", "sub/**"]},
        {"name": "all", "resultPatterns": []},
    ]
    told = {"cmd": sys.executable, "args": ["main.py"], "resultArtifacts": patterns, **config}
    return {
        "executor_config.json": json.dumps(told).encode(),
        "main.py": script.encode(),
        "unique.txt": os.urandom(8).hex().encode(),
    }


def test_a_job_runs_to_success(client: Client, worker: Running) -> None:
    script = """
import os
os.makedirs("sub")
open("sub/a.txt", "w").write("in a folder")
open("result.txt", "w").write("é")
print("printed")
"""
    hash = client.artifact(files(script, outputInterval=50))
    client.create(hash)
    until(lambda: client.status(hash) == "SUCCESS")

    info = client.info(hash)
    assert {"results", "all"} == set(info["resultHashes"])
    assert info["startTime"] <= info["finishTime"]
    assert "é".encode() == client.result(hash, "results", "result.txt")
    assert b"in a folder" == client.result(hash, "results", "sub/a.txt")
    assert b"printed\n" == client.result(hash, "all", "job_stdout.txt")
    assert "printed\n" == client.output(hash)
    until(lambda: not worker.job_folders)


def test_a_failing_job_keeps_its_results(client: Client, worker: Running) -> None:
    hash = client.artifact(files("open('result.txt', 'w').write('half')\nraise SystemExit(2)"))
    client.create(hash)
    until(lambda: client.status(hash) == "FAILED_TO_EXECUTE")

    assert b"half" == client.result(hash, "results", "result.txt")


def test_a_job_is_cancelled(client: Client, worker: Running, tmp_path: Path) -> None:
    place = tmp_path / "pid"
    script = (
        f"import os, time\nopen({str(place)!r}, 'w').write(f'{{os.getpid()}}.')\ntime.sleep(600)"
    )
    hash = client.artifact(files(script))
    secret = client.create(hash)
    until(lambda: place.exists() and place.read_text().endswith("."))
    client.cancel(hash, secret)
    until(lambda: client.status(hash) == "CANCELED")

    assert not lives(int(place.read_text()[:-1]))


def test_a_hostile_archive_is_refused(client: Client, worker: Running) -> None:
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../evil.txt", os.urandom(8))
    hash = client.store("job.zip", buffer.getvalue())
    client.create(hash)
    until(lambda: client.status(hash) == "FAILED_UNZIP")

    assert worker.process.poll() is None


def test_large_output_arrives_whole(client: Client, worker: Running) -> None:
    """A million characters that JSON makes three times as long; a body may have 100 KB."""
    script = "print('\\u00e9\\n' * 500_000, end='')"
    hash = client.artifact(files(script, outputInterval=20))
    client.create(hash)
    until(lambda: client.status(hash) == "SUCCESS", within_s=40)

    assert "é\n" * 500_000 == client.output(hash)


def test_told_twice_to_end_it_gives_the_job_back(
    site: Engine, client: Client, worker: Running, workers: Workers, tmp_path: Path
) -> None:
    """The next worker runs it from its beginning."""
    place = tmp_path / "ran"
    script = f"""
import os, time
with open({str(place)!r}, "a") as file:
    file.write("x")
while os.path.getsize({str(place)!r}) < 2:
    time.sleep(0.01)
"""
    hash = client.artifact(files(script))
    client.create(hash)
    until(place.exists)
    worker.process.terminate()
    until(lambda: "told to end" in worker.said)
    worker.end()
    assert "CREATED" == client.status(hash)
    workers(site.url, token=site.token, folder=tmp_path / "second")
    until(lambda: client.status(hash) == "SUCCESS")

    assert "xx" == place.read_text()


def test_a_bundle_of_ours_runs(client: Client, worker: Running, tmp_path: Path) -> None:
    """What our server hands to workers that know only the executor framework."""
    far = FarSide(tmp_path / "far")
    handed = far.job("class Op:\n    def execute(self): return [1, 2]\n")
    config = {
        "cmd": "python3",
        "args": ["runner.pyz", "job.json"],
        "outputInterval": 1000,
        "resultArtifacts": [{"name": "result", "resultPatterns": ["result.json", "log.txt"]}],
    }
    bundle = {
        "executor_config.json": json.dumps(config).encode(),
        "runner.pyz": runner_archive(),
        "job.json": protocol.to_json(handed),
    }
    hash = client.artifact(bundle)
    client.create(hash)
    until(lambda: client.status(hash) == "SUCCESS")

    assert [1, 2] == Ended(0, "", "", far.store, far.folder).output()
