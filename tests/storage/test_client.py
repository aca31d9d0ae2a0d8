from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from deepforge.errors import (
    AdapterBug,
    AlreadyExists,
    AuthError,
    Corrupt,
    DeepForgeError,
    InvalidRequest,
    NotFound,
    NotSupported,
    OutcomeUnknown,
    RateLimited,
    StorageFull,
    Unavailable,
)
from deepforge.ids import digest, new_id
from deepforge.storage.client import StorageClient
from deepforge.storage.memory import MemoryAdapter, MemorySettings
from deepforge.storage.port import ObjectInfo, ObjectRef
from deepforge.storage.retry import Retry
from deepforge.testing.faults import FaultyStorage
from deepforge.testing.storage_exam import stream

CONTENT = bytes(range(256)) * 20_000  # five chunks of the memory adapter


class Lab:
    """A client over a faulty memory storage, whose pauses are written down and not waited for."""

    def __init__(self) -> None:
        self.adapter = FaultyStorage(MemoryAdapter(MemorySettings(f"test-{new_id()}")))
        self.pauses: list[float] = []
        self.client = StorageClient(
            self.adapter, "lab", sleep=self._sleep, chance=lambda: 1.0, retry=Retry(attempts=4)
        )

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


@pytest.fixture
def lab() -> Lab:
    return Lab()


async def failing(error: Exception) -> AsyncIterator[bytes]:
    yield b"some"
    raise error


async def read(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def test_bytes_come_back_with_a_reference_that_proves_them(lab: Lab) -> None:
    ref = await lab.client.put_bytes("key", CONTENT)

    assert ref == ObjectRef("lab", "key", len(CONTENT), digest(CONTENT))
    assert await lab.client.get_bytes(ref, limit_bytes=len(CONTENT)) == CONTENT
    assert await read(lab.client.get_stream(ref)) == CONTENT
    assert await lab.client.get_bytes("key", limit_bytes=len(CONTENT)) == CONTENT


async def test_a_stream_and_a_file_give_the_same_reference_as_bytes(
    lab: Lab, tmp_path: Path
) -> None:
    path = tmp_path / "data"
    path.write_bytes(CONTENT)
    ref = await lab.client.put_bytes("key", CONTENT)

    assert await lab.client.put_stream("key", stream([CONTENT[:7], b"", CONTENT[7:]])) == ref
    assert await lab.client.put_file("key", path) == ref


async def test_a_file_arrives_whole_beside_nothing_else(lab: Lab, tmp_path: Path) -> None:
    ref = await lab.client.put_bytes("key", CONTENT)
    (tmp_path / "out").write_bytes(b"former")

    await lab.client.get_file(ref, tmp_path / "out")

    assert (tmp_path / "out").read_bytes() == CONTENT
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("method", ["stat", "delete", "list", "get", "put", "copy"])
async def test_transient_failures_are_tried_again_with_growing_pauses(
    lab: Lab, method: str
) -> None:
    ref = await lab.client.put_bytes("key", CONTENT)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "stat": lambda: lab.client.stat("key"),
        "delete": lambda: lab.client.delete(["other"]),
        "list": lambda: read_keys(lab.client),
        "get": lambda: lab.client.get_bytes(ref, limit_bytes=len(CONTENT)),
        "put": lambda: lab.client.put_bytes("key", CONTENT),
        "copy": lambda: lab.client.copy(ref, "other"),
    }
    lab.adapter.fail(method, Unavailable("down"), times=3)

    await calls[method]()

    assert lab.pauses == pytest.approx([0.2, 0.4, 0.8])


async def test_after_the_last_attempt_the_error_comes_out(lab: Lab) -> None:
    error = Unavailable("down", hint="wait")
    lab.adapter.fail("stat", error, times=4)

    with pytest.raises(Unavailable) as caught:
        await lab.client.stat("key")

    assert caught.value is error
    assert lab.adapter.calls == ["stat"] * 4
    assert len(lab.pauses) == 3


@pytest.mark.parametrize(
    "error", [NotFound("x"), AuthError("x"), StorageFull("x"), InvalidRequest("x")]
)
async def test_what_cannot_get_better_is_not_tried_again(lab: Lab, error: DeepForgeError) -> None:
    lab.adapter.fail("put", error)

    with pytest.raises(type(error)):
        await lab.client.put_bytes("key", b"x")

    assert lab.adapter.calls == ["put"]


