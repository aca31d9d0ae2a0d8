"""What the promises of the storage exam are written with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Any

from deepforge.errors import DeepForgeError
from deepforge.storage.port import ObjectInfo, StorageAdapter

Opener = Callable[[], AbstractAsyncContextManager[StorageAdapter]]
"""Makes an adapter with the same settings each time, to be opened with `async with`."""


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
