"""Inputs arrive whole and verified, whatever the way does to them."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from deepforge.runner.cache import Cache
from deepforge.runner.failures import AttemptOver, Cancelled, JobFailed
from deepforge.runner.fetch import Fetched, Item, fetch_many
from deepforge.runner.protocol import Grant, Input, InputRead
from deepforge.runner.watch import Watch
from deepforge.runner.wire import Client
from runner.far_server import FarServer, Fault
from runner.far_side import FarSide, digest, dumped

DATA = os.urandom(300_000)


def item(server: FarServer, name: str = "data", data: bytes = DATA, **grant: str) -> Item:
    server.objects.setdefault(name, data)
    return Item(name, server.granted(name, "GET", **grant), len(data), digest(data))


def fetch(one: Item, folder: Path, **more: object) -> Fetched:
    more.setdefault("patience_s", 1.0)
    (found,) = fetch_many([one], str(folder), **more)  # type: ignore[arg-type]
    return found


def ours(message: str, *, expired: bool) -> bytes:
    """How our own server says that a storage refused its login."""
    error = {"message": message, "hint": "log in", "details": {"expired": expired}}
    return json.dumps({"error": error}).encode()


def test_many_objects_arrive_in_order_and_verified(server: FarServer, tmp_path: Path) -> None:
    contents = [os.urandom(number * 37) for number in range(120)]
    items = [item(server, f"object-{n}", data) for n, data in enumerate(contents)]

    found = fetch_many(items, str(tmp_path), workers=4)

    assert contents == [Path(one.path).read_bytes() for one in found]
    assert [digest(data) for data in contents] == [one.digest for one in found]


def test_workers_keep_their_connections(server: FarServer, tmp_path: Path) -> None:
    opened = []
    connect = server._server.process_request

    def counting(request: Any, client_address: Any) -> None:
        opened.append(client_address)
        connect(request, client_address)

    server._server.process_request = counting  # type: ignore[method-assign]
    fetch_many([item(server, f"o{n}", b"x" * n) for n in range(50)], str(tmp_path), workers=3)

    assert 1 <= len(opened) <= 3


@pytest.mark.parametrize("chunked", [False, True])
def test_a_cut_transfer_goes_on_where_it_was(
    server: FarServer, tmp_path: Path, chunked: bool
) -> None:
    one = item(server)
    server.fail("/objects/data", Fault(cut_after=100_000), Fault(status=503), Fault(cut_after=50))
    server.chunked = False

    found = fetch(one, tmp_path)

    assert DATA == Path(found.path).read_bytes()
    ranges = [request.headers.get("range") for request in server.asked("/objects/data")]
    assert [None, "bytes=100000-", "bytes=100000-", "bytes=100050-"] == ranges


def test_a_server_without_ranges_starts_again(server: FarServer, tmp_path: Path) -> None:
    one = item(server)
    server.ranges = False
    server.fail("/objects/data", Fault(cut_after=100_000))

    assert DATA == Path(fetch(one, tmp_path).path).read_bytes()


def test_a_body_in_chunks_is_read(server: FarServer, tmp_path: Path) -> None:
    one = item(server)
    server.chunked = True

    assert DATA == Path(fetch(one, tmp_path).path).read_bytes()


@pytest.mark.parametrize("wrong", [DATA[:-1], DATA + b"x", b"y" + DATA[1:], b""])
def test_altered_data_are_corrupt_and_never_kept(
    server: FarServer, tmp_path: Path, wrong: bytes
) -> None:
    one = item(server)
    server.fail("/objects/data", Fault(whole=wrong), Fault(whole=wrong))

    with pytest.raises(JobFailed) as caught:
        fetch(one, tmp_path, cache=Cache(str(tmp_path / "cache")))

    assert "corrupt" == caught.value.failure.kind
    assert not caught.value.failure.transient
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_data_altered_once_on_the_way_are_fetched_again(server: FarServer, tmp_path: Path) -> None:
    one = item(server)
    server.fail("/objects/data", Fault(whole=b"y" + DATA[1:]))

    assert digest(DATA) == fetch(one, tmp_path).digest


@pytest.mark.parametrize(
    ("fault", "kind", "transient", "said"),
    [
        (Fault(404, b"NoSuchKey"), "transfer", False, "404"),
        (Fault(403, b"AccessDenied"), "transfer", False, "403"),
        (Fault(403, b"<Message>Request has expired</Message>"), "grants_expired", True, "expired"),
        (Fault(401, ours("login ended", expired=True)), "grants_expired", True, "expired"),
        (Fault(401, ours("token revoked", expired=False)), "transfer", False, "token revoked"),
        (Fault(500, b"oops"), "transfer", True, "500"),
        (Fault(507, b"full"), "storage_full", False, "507"),
    ],
)
def test_what_a_storage_refuses(
    server: FarServer, tmp_path: Path, fault: Fault, kind: str, transient: bool, said: str
) -> None:
    one = item(server)
    server.fail("/objects/data", *[fault] * 30)

    with pytest.raises(JobFailed) as caught:
        fetch(one, tmp_path, patience_s=0.5)

    failure = caught.value.failure
    assert (kind, transient) == (failure.kind, failure.transient)
    assert said in failure.message
    assert failure.hint


def test_a_refused_grant_that_has_ended_is_expired(server: FarServer, tmp_path: Path) -> None:
    one = item(server, expires_at="2020-01-01T00:00:00.000000Z")
    server.fail("/objects/data", Fault(403, b"AccessDenied"))

    with pytest.raises(JobFailed) as caught:
        fetch(one, tmp_path)

    assert "grants_expired" == caught.value.failure.kind


def test_an_expired_grant_is_renewed_where_that_can_be(server: FarServer, tmp_path: Path) -> None:
    one = item(server)
    server.fail("/objects/data", Fault(cut_after=1000), Fault(403, b"expired"))
    server.objects["fresh"] = DATA
    asked = []

    def renew(_: Client, name: str) -> Grant:
        asked.append(name)
        return server.granted("fresh", "GET")

    found = fetch(one, tmp_path, renew=renew)

    assert DATA == Path(found.path).read_bytes()
    assert ["data"] == asked
    assert "bytes=1000-" == server.asked("/objects/fresh")[0].headers["range"]


def test_an_attempt_that_is_over_is_told_apart(server: FarServer, tmp_path: Path) -> None:
    one = item(server)
    server.fail("/objects/data", Fault(410))

    with pytest.raises(AttemptOver):
        fetch(one, tmp_path)


def test_nobody_there_is_transient(tmp_path: Path) -> None:
    with FarServer() as gone:
        one = item(gone)

    with pytest.raises(JobFailed) as caught:
        fetch(one, tmp_path, patience_s=0.3)

    assert ("transfer", True) == (caught.value.failure.kind, caught.value.failure.transient)


def test_one_failure_ends_the_others(server: FarServer, tmp_path: Path) -> None:
    items = [item(server, f"o{n}", b"x") for n in range(200)]
    server.fail("/objects/o3", Fault(404))

    with pytest.raises(JobFailed):
        fetch_many(items, str(tmp_path), workers=2)

    assert len(server.requests) < 150


def test_a_cancel_ends_a_transfer(server: FarServer, tmp_path: Path) -> None:
    watch = Watch()
    watch.cancelled = True

    with pytest.raises(Cancelled):
        fetch(item(server), tmp_path, watch=watch)


def test_granted_files_are_read_where_they_lie(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    path.write_bytes(DATA)
    one = Item("x", Grant("file", "GET", path=str(path)), len(DATA), digest(DATA))

    found = fetch(one, tmp_path / "inputs")

    assert (str(path), len(DATA)) == (found.path, found.size_bytes)
    assert not (tmp_path / "inputs").exists()
    path.write_bytes(DATA[:-1])
    with pytest.raises(JobFailed, match="not what was stored"):
        fetch(one, tmp_path)
    path.unlink()
    with pytest.raises(JobFailed, match="is not there"):
        fetch(one, tmp_path)


def test_the_second_time_data_come_from_the_cache(server: FarServer, tmp_path: Path) -> None:
    cache = Cache(str(tmp_path / "cache"))
    one = item(server)

    first = fetch(one, tmp_path / "a", cache=cache)
    second = fetch(one, tmp_path / "b", cache=cache)

    assert (False, True) == (first.cached, second.cached)
    assert DATA == Path(second.path).read_bytes()
    assert 1 == len(server.requests)


@pytest.mark.parametrize("damage", [DATA[:-1], b"y" + DATA[1:]])
def test_damaged_data_in_the_cache_are_fetched_again(
    server: FarServer, tmp_path: Path, damage: bytes
) -> None:
    cache = Cache(str(tmp_path / "cache"))
    one = item(server)
    fetch(one, tmp_path / "a", cache=cache)
    (kept,) = (tmp_path / "cache" / "data").iterdir()
    kept.write_bytes(damage)

    found = fetch(one, tmp_path / "b", cache=cache)

    assert not found.cached
    assert DATA == Path(found.path).read_bytes() == kept.read_bytes()


def test_data_pushed_out_of_the_cache_stay_with_the_job(server: FarServer, tmp_path: Path) -> None:
    cache = Cache(str(tmp_path / "cache"), limit_bytes=1)
    found = fetch(item(server), tmp_path / "a", cache=cache)
    (kept,) = (tmp_path / "cache" / "data").iterdir()
    os.utime(kept, (0, 0))

    cache.trim()

    assert not kept.exists()
    assert DATA == Path(found.path).read_bytes()


def test_memory_does_not_grow_with_the_object(server: FarServer, tmp_path: Path) -> None:
    """Down and up again, in a process of its own, whose own high-water mark is what counts."""
    data = os.urandom(1024 * 1024) * 96
    server.objects["large"] = data
    script = f"""