def test_pauses_grow_vary_and_obey_the_service() -> None:
    retry = Retry(attempts=10, first_pause_s=1, longest_pause_s=5, longest_wish_s=30)
    down = Unavailable("down")

    assert [retry.pause_s(number, down, 1.0) for number in (1, 2, 3, 4, 9)] == [1, 2, 4, 5, 5]
    assert retry.pause_s(2, down, 0.0) == 1
    assert retry.pause_s(10, down, 1.0) is None
    assert retry.pause_s(1, RateLimited("slow", retry_after_s=7), 1.0) == 7
    assert retry.pause_s(1, RateLimited("slow", retry_after_s=31), 1.0) is None


async def test_check_is_not_tried_again(lab: Lab) -> None:
    lab.adapter.fail("check", Unavailable("down"))

    with pytest.raises(Unavailable):
        await lab.client.check()

    assert lab.adapter.calls == ["check"]


async def test_a_stream_is_sent_once_only(lab: Lab) -> None:
    lab.adapter.fail("put", Unavailable("down"))

    with pytest.raises(Unavailable):
        await lab.client.put_stream("key", stream([b"x"]))

    assert lab.adapter.calls == ["put"]


async def test_a_lost_answer_to_a_conditional_put_is_recognised_by_the_content(lab: Lab) -> None:
    lab.adapter.fail("put", OutcomeUnknown("no answer"), when="after")

    ref = await lab.client.put_bytes("key", CONTENT, only_if_absent=True)

    assert ref == ObjectRef("lab", "key", len(CONTENT), digest(CONTENT))


async def test_somebody_elses_object_is_not_taken_for_ours(lab: Lab) -> None:
    await lab.client.put_bytes("key", b"theirs")
    lab.adapter.fail("put", OutcomeUnknown("no answer"))

    with pytest.raises(AlreadyExists):
        await lab.client.put_bytes("key", b"ours", only_if_absent=True)

    assert await lab.client.get_bytes("key", limit_bytes=99) == b"theirs"


async def test_a_broken_download_goes_on_where_it_broke(lab: Lab, tmp_path: Path) -> None:
    ref = await lab.client.put_bytes("key", CONTENT)
    lab.adapter.cut(Unavailable("broke"), after_bytes=1_500_000, times=3)

    await lab.client.get_file(ref, tmp_path / "out")

    assert (tmp_path / "out").read_bytes() == CONTENT
    assert lab.adapter.calls.count("get") == 4
    assert lab.pauses == pytest.approx([0.2, 0.2, 0.2])  # each made progress: not "in a row"


async def test_a_download_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    waits = asyncio.Event()

    class Stalls(MemoryAdapter):
        async def get(
            self, key: str, *, start: int = 0, end: int | None = None
        ) -> AsyncIterator[bytes]:
            async for chunk in super().get(key, start=start, end=end):
                yield chunk
                waits.set()
                await asyncio.Event().wait()

    client = StorageClient(Stalls(MemorySettings(new_id())), "lab")
    ref = await client.put_bytes("key", CONTENT)
    (tmp_path / "out").write_bytes(b"former")
    task = asyncio.create_task(client.get_file(ref, tmp_path / "out"))
    await waits.wait()

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"former"]


async def test_small_and_empty_files_travel_too(lab: Lab, tmp_path: Path) -> None:
    for data in (b"", b"x", bytes(70_000)):
        (tmp_path / "in").write_bytes(data)

        ref = await lab.client.put_file("key", tmp_path / "in")
        await lab.client.get_file(ref, tmp_path / "out")

        assert ref.digest == digest(data)
        assert (tmp_path / "out").read_bytes() == data


async def test_a_file_that_is_not_there_is_named(lab: Lab, tmp_path: Path) -> None:
    ref = await lab.client.put_bytes("key", b"x")

    with pytest.raises(NotFound, match="missing"):
        await lab.client.put_file("key", tmp_path / "missing")
    with pytest.raises(NotFound, match="no/folder"):
        await lab.client.get_file(ref, tmp_path / "no/folder")


async def test_a_download_that_makes_no_progress_ends(lab: Lab, tmp_path: Path) -> None:
    ref = await lab.client.put_bytes("key", CONTENT)
    lab.adapter.cut(Unavailable("broke"), after_bytes=1_500_000)
    lab.adapter.cut(Unavailable("broke"), after_bytes=0, times=9)

    with pytest.raises(Unavailable):
        await lab.client.get_file(ref, tmp_path / "out")

    assert list(tmp_path.iterdir()) == []


