"""Objects to move, a real S3 service to move them to, and processes that do it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.measure import Measurement, clean_environment
from benchmarks.move import Plan, Thing

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"
sys.path.insert(0, str(TESTS))

from deepforge.execution.attempts import SMALLEST_PART_BYTES  # noqa: E402
from deepforge.execution.handover import PART_ABOVE_BYTES  # noqa: E402
from deepforge.ids import new_id  # noqa: E402
from deepforge.storage.client import StorageClient  # noqa: E402
from deepforge.storage.registry import open_storage  # noqa: E402
from deepforge.storage.signing import Credentials, Place, presign  # noqa: E402
from seaweed import Seaweed, started  # noqa: E402

T = TypeVar("T")

PEERS_PYTHON = ROOT / ".cache" / "bench-venv" / "bin" / "python"
S5CMD = ROOT / ".cache" / "bin" / "s5cmd"
_GRANTED_S = 3600.0


@dataclass(frozen=True)
class Load:
    """So many objects of one size."""

    title: str
    count: int
    size_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.count * self.size_bytes


@dataclass(frozen=True)
class Sample:
    """A load as files in a folder, and as objects of `bucket` under `sample/`."""

    load: Load
    folder: Path
    bucket: str
    digests: Sequence[str]

    def things(self, folder: Path, prefix: str) -> list[Thing]:
        """Each object with its file in `folder`."""
        names = [_name(number) for number in range(self.load.count)]
        return [
            Thing(f"{prefix}/{name}", str(folder / name), self.load.size_bytes, digest)
            for name, digest in zip(names, self.digests, strict=True)
        ]


def missing(client: str) -> str | None:
    """Why a client cannot be measured here, if it cannot."""
    if client in ("boto3", "minio") and not PEERS_PYTHON.exists():
        return "its environment is not made: run `make bench`"
    if client == "s5cmd" and not S5CMD.exists():
        return "the program is not here: benchmarks/install-s5cmd builds it where Go is"
    return None


class Depot:
    """A real SeaweedFS, and a folder where samples and downloads lie."""

    def __init__(self, folder: Path, seaweed: Seaweed) -> None:
        self._folder = folder
        self._seaweed = seaweed

    def sample(self, load: Load) -> Sample:
        """Make random files and store each as an object, for everybody to download."""
        folder = self._folder / new_id()
        folder.mkdir()
        digests = [_write_random(folder / _name(n), load.size_bytes) for n in range(load.count)]
        sample = Sample(load, folder, self._new_bucket(), digests)

        async def store(storage: StorageClient) -> None:
            for one in sample.things(folder, "sample"):
                await storage.put_file(one.key, Path(one.path))

        self._with_storage(sample.bucket, store)
        return sample

    def forget(self, sample: Sample) -> None:
        shutil.rmtree(sample.folder)
        self._remove_bucket(sample.bucket)

    def upload(self, client: str, sample: Sample) -> Measurement:
        """Let `client` store the sample in a bucket of its own, which is gone afterwards."""
        bucket = self._new_bucket()
        things = sample.things(sample.folder, "up")

        async def granted(storage: StorageClient) -> list[Thing]:
            return [await _granted_put(storage, one) for one in things]

        if client == "grants":
            things = self._with_storage(bucket, granted)
        found = self._run(client, self._plan("up", bucket, sample.folder, "up", things))

        async def stored(storage: StorageClient) -> list[int]:
            return [info.size_bytes async for info in storage.list("up/")]

        if self._with_storage(bucket, stored) != [one.size_bytes for one in things]:
            raise RuntimeError(f"{client} did not store {sample.load.title}")
        self._remove_bucket(bucket)
        return found

    def download(self, client: str, sample: Sample) -> Measurement:
        """Let `client` read the sample into files."""
        folder = self._folder / new_id()
        folder.mkdir()
        things = sample.things(folder, "sample")

        async def granted(storage: StorageClient) -> list[Thing]:
            return [await _granted_get(storage, one) for one in things]

        if client == "grants":
            things = self._with_storage(sample.bucket, granted)
        plan = self._plan("down", sample.bucket, folder, "sample", things)
        found = self._run(client, plan)
        if [one.stat().st_size for one in folder.iterdir()] != [one.size_bytes for one in things]:
            raise RuntimeError(f"{client} did not read {sample.load.title}")
        shutil.rmtree(folder)
        return found

    def _plan(
        self, direction: str, bucket: str, folder: Path, prefix: str, things: Sequence[Thing]
    ) -> Plan:
        server = self._seaweed
        return Plan(
            direction,
            server.endpoint_url,
            bucket,
            server.access_key_id,
            server.secret_access_key,
            str(folder),
            prefix,
            things,
        )

    def _run(self, client: str, plan: Plan) -> Measurement:
        """Give the plan to a process that has `client`, and complete its uploads in parts."""
        python = PEERS_PYTHON if client in ("boto3", "minio") else sys.executable
        _touch_memory(2 * sum(one.size_bytes for one in plan.things))
        process = subprocess.Popen(
            [python, Path(__file__).with_name("move.py"), client],
            env=clean_environment(S5CMD=str(S5CMD)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            print(json.dumps(asdict(plan)), file=process.stdin, flush=True)
            said: dict[str, Any] = {}
            for line in process.stdout:
                said = json.loads(line)
                if "complete" in said:
                    self._complete(plan.bucket, *said["complete"])
                    print(json.dumps("completed"), file=process.stdin, flush=True)
        if process.returncode != 0:
            raise RuntimeError(f"{client} ended with {process.returncode}")
        return said

    def _complete(self, bucket: str, key: str, upload: str, etags: Sequence[str]) -> None:
        async def complete(storage: StorageClient) -> None:
            await storage.complete_parts(key, upload, etags)

        self._with_storage(bucket, complete)

    def _new_bucket(self) -> str:
        """A bucket that has its volumes: the first objects of a new one wait a second for them."""
        bucket = self._seaweed.new_bucket()

        async def warm(storage: StorageClient) -> None:
            for n in range(20):
                await storage.put_bytes(f"warm/{n}", b"x" * 4096)

        self._with_storage(bucket, warm)
        return bucket

    def _remove_bucket(self, bucket: str) -> None:
        server = self._seaweed
        url = presign(
            "DELETE",
            Place(server.endpoint_url, bucket),
            None,
            credentials=Credentials(server.access_key_id, server.secret_access_key),
            region="us-east-1",
            expires_s=60,
        )
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=60).close()

    def _with_storage(self, bucket: str, use: Callable[[StorageClient], Awaitable[T]]) -> T:
        async def run() -> T:
            settings = self._seaweed.settings(bucket)
            async with open_storage("bench", "s3", settings) as storage:
                return await use(storage)

        return asyncio.run(run())


@contextmanager
def depot() -> Iterator[Depot]:
    """Start a SeaweedFS for the block. Needs a few GiB where temporary files lie."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        files = folder / "files"
        files.mkdir()
        with started(folder / "seaweed", options=("-master.volumeSizeLimitMB=4096",)) as seaweed:
            yield Depot(files, seaweed)