import sys
from deepforge.runner.fetch import Item, fetch_many
from deepforge.runner.protocol import Grant
from deepforge.runner.store import Upload, store_many
url = "{server.address}/objects/large"
(got,) = fetch_many([Item("x", Grant("http", "GET", url=url), {len(data)})], {str(tmp_path)!r})
(put,) = store_many([Upload("y", got.path, Grant("http", "PUT", url=url + "-again"))])
assert got.digest == put.digest == "{digest(data)}"
print(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert "" == found.stderr
    assert int(found.stdout) < 60 * 1024
    assert data == server.objects["large-again"]


def test_a_large_object_that_is_cut_or_altered(server: FarServer, tmp_path: Path) -> None:
    """Another thread hashes and writes it; what came before a cut is kept all the same."""
    data = os.urandom(1024 * 1024) * 9 + b"end"
    one = item(server, "large", data)
    server.fail("/objects/large", Fault(cut_after=5_000_000), Fault(cut_after=100))

    assert data == Path(fetch(one, tmp_path).path).read_bytes()
    ranges = [request.headers.get("range") for request in server.asked("/objects/large")]
    assert [None, "bytes=5000000-", "bytes=5000100-"] == ranges
    server.fail("/objects/large", *[Fault(whole=data[:-1] + b"!")] * 2)
    with pytest.raises(JobFailed, match="not what was stored"):
        fetch(one, tmp_path)


@pytest.mark.parametrize("size_bytes", [300_000, 20_000_000])
def test_no_room_for_an_input_is_told(server: FarServer, tmp_path: Path, size_bytes: int) -> None:
    one = item(server, data=bytes(size_bytes))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(JobFailed) as caught:
            fetch(one, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert "storage_full" == caught.value.failure.kind
    assert not list(tmp_path.iterdir())


def test_a_silent_server_is_given_up(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        grant = Grant("http", "GET", url=f"http://127.0.0.1:{silent.getsockname()[1]}/x")
        began = time.monotonic()
        with pytest.raises(JobFailed, match="said nothing"):
            fetch(
                Item("x", grant),
                tmp_path,
                make_client=lambda check: Client(check, silence_s=0.5),
                patience_s=0,
            )

    assert time.monotonic() - began < 10


def test_what_was_read_without_a_known_digest_is_reported(far: FarSide) -> None:
    """Also by an attempt that fails then; variadic parts by their position."""
    code = (
        "class Op:\n    def execute(self, known, *parts):\n        return parts[1] + parts[0][9:]\n"
    )
    known = far.given("known", 1)
    data, type_name, format_name = dumped("ab")
    far.put("raw", data)
    new = [
        Input("parts", n, far.granted("raw", "GET"), type=type_name, format=format_name)
        for n in (0, 1)
    ]

    ended = far.run_op(code, inputs=[known, *new])

    expected = [InputRead(f"inputs/parts.{n}", len(data), digest(data)) for n in (0, 1)]
    assert expected == ended.result.inputs
    assert "ab" == ended.output()
    far.again()
    failed = far.run_op(code.replace("[9:]", "[9]"), inputs=[known, *new])
    assert "IndexError" in failed.failure.message
    assert expected == failed.result.inputs