async def test_without_a_digest_nothing_is_pieced_together(lab: Lab) -> None:
    ref = replace(await lab.client.put_bytes("key", CONTENT), digest=None)
    lab.adapter.cut(Unavailable("broke"), after_bytes=10)

    with pytest.raises(Unavailable):
        await read(lab.client.get_stream(ref))

    assert await read(lab.client.get_stream(ref)) == CONTENT


@pytest.mark.parametrize(
    "changed",
    [CONTENT[:-1], CONTENT + b"x", b"\1" + CONTENT[1:], b""],
    ids=["cut short", "too long", "altered", "emptied"],
)
async def test_what_is_not_what_was_stored_is_corrupt(
    lab: Lab, changed: bytes, tmp_path: Path
) -> None:
    ref = await lab.client.put_bytes("key", CONTENT)
    lab.adapter.change("key", changed)

    for action in (
        lab.client.get_bytes(ref, limit_bytes=len(CONTENT) + 1),
        read(lab.client.get_stream(ref)),
        lab.client.get_file(ref, tmp_path / "out"),
    ):
        with pytest.raises(Corrupt) as caught:
            await action
        assert "'key'" in caught.value.message
        assert caught.value.expected != caught.value.found
    assert list(tmp_path.iterdir()) == []


async def test_what_escapes_an_adapter_is_wrapped_with_its_cause(lab: Lab) -> None:
    ref = await lab.client.put_bytes("key", CONTENT)
    for method, action in (
        ("stat", lab.client.stat("key")),
        ("put", lab.client.put_bytes("key", b"x")),
        ("get", read(lab.client.get_stream(ref))),
        ("get", lab.client.get_bytes(ref, limit_bytes=len(CONTENT))),
        ("list", read_keys(lab.client)),
        ("check", lab.client.check()),
    ):
        error = KeyError("surprise")
        lab.adapter.fail(method, error)
        with pytest.raises(AdapterBug, match="surprise") as caught:
            await action
        assert caught.value.__cause__ is error


async def test_the_error_of_a_source_comes_out_unchanged(lab: Lab) -> None:
    error = ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError) as caught:
        await lab.client.put_stream("key", failing(error))

    assert caught.value is error
    with pytest.raises(NotFound):
        await lab.client.stat("key")


class WrapsErrors(MemoryAdapter):
    """As libraries do that catch what an iterator raises."""

    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectInfo:
        try:
            return await super().put(key, chunks, only_if_absent=only_if_absent)
        except Exception as error:
            raise RuntimeError("wrapped") from error


async def test_the_error_of_a_source_comes_out_however_an_adapter_wraps_it() -> None:
    client = StorageClient(WrapsErrors(MemorySettings(new_id())), "lab")

    with pytest.raises(ZeroDivisionError):
        await client.put_stream("key", failing(ZeroDivisionError()))


@pytest.mark.parametrize("announced", [2, 4])
async def test_a_stream_must_have_the_announced_size(lab: Lab, announced: int) -> None:
    with pytest.raises(InvalidRequest, match=f"announced with {announced} bytes"):
        await lab.client.put_stream("key", stream([b"abc"]), size_bytes=announced)

    with pytest.raises(NotFound):
        await lab.client.stat("key")


class KeepsLittle(MemoryAdapter):
    capabilities = replace(MemoryAdapter.capabilities, max_object_bytes=10, server_copy=False)


async def test_objects_above_the_storages_limit_are_refused() -> None:
    client = StorageClient(KeepsLittle(MemorySettings(new_id())), "lab")
    await client.put_bytes("key", bytes(10))

    for action in (
        client.put_bytes("key", bytes(11)),
        client.put_stream("key", stream([bytes(6), bytes(6)])),
    ):
        with pytest.raises(InvalidRequest, match="at most 10"):
            await action


async def test_a_copy_goes_through_us_where_the_service_cannot() -> None:
    client = StorageClient(KeepsLittle(MemorySettings(new_id())), "lab")
    ref = await client.put_bytes("key", b"content")

    copy = await client.copy(ref, "other")

    assert copy == replace(ref, key="other")
    assert await client.get_bytes(copy, limit_bytes=10) == b"content"


