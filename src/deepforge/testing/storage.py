"""The exam of the storage port: every promise of `StorageAdapter` as something that can be tried.

With pytest, subclass `StorageContract` and give one fixture:

    class TestMyStorage(StorageContract):
        @pytest.fixture
        def opener(self, tmp_path):
            return lambda: MyAdapter(MySettings(...))

Without pytest, against live credentials, `examine` tries the same promises under a scratch prefix.
Which promises are tried depends on the declared capabilities.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Any, Literal

from deepforge.errors import DeepForgeError
from deepforge.ids import new_id
from deepforge.storage.port import ObjectInfo, StorageAdapter

Opener = Callable[[], AbstractAsyncContextManager[StorageAdapter]]

TRIED_AT_MOST_S = 120.0
"""A promise that is not kept within this time is broken."""


class PromiseBroken(AssertionError):
    """The adapter did something else than the port promises."""


@dataclass(frozen=True)
class Exam:
    """One adapter at its exam, with a prefix of its own to work under."""

    adapter: StorageAdapter
    opener: Opener
    prefix: str

    def key(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    async def put(self, name: str, *chunks: bytes, **options: Any) -> ObjectInfo:
        """Store the chunks under a name below the prefix; options are those of the port."""
        return await self.adapter.put(self.key(name), stream(chunks), **options)

    async def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        return b"".join([chunk async for chunk in self.adapter.get(key, start=start, end=end)])

    async def names(self, prefix: str = "", after: str | None = None) -> list[str]:
        """What the adapter lists below the exam's prefix, without it, in its order."""
        full_after = None if after is None else self.key(after)
        found = self.adapter.list(self.key(prefix), after=full_after)
        return [info.key[len(self.prefix) + 1 :] async for info in found]

    async def put_many(self, names: Iterable[str]) -> None:
        """Store small objects, a few at once, each with its own name as content."""
        waiting = list(names)

        async def work() -> None:
            while waiting:
                name = waiting.pop()
                await self.put(name, name.encode())

        await asyncio.gather(*(work() for _ in range(8)))


@dataclass(frozen=True)
class Promise:
    """One thing the port promises. `needs` names the capabilities without which it is not asked."""

    name: str
    sentence: str
    needs: tuple[str, ...]
    attempt: Callable[[Exam], Awaitable[None]]

    def missing(self, adapter: StorageAdapter) -> str | None:
        """The capability that keeps this from being asked, or None."""
        lacks = (need for need in self.needs if not getattr(adapter.capabilities, need))
        return next(lacks, None)


@dataclass(frozen=True)
class Verdict:
    """What came of one promise. `message` says what was wrong, or which capability is missing."""

    promise: str
    sentence: str
    outcome: Literal["kept", "broken", "not asked"]
    seconds: float = 0.0
    message: str | None = None


async def examine(opener: Opener) -> AsyncIterator[Verdict]:
    """Try every promise in a scratch prefix, one verdict each, and leave nothing behind.

    Errors on opening the adapter are raised; whatever happens later is a verdict.
    """
    async with opener() as adapter:
        for promise in promises():
            lacking = promise.missing(adapter)
            if lacking is not None:
                reason = f"the adapter does not declare {lacking}"
                yield Verdict(promise.name, promise.sentence, "not asked", message=reason)
                continue
            began = time.monotonic()
            try:
                await attempt(promise, adapter, opener)
                outcome: Literal["kept", "broken"] = "kept"
                message = None
            except Exception as error:  # the exam goes on, whatever an adapter raises
                outcome, message = "broken", f"{type(error).__name__}: {error}"
            seconds = time.monotonic() - began
            yield Verdict(promise.name, promise.sentence, outcome, seconds, message)


async def attempt(promise: Promise, adapter: StorageAdapter, opener: Opener) -> None:
    """Try one promise under a prefix of its own. Raises `PromiseBroken`, or what escaped."""
    exam = Exam(adapter, opener, f"deepforge-exam/{new_id()}")
    try:
        async with asyncio.timeout(TRIED_AT_MOST_S):
            await promise.attempt(exam)
    except TimeoutError as error:
        raise PromiseBroken(f"took more than {TRIED_AT_MOST_S:.0f} s") from error
    finally:
        if adapter.capabilities.chosen_keys:
            left = [info.key async for info in adapter.list(exam.prefix + "/")]
            await adapter.delete(left)


def promises() -> Sequence[Promise]:
    """Every promise, in the order in which failures explain each other best."""
    from deepforge.testing import storage_grants, storage_promises

    return (*storage_promises.PROMISES, *storage_grants.PROMISES)


class StorageContract:
    """The exam for pytest. A subclass gives the fixture `opener`: a callable that makes an adapter
    with the same settings each time, to be opened with `async with`."""

    def pytest_generate_tests(self, metafunc: Any) -> None:  # pytest.Metafunc; pytest is optional
        if "promise" in metafunc.fixturenames:
            every = promises()
            metafunc.parametrize("promise", every, ids=[one.name for one in every])

    async def test_promise(self, promise: Promise, opener: Opener) -> None:
        async with opener() as adapter:
            lacking = promise.missing(adapter)
            if lacking is not None:
                import pytest

                pytest.skip(f"the adapter does not declare {lacking}")
            await attempt(promise, adapter, opener)


# What promises are written with.


class Catalogue(list[Promise]):
    """Collects promises in the order in which they are written."""

    def promise(
        self, *needs: str
    ) -> Callable[[Callable[[Exam], Awaitable[None]]], Callable[[Exam], Awaitable[None]]]:
        """Declare a promise; its name and sentence are those of the function."""

        def declare(
            function: Callable[[Exam], Awaitable[None]],
        ) -> Callable[[Exam], Awaitable[None]]:
            sentence = " ".join((function.__doc__ or "").split())
            self.append(Promise(function.__name__, sentence, needs, function))
            return function

        return declare


async def stream(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def same(expected: object, found: object, what: str) -> None:
    if expected != found:
        raise PromiseBroken(f"{what}: expected {_short(expected)}, found {_short(found)}")


def holds(fact: bool, what: str) -> None:
    if not fact:
        raise PromiseBroken(what)


async def raises(kind: type[DeepForgeError], action: Awaitable[object], what: str) -> None:
    try:
        await action
    except kind:
        return
    except Exception as error:
        raise PromiseBroken(f"{what}: {kind.__name__} expected, {error!r} came") from error
    raise PromiseBroken(f"{what}: {kind.__name__} expected, nothing came")


async def first_chunk(chunks: AsyncIterator[bytes]) -> bytes:
    """Read one chunk and close the stream."""
    async with aclosing(chunks) as opened:  # type: ignore[type-var]  # adapters give generators
        return await anext(opened, b"")


def _short(value: object) -> str:
    if isinstance(value, bytes) and len(value) > 40:
        return f"{len(value)} bytes beginning with {value[:20]!r}"
    text = repr(value)
    return text if len(text) <= 300 else text[:297] + "…"
