"""Move objects with one client, in a process of its own, and say what it took.

    python move.py CLIENT <plan.json

The plan comes as one line of JSON on standard input, the figures leave as the last line of standard
output. Clients import what they need before the clock starts, so a process without DeepForge can run
the others.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

AT_ONCE = 8
"""Objects that move at once, for libraries that leave it to their caller."""


@dataclass(frozen=True)
class Thing:
    """One object and the file it comes from, or goes to. The rest is for clients that verify, or
    that were granted a URL, or parts."""

    key: str
    path: str
    size_bytes: int
    digest: str
    url: str | None = None
    upload: str | None = None
    part_bytes: int = 0
    part_urls: Sequence[str] = ()


@dataclass(frozen=True)
class Plan:
    """`things` lie flat in `folder` and under `prefix`, and are all that is there."""

    direction: str
    endpoint_url: str
    bucket: str
    access_key_id: str
    secret_access_key: str
    folder: str
    prefix: str
    things: Sequence[Thing] = field(default_factory=list)

    @property
    def is_up(self) -> bool:
        return self.direction == "up"


Move = Callable[[], object]


def main(client: str) -> None:
    plan = Plan(**json.loads(sys.stdin.readline()))
    plan = Plan(**{**vars(plan), "things": [Thing(**one) for one in plan.things]})  # type: ignore[arg-type]
    move = CLIENTS[client](plan)
    cpu_s, began = _cpu_s(), time.perf_counter()
    move()
    seconds = time.perf_counter() - began
    figures = {"seconds": seconds, "cpu_s": _cpu_s() - cpu_s, "peak_mb": _peak_mb()}
    print(json.dumps(figures), flush=True)
    os._exit(0)  # leaving is not measured, and some clients' threads are slow to end


# ── ours ──────────────────────────────────────────────────────────────────────────────────────────


def storage_client(plan: Plan) -> Move:
    """What the server uses: hashes on the way up, verifies on the way down."""
    import asyncio

    import uvloop

    from deepforge.settings import Secret
    from deepforge.storage.client import StorageClient
    from deepforge.storage.port import ObjectRef
    from deepforge.storage.s3 import S3Adapter, S3Settings

    settings = S3Settings(
        plan.endpoint_url, plan.bucket, plan.access_key_id, Secret(plan.secret_access_key)
    )

    async def move() -> None:
        async with S3Adapter(settings) as adapter:
            client = StorageClient(adapter, "bench")
            waiting = list(plan.things)

            async def work() -> None:
                while waiting:
                    one = waiting.pop()
                    if plan.is_up:
                        ref = await client.put_file(one.key, Path(one.path))
                        assert ref.digest == one.digest
                    else:
                        ref = ObjectRef("bench", one.key, one.size_bytes, one.digest)
                        await client.get_file(ref, Path(one.path))

            await asyncio.gather(*(work() for _ in range(AT_ONCE)))

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(move())

    return run


def grants(plan: Plan) -> Move:
    """What a job's runner does with what it was granted: no keys, digests computed and verified."""
    from deepforge.runner.fetch import Item, fetch_many
    from deepforge.runner.protocol import Grant
    from deepforge.runner.store import Upload, store_many

    if not plan.is_up:
        items = [
            Item(one.key, Grant("http", "GET", url=one.url), one.size_bytes, one.digest)
            for one in plan.things
        ]
        return lambda: fetch_many(items, plan.folder)

    by_name = {one.key: one for one in plan.things}

    class Line:
        """The server's side of an upload in parts: granted beforehand, completed by our parent."""

        def parts(
            self, name: str, size_bytes: int, patience_s: float
        ) -> tuple[str, int, list[Grant]]:
            one = by_name[name]
            urls = [Grant("http", "PUT", url=url) for url in one.part_urls]
            return str(one.upload), one.part_bytes, urls

        def complete(self, name: str, upload: str, etags: Sequence[str], patience_s: float) -> None:
            print(json.dumps({"complete": [name, upload, list(etags)]}), flush=True)
            assert json.loads(sys.stdin.readline()) == "completed"

    uploads = [
        Upload(
            one.key,
            one.path,
            Grant("http", "PUT", url=one.url),
            part_above_bytes=one.size_bytes - 1 if one.upload else None,
        )
        for one in plan.things
    ]

    def run() -> None:
        make_line: Any = lambda client: Line()  # noqa: E731
        stored = store_many(uploads, make_line=make_line)
        assert [one.digest for one in stored] == [one.digest for one in plan.things]

    return run