async def test_get_bytes_refuses_what_is_too_large(lab: Lab) -> None:
    ref = await lab.client.put_bytes("key", CONTENT)

    for source in (ref, "key"):
        with pytest.raises(InvalidRequest, match="more than 100 bytes"):
            await lab.client.get_bytes(source, limit_bytes=100)


@pytest.mark.parametrize("key", ["", "/a", "a/../b", "a\n", "a\\b"])
async def test_no_adapter_ever_sees_a_bad_key(lab: Lab, key: str) -> None:
    bad = ObjectRef("lab", key, 1)
    good = await lab.client.put_bytes("good", b"x")
    lab.adapter.calls.clear()
    actions: list[Awaitable[object]] = [
        lab.client.put_bytes(key, b""),
        lab.client.put_stream(key, stream([])),
        lab.client.get_bytes(key, limit_bytes=1),
        lab.client.get_bytes(bad, limit_bytes=1),
        read(lab.client.get_stream(bad)),
        read(lab.client.get_range(key)),
        lab.client.stat(key),
        lab.client.delete(["fine", key]),
        lab.client.copy(good, key),
        lab.client.copy(bad, "fine"),
        lab.client.grant(key, "GET", expires_s=1),
        lab.client.begin_parts(key),
    ]

    for action in actions:
        with pytest.raises(InvalidRequest):
            await action
    assert lab.adapter.calls == []


async def test_a_range_is_given_as_it_is(lab: Lab) -> None:
    await lab.client.put_bytes("key", CONTENT)

    assert await read(lab.client.get_range("key", start=5, end=1_500_000)) == CONTENT[5:1_500_000]


async def test_a_broken_listing_goes_on_behind_the_last_key(lab: Lab) -> None:
    for name in "abcd":
        await lab.client.put_bytes(name, b"")
    lab.adapter.fail("list", Unavailable("broke"), times=2, when="after")

    assert await read_keys(lab.client) == ["a", "b", "c", "d"]


async def test_deletes_go_in_batches(lab: Lab) -> None:
    await lab.client.delete([f"key-{number}" for number in range(2500)])

    assert lab.adapter.calls == ["delete"] * 3


async def test_what_a_storage_cannot_do_is_refused_by_name(lab: Lab) -> None:
    with pytest.raises(NotSupported, match="grants is not supported: storage 'lab'"):
        await lab.client.grant("key", "GET", expires_s=10)
    with pytest.raises(NotSupported, match="part_grants"):
        await lab.client.begin_parts("key")


class CountsUsers(MemoryAdapter):
    """Notes how many calls are inside at once."""

    now = most = 0

    async def _inside(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        for _ in range(5):
            await asyncio.sleep(0)
        self.now -= 1

    async def stat(self, key: str) -> ObjectInfo:
        await self._inside()
        return await super().stat(key)

    async def delete(self, keys: Sequence[str]) -> None:
        await self._inside()
        await super().delete(keys)


async def test_only_so_many_calls_run_at_once() -> None:
    adapter = CountsUsers(MemorySettings(new_id()))
    client = StorageClient(adapter, "lab", reads_at_once=3)
    await client.put_bytes("key", b"")

    await asyncio.gather(*(client.stat("key") for _ in range(20)), client.delete(["x"]))

    assert adapter.most == 3


async def test_many_copies_through_us_do_not_wait_for_each_other_forever() -> None:
    adapter = KeepsLittle(MemorySettings(new_id()))
    client = StorageClient(adapter, "lab", reads_at_once=1, writes_at_once=2)
    ref = await client.put_bytes("key", b"x")
    held = client.get_stream(ref)
    await anext(held)  # an idle reader holds no place

    async with asyncio.timeout(30):
        await asyncio.gather(*(client.copy(ref, f"copy-{number}") for number in range(20)))
    await held.aclose()


async def test_a_reader_that_stops_early_closes_the_adapters_stream() -> None:
    closed: list[str] = []

    class Watched(MemoryAdapter):
        async def get(
            self, key: str, *, start: int = 0, end: int | None = None
        ) -> AsyncIterator[bytes]:
            try:
                async for chunk in super().get(key, start=start, end=end):
                    yield chunk
            finally:
                closed.append(key)

    client = StorageClient(Watched(MemorySettings(new_id())), "lab")
    ref = await client.put_bytes("key", CONTENT)
    chunks = client.get_stream(ref)
    await anext(chunks)

    await chunks.aclose()

    assert closed == ["key"]


async def read_keys(client: StorageClient) -> list[str]:
    return [info.key async for info in client.list()]
