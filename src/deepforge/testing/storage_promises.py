"""What every storage promises: whole objects, ranges, listings, deletes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import cache

from deepforge.errors import AlreadyExists, NotFound, NotSupported
from deepforge.settings import declared
from deepforge.storage.port import StorageAdapter
from deepforge.testing.storage_exam import (
    Catalogue,
    Exam,
    PromiseBroken,
    first_chunk,
    holds,
    raises,
    same,
    stream,
)

PROMISES = Catalogue()

MIB = 1024 * 1024
LARGE_BYTES = 20 * MIB + 12_345
"""Above the size from which adapters cut objects into parts, and no multiple of anything."""

UGLY_NAMES = (
    "with space",
    " leading and trailing ",
    "dots./...x/.hidden/x..",
    "quote'\"`",
    "100%/%2F/%25",
    "a+b&c=d;e",
    "?query#fragment",
    "<tag>&amp;",
    "colon:pipe|star*",
    "[brackets]{braces}(parens)",
    "~tilde^caret$dollar!",
    "@at,comma",
    "ünï/cödé",
    "日本語/データ",
    "emoji 😀/👩‍🔬",
    "line\u2028separator",
    "-dash",
    "deepforge-exam",
    "CON/aux.txt",
    "w" * 250,
    "/".join("deep" for _ in range(60)),
)


@PROMISES.promise()
async def gives_back_what_was_put(exam: Exam) -> None:
    """`get` gives exactly the bytes that were put."""
    data = random.Random(1).randbytes(100_003)
    info = await exam.put("object", data)
    same(data, await exam.read(info.key), "the content")


@PROMISES.promise("chosen_keys")
async def keeps_the_key_and_the_size(exam: Exam) -> None:
    """`put` returns the key it was given and the size that was stored."""
    info = await exam.put("some/key", b"12345")
    same((exam.key("some/key"), 5), (info.key, info.size_bytes), "key and size")


@PROMISES.promise()
async def keeps_an_empty_object(exam: Exam) -> None:
    """An object without bytes is an object, whether its stream had no chunks or empty ones."""
    for name, chunks in (("none", ()), ("empty", (b"", b""))):
        info = await exam.put(name, *chunks)
        same(0, info.size_bytes, "size after put")
        same(b"", await exam.read(info.key), "content")
        same(0, (await exam.adapter.stat(info.key)).size_bytes, "size by stat")


@PROMISES.promise()
async def joins_many_chunks(exam: Exam) -> None:
    """Chunks may have any sizes, tiny and empty ones included."""
    chunks = [bytes([number % 251]) * (number % 7) for number in range(3000)]
    info = await exam.put("object", *chunks)
    same(b"".join(chunks), await exam.read(info.key), "the content")


@PROMISES.promise()
async def keeps_a_large_object(exam: Exam) -> None:
    """A large object in uneven chunks comes back whole."""
    data = _large()
    info = await exam.put(
        "object", data[: 3 * MIB], data[3 * MIB : 3 * MIB + 7], data[3 * MIB + 7 :]
    )
    same(len(data), info.size_bytes, "size after put")
    same(data, await exam.read(info.key), "the content")


@PROMISES.promise()
async def takes_a_known_size(exam: Exam) -> None:
    """The size may be said beforehand, for small and for large objects."""
    for name, data in (("small", b"abc"), ("large", _large())):
        info = await exam.put(name, data, size_bytes=len(data))
        same(data, await exam.read(info.key), f"the {name} content")


@PROMISES.promise("chosen_keys")
async def replaces_an_object(exam: Exam) -> None:
    """A put takes the place of what was there, be the new content shorter or longer."""
    for data in (b"first, long", b"second", _large(), b"last"):
        info = await exam.put("object", data)
        same(data, await exam.read(info.key), "the content")
        same(len(data), (await exam.adapter.stat(info.key)).size_bytes, "the size")


@PROMISES.promise("chosen_keys")
async def failed_put_changes_nothing(exam: Exam) -> None:
    """When the chunks fail, their error comes out and the former object stays."""
    await exam.put("old", b"former")
    for name in ("old", "new"):
        for size in (10, LARGE_BYTES):
            try:
                await exam.adapter.put(exam.key(name), _failing(size))
            except _SourceError:
                pass
            else:
                raise PromiseBroken("the error of the chunks did not come out")
    same(b"former", await exam.read(exam.key("old")), "the former object")
    await raises(NotFound, exam.adapter.stat(exam.key("new")), "a failed put of a new object")


@PROMISES.promise("chosen_keys")
async def cancelled_put_changes_nothing(exam: Exam) -> None:
    """A put that is cancelled leaves the former object as it was."""
    await exam.put("object", b"former")
    for size in (10, LARGE_BYTES):
        waits = asyncio.Event()
        task = asyncio.create_task(exam.adapter.put(exam.key("object"), _pausing(size, waits)))
        await waits.wait()
        task.cancel()
        same("cancelled", await _outcome(task), "the cancelled put")
        same(b"former", await exam.read(exam.key("object")), "the former object")


@PROMISES.promise("chosen_keys", "atomic_put", "listing")
async def shows_whole_objects_only(exam: Exam) -> None:
    """While an object is being put, readers see the former one, or none."""
    await exam.put("old", b"former")
    for name in ("old", "new"):
        waits, goes_on = asyncio.Event(), asyncio.Event()
        data = _large()
        source = _pausing(len(data), waits, goes_on)
        task = asyncio.create_task(exam.adapter.put(exam.key(name), source))
        await waits.wait()
        if name == "old":
            same(b"former", await exam.read(exam.key(name)), "what a reader sees meanwhile")
        else:
            await raises(NotFound, exam.adapter.stat(exam.key(name)), "a reader meanwhile")
            same(["old"], await exam.names(), "what is listed meanwhile")
        goes_on.set()
        await task
        same(data, await exam.read(exam.key(name)), "the content at the end")


@PROMISES.promise("chosen_keys")
async def refuses_to_replace_if_asked(exam: Exam) -> None:
    """`only_if_absent` stores a new object and raises `AlreadyExists` for one that is there."""
    for name, data in (("small", b"first"), ("large", _large())):
        info = await exam.put(name, data, only_if_absent=True)
        for second in (b"second", _large(2)):
            action = exam.put(name, second, only_if_absent=True)
            await raises(AlreadyExists, action, f"a second put of the {name} object")
        same(data, await exam.read(info.key), f"the {name} object")


@PROMISES.promise("chosen_keys", "conditional_put")
async def lets_one_of_many_win(exam: Exam) -> None:
    """Of many who put with `only_if_absent` at once, exactly one succeeds, and its bytes stay."""
    contents = [f"writer {number}".encode() * 1000 for number in range(6)]
    puts = (exam.put("object", content, only_if_absent=True) for content in contents)
    results = await asyncio.gather(*puts, return_exceptions=True)
    winners = [number for number, one in enumerate(results) if not isinstance(one, Exception)]
    same(1, len(winners), "the number of winners")
    for one in results:
        holds(not isinstance(one, Exception) or isinstance(one, AlreadyExists), f"raised {one!r}")
    same(contents[winners[0]], await exam.read(exam.key("object")), "the winner's bytes")


@PROMISES.promise("range_get")
async def gives_ranges(exam: Exam) -> None:
    """`get` gives the bytes `[start, end)`, as far as there are any."""
    data = _large()
    key = (await exam.put("object", data)).key
    last = len(data)
    pairs = (
        (0, 1),
        (5, 9),
        (0, last),
        (last - 3, None),
        (9 * MIB - 5, 9 * MIB + 5),
        (last - 2, last + 9),
    )
    for start, end in pairs:
        same(data[start:end], await exam.read(key, start, end), f"bytes [{start}, {end})")


@PROMISES.promise("range_get")
async def gives_nothing_behind_the_end(exam: Exam) -> None:
    """A range that begins at or behind the end of the object is empty, and so is an empty range."""
    small = (await exam.put("object", b"12345")).key
    empty = (await exam.put("empty")).key
    for key, start, end in (
        (small, 5, None),
        (small, 7, 9),
        (small, 3, 3),
        (small, 4, 2),
        (empty, 0, None),
        (empty, 0, 9),
        (empty, 1, None),
    ):
        same(b"", await exam.read(key, start, end), f"bytes [{start}, {end})")


@PROMISES.promise()
async def says_that_nothing_is_there(exam: Exam) -> None:
    """`get` (before the first chunk) and `stat` raise `NotFound` for what does not exist."""
    key = exam.key("nothing")
    await raises(NotFound, first_chunk(exam.adapter.get(key)), "get")
    if exam.adapter.capabilities.range_get:
        await raises(NotFound, first_chunk(exam.adapter.get(key, start=3, end=9)), "get of a range")
        await raises(NotFound, first_chunk(exam.adapter.get(key, start=3, end=3)), "an empty range")
    await raises(NotFound, exam.adapter.stat(key), "stat")


@PROMISES.promise()
async def survives_an_early_close(exam: Exam) -> None:
    """A reader may stop after the first chunk, as often as it likes."""
    data = _large()
    key = (await exam.put("object", data)).key
    for _ in range(24):
        chunk = await first_chunk(exam.adapter.get(key))
        holds(data.startswith(chunk) and bool(chunk), "the first chunk is not the object's start")
    same(data, await exam.read(key), "the content after that")


@PROMISES.promise()
async def tells_size_and_time(exam: Exam) -> None:
    """`stat` tells key, size, and a time in UTC that fits."""
    key = (await exam.put("object", b"12345")).key
    info = await exam.adapter.stat(key)
    same((key, 5), (info.key, info.size_bytes), "key and size")
    holds(info.modified_at.endswith("Z"), f"{info.modified_at!r} is not a time in UTC")
    age = datetime.now(UTC) - datetime.fromisoformat(info.modified_at)
    holds(abs(age) < timedelta(hours=1), f"it was stored just now, not at {info.modified_at}")


@PROMISES.promise("chosen_keys", "listing")
async def lists_by_bytes(exam: Exam) -> None:
    """Listings ascend by the UTF-8 bytes of the key: `a-b` comes before `a/b`, `Z` before `a`."""
    names = ["a", "a-b", "a.b", "a/b", "a/b-c", "a/b/c", "a0", "ab", "Z", "y", "é", "\uffee", "😀"]
    await exam.put_many(names)
    same(sorted(names, key=str.encode), await exam.names(), "the listing")


@PROMISES.promise("chosen_keys", "listing")
async def lists_what_begins_with_a_text(exam: Exam) -> None:
    """A prefix is plain text, not a folder; one that nothing begins with is an empty listing."""
    await exam.put_many(["run-1/a", "run-1/b/c", "run-10/a", "run", "other"])
    for prefix, expected in (
        ("run-1", ["run-1/a", "run-1/b/c", "run-10/a"]),
        ("run-1/", ["run-1/a", "run-1/b/c"]),
        ("run-1/b/c", ["run-1/b/c"]),
        ("ru", ["run", "run-1/a", "run-1/b/c", "run-10/a"]),
        ("run-2", []),
        ("run/", []),
    ):
        same(expected, await exam.names(prefix), f"the listing of {prefix!r}")
    infos = [info async for info in exam.adapter.list(exam.key("other"))]
    same([5], [info.size_bytes for info in infos], "the sizes listed")


@PROMISES.promise("chosen_keys", "listing")
async def resumes_a_listing(exam: Exam) -> None:
    """`after` goes on behind any key, whether it exists or not."""
    names = ["a", "a-b", "a-b/c", "a/b", "a/b/c", "a/c", "a0", "b", "b/-x", "b/y", "c.d/e"]
    await exam.put_many(names)
    ordered = sorted(names, key=str.encode)
    for after in (*names, "a-", "a/", "a/b-", "a.", "0", "b/", "b/-", "zz", "c.d/"):
        expected = [name for name in ordered if name.encode() > after.encode()]
        same(expected, await exam.names(after=after), f"the listing after {after!r}")
    same(["a/b", "a/b/c", "a/c"], await exam.names("a/", after="a-b"), "prefix and after together")


@PROMISES.promise("chosen_keys", "listing", "deletion")
async def lists_and_deletes_many(exam: Exam) -> None:
    """1,200 objects are listed once each, in order, and deleted in one call."""
    names = [f"{number % 7}/{number:05d}" for number in range(1200)]
    await exam.put_many(names)
    ordered = sorted(names)
    same(ordered, await exam.names(), "the listing")
    same(ordered[1000:], await exam.names(after=ordered[999]), "the listing behind the 1000th")
    await exam.adapter.delete([exam.key(name) for name in names])
    same([], await exam.names(), "the listing after the delete")


@PROMISES.promise("chosen_keys", "listing", "deletion")
async def keeps_ugly_keys(exam: Exam) -> None:
    """Keys with spaces, quotes, percent signs, long parts and other scripts are just keys."""
    await exam.put_many(UGLY_NAMES)
    for name in UGLY_NAMES:
        same(name.encode(), await exam.read(exam.key(name)), f"the content of {name!r}")
        same(exam.key(name), (await exam.adapter.stat(exam.key(name))).key, "the key by stat")
    same(sorted(UGLY_NAMES, key=str.encode), await exam.names(), "the listing")
    for name in UGLY_NAMES:
        same([name], [one for one in await exam.names(name) if one == name], "listed by itself")
    await exam.adapter.delete([exam.key(name) for name in UGLY_NAMES])
    same([], await exam.names(), "the listing after the delete")


@PROMISES.promise("chosen_keys", "listing", "deletion")
async def tells_alike_keys_apart(exam: Exam) -> None:
    """`a`, `a/b` and `a/b/c`, `x` and `X`, `n` and `n.` are different objects, made in any order."""
    names = ["a", "a/b", "a/b/c", "p/q/r", "p/q", "p", "x", "X", "X/y", "x/Y", "n", "n.", "n "]
    for name in names:
        await exam.put(name, name.encode())
    for name in names:
        same(name.encode(), await exam.read(exam.key(name)), f"the content of {name!r}")
    same(sorted(names), await exam.names(), "the listing")
    for name in names[::2]:
        await exam.adapter.delete([exam.key(name)])
    same(sorted(names[1::2]), await exam.names(), "what is left")
    for name in names[1::2]:
        same(name.encode(), await exam.read(exam.key(name)), f"what is left of {name!r}")


@PROMISES.promise("deletion")
async def deletes_what_is_not_there(exam: Exam) -> None:
    """Deleting is safe to repeat: absent keys are fine, alone and among others."""
    key = (await exam.put("object", b"x")).key
    await exam.adapter.delete([exam.key("never"), key, exam.key("never/was")])
    await raises(NotFound, exam.adapter.stat(key), "the deleted object")
    await exam.adapter.delete([key])
    await exam.adapter.delete([])


@PROMISES.promise("chosen_keys", "listing", "deletion")
async def deletes_no_more_than_asked(exam: Exam) -> None:
    """Deleting `a` leaves `a/b`, `ab` and the rest of the storage."""
    await exam.put_many(["a", "a/b", "ab", "b"])
    await exam.adapter.delete([exam.key("a")])
    same(["a/b", "ab", "b"], await exam.names(), "what is left")


@PROMISES.promise()
async def serves_many_tasks(exam: Exam) -> None:
    """One adapter is used by many tasks at once."""

    async def use(number: int) -> None:
        data = random.Random(number).randbytes(50_000 + number)
        info = await exam.put(f"task-{number}", data)
        same(data, await exam.read(info.key), f"the object of task {number}")

    await asyncio.gather(*(use(number) for number in range(30)))


@PROMISES.promise()
async def keeps_objects_when_closed(exam: Exam) -> None:
    """What was put is there for an adapter that is opened later with the same settings."""
    async with exam.opener() as first:
        info = await first.put(exam.key("object"), stream([b"lasting"]))
    same(b"lasting", await exam.read(info.key), "read by the other adapter")


@PROMISES.promise("server_copy", "chosen_keys")
async def copies(exam: Exam) -> None:
    """`copy` makes a second object of the same bytes, over one that was there too."""
    data = _large()
    await exam.put("source", data)
    await exam.put("taken", b"former")
    for target in ("new", "taken", "source/below"):
        info = await exam.adapter.copy(exam.key("source"), exam.key(target))
        same((exam.key(target), len(data)), (info.key, info.size_bytes), "what copy returns")
        same(data, await exam.read(info.key), "the copy")
    await exam.put("source", b"changed")
    same(data, await exam.read(exam.key("new")), "the copy after its source changed")
    action = exam.adapter.copy(exam.key("nothing"), exam.key("new"))
    await raises(NotFound, action, "a copy of nothing")
    same(data, await exam.read(exam.key("new")), "the target of a failed copy")


@PROMISES.promise("chosen_keys", "listing")
async def checks_without_a_trace(exam: Exam) -> None:
    """`check` passes and leaves nothing behind."""
    before = {info.key async for info in exam.adapter.list("")}
    await exam.adapter.check()
    after = {info.key async for info in exam.adapter.list("")}
    left = [key for key in after - before if "check" in key]  # others may use the storage
    same([], left, "what check left behind")


@PROMISES.promise()
async def offers_choices_for_its_settings(exam: Exam) -> None:
    """`choices` are for settings that there are; there are some with the capability alone."""
    found = await exam.adapter.choices()
    settings = {one.name for one in declared(type(exam.adapter.settings))}
    same(set(), set(found) - settings, "choices for what is no setting")
    same(exam.adapter.capabilities.choices, bool(found), "whether there are choices")


@PROMISES.promise()
async def refuses_what_it_cannot_do(exam: Exam) -> None:
    """Ranges, listings and deletions that are not declared are refused: `NotSupported`."""
    adapter, declared = exam.adapter, exam.adapter.capabilities
    key = (await exam.put("object", b"12345")).key

    async def listing() -> None:
        async for _ in adapter.list(""):
            return

    if not declared.range_get:
        await raises(NotSupported, first_chunk(adapter.get(key, start=1)), "get from the middle")
        await raises(NotSupported, first_chunk(adapter.get(key, end=3)), "get to the middle")
    if not declared.listing:
        await raises(NotSupported, listing(), "list")
    if not declared.deletion:
        await raises(NotSupported, adapter.delete([key]), "delete")
    same(b"12345", await exam.read(key), "the content after that")


@PROMISES.promise()
async def declares_what_it_does(exam: Exam) -> None:
    """An optional method that is written is declared, so that it is examined and used."""
    adapter, declared = type(exam.adapter), exam.adapter.capabilities
    for method, capability in (
        ("copy", "server_copy"),
        ("grant", "grants"),
        ("begin_parts", "part_grants"),
    ):
        written = getattr(adapter, method) is not getattr(StorageAdapter, method)
        same(
            getattr(declared, capability), written, f"{capability}, by whether {method} is written"
        )


class _SourceError(Exception):
    """What the exam's own chunks raise."""


@cache
def _large(seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(LARGE_BYTES)


async def _failing(size_bytes: int) -> AsyncIterator[bytes]:
    data = _large()[:size_bytes]
    for start in range(0, len(data), MIB):
        yield data[start : start + MIB]
    raise _SourceError


async def _pausing(
    size_bytes: int, waits: asyncio.Event, goes_on: asyncio.Event | None = None
) -> AsyncIterator[bytes]:
    """The large content up to a size; it stops before the last byte until it may go on."""
    data = _large()[:size_bytes]
    yield data[:-1]
    waits.set()
    await (goes_on or asyncio.Event()).wait()
    yield data[-1:]


async def _outcome(task: asyncio.Task[object]) -> str:
    try:
        await task
    except asyncio.CancelledError:
        return "cancelled"
    except Exception as error:
        return repr(error)
    return "returned"