# ── the peers ─────────────────────────────────────────────────────────────────────────────────────


def obstore(plan: Plan) -> Move:
    """Raw obstore at its best: the payload is not hashed a second time for its signature."""
    library = importlib.import_module("obstore")
    store = importlib.import_module("obstore.store").S3Store(
        plan.bucket,
        endpoint=plan.endpoint_url,
        access_key_id=plan.access_key_id,
        secret_access_key=plan.secret_access_key,
        region="us-east-1",
        virtual_hosted_style_request=False,
        unsigned_payload=True,
        client_options={"allow_http": True},
    )

    def up(one: Thing) -> None:
        library.put(store, one.key, Path(one.path))

    def down(one: Thing) -> None:
        with open(one.path, "wb", buffering=0) as file:
            for chunk in library.get(store, one.key).stream():
                file.write(chunk)

    return _in_threads(up if plan.is_up else down, plan.things)


def boto3(plan: Plan) -> Move:
    """The AWS client with its transfer manager, as it comes."""
    client = importlib.import_module("boto3").client(
        "s3",
        endpoint_url=plan.endpoint_url,
        aws_access_key_id=plan.access_key_id,
        aws_secret_access_key=plan.secret_access_key,
        region_name="us-east-1",
    )
    manager = importlib.import_module("s3transfer.manager").TransferManager(client)

    def run() -> None:
        if plan.is_up:
            futures = [manager.upload(one.path, plan.bucket, one.key) for one in plan.things]
        else:
            futures = [manager.download(plan.bucket, one.key, one.path) for one in plan.things]
        for future in futures:
            future.result()

    return run


def minio(plan: Plan) -> Move:
    """MinIO's client, one object a thread, as it comes."""
    client = importlib.import_module("minio").Minio(
        endpoint=plan.endpoint_url.partition("://")[2],
        access_key=plan.access_key_id,
        secret_key=plan.secret_access_key,
        secure=False,
        region="us-east-1",
    )

    def up(one: Thing) -> None:
        client.fput_object(bucket_name=plan.bucket, object_name=one.key, file_path=one.path)

    def down(one: Thing) -> None:
        client.fget_object(bucket_name=plan.bucket, object_name=one.key, file_path=one.path)

    return _in_threads(up if plan.is_up else down, plan.things)


def s5cmd(plan: Plan) -> Move:
    """The Go program, as it comes. Its start, some hundredths of a second, is measured with it."""
    remote = f"s3://{plan.bucket}/{plan.prefix}/"
    sides = [plan.folder + "/", remote] if plan.is_up else [remote + "*", plan.folder + "/"]
    binary = os.environ["S5CMD"]
    command = [binary, "--log=error", "--endpoint-url", plan.endpoint_url, "cp", *sides]
    environment = {
        "AWS_ACCESS_KEY_ID": plan.access_key_id,
        "AWS_SECRET_ACCESS_KEY": plan.secret_access_key,
        "AWS_REGION": "us-east-1",
    }
    return lambda: subprocess.run(command, env=environment, check=True)


CLIENTS: dict[str, Callable[[Plan], Move]] = {
    "client": storage_client,
    "grants": grants,
    "obstore": obstore,
    "boto3": boto3,
    "minio": minio,
    "s5cmd": s5cmd,
}


def _in_threads(work: Callable[[Thing], None], things: Iterable[Thing]) -> Move:
    def run() -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(work, things):
                pass

    return run


def _cpu_s() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def _peak_mb() -> float:
    """The most memory this process ever had, or its child if that had more."""
    status = Path("/proc/self/status").read_text()
    peak_kib = int(status.partition("VmHWM:")[2].split()[0])
    child_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(peak_kib, child_kib) * 1024 / 1e6


if __name__ == "__main__":
    main(sys.argv[1])