async def _granted_get(storage: StorageClient, one: Thing) -> Thing:
    grant = await storage.grant(one.key, "GET", expires_s=_GRANTED_S)
    return replace(one, url=grant.url)


async def _granted_put(storage: StorageClient, one: Thing) -> Thing:
    """As the server does it: one PUT, or parts for what is large."""
    if one.size_bytes <= PART_ABOVE_BYTES:
        grant = await storage.grant(one.key, "PUT", expires_s=_GRANTED_S)
        return replace(one, url=grant.url)
    upload = await storage.begin_parts(one.key)
    count = -(-one.size_bytes // SMALLEST_PART_BYTES)
    grants = [
        await storage.grant_part(one.key, upload, number, expires_s=_GRANTED_S)
        for number in range(1, count + 1)
    ]
    return replace(
        one,
        upload=upload,
        part_bytes=SMALLEST_PART_BYTES,
        part_urls=[str(grant.url) for grant in grants],
    )


def _touch_memory(size_bytes: int) -> None:
    """Make sure that this much memory can be had without asking a hypervisor for it.

    On a virtual machine the first touch of a page may cost more than the whole transfer, and pages
    that lie free for some seconds go back to the host: who gets them next would seem slow.
    """
    with mmap.mmap(-1, size_bytes) as memory:
        memory[:: mmap.PAGESIZE] = b"x" * -(-size_bytes // mmap.PAGESIZE)


def _name(number: int) -> str:
    return f"{number:04}"


def _write_random(path: Path, size_bytes: int) -> str:
    """Write a file that no service can make smaller; return its digest."""
    sha = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size_bytes, 1024**2):
            block = os.urandom(min(1024**2, size_bytes - start))
            sha.update(block)
            file.write(block)
    return "sha256:" + sha.hexdigest()
