"""A storage that misbehaves on purpose, around one that does not.

storage = FaultyStorage(MemoryAdapter(MemorySettings()))
storage.fail("put", Unavailable("down"), times=2)
storage.fail("put", OutcomeUnknown("no answer"), when="after")
storage.cut(Unavailable("broke"), after_bytes=1000)
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal, Self

from deepforge.storage.port import Grant, Method, ObjectInfo, StorageAdapter


@dataclass
class _Fault:
    error: Exception
    when: Literal["before", "after"]
    after_bytes: int = 0


class FaultyStorage(StorageAdapter):
    """Does what `inner` does, but for the faults that are waiting. They are used in order, once.

    `calls` lists the methods that were called.
    """

    def __init__(self, inner: StorageAdapter) -> None:
        super().__init__(inner.settings)
        self.inner = inner
        self.capabilities = inner.capabilities  # type: ignore[misc]  # of this one object
        self.calls: list[str] = []
        self._faults: dict[str, deque[_Fault]] = {}
        self._changed: dict[str, bytes] = {}

    def fail(
        self,
        method: str,
        error: Exception,
        *,
        times: int = 1,
        when: Literal["before", "after"] = "before",
    ) -> None:
        """Let the next calls of a method raise, before anything happens or after all of it did."""
        self._faults.setdefault(method, deque()).extend([_Fault(error, when)] * times)

    def cut(self, error: Exception, *, after_bytes: int, times: int = 1) -> None:
        """Let the next `get`s raise after so many bytes."""
        self._faults.setdefault("get", deque()).extend(
            [_Fault(error, "after", after_bytes)] * times
        )

    def change(self, key: str, content: bytes) -> None:
        """From now on, give other bytes for a key than were stored: cut short, or altered."""
        self._changed[key] = content

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.inner.__aexit__(*exception)

    @property
    def file_space(self) -> str | None:
        return self.inner.file_space

    @property
    def file_root(self) -> str:
        return self.inner.file_root

    async def check(self) -> None:
        await self._do("check")

    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectInfo:
        options = {"size_bytes": size_bytes, "only_if_absent": only_if_absent}
        info: ObjectInfo = await self._do("put", key, chunks, **options)
        return info

    async def get(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        fault = self._next("get")
        if fault is not None and fault.when == "before":
            raise fault.error
        left = fault.after_bytes if fault is not None else None
        async with aclosing(self._content(key, start, end)) as chunks:
            async for chunk in chunks:
                if left is not None and len(chunk) >= left:
                    if left:
                        yield chunk[:left]
                    assert fault is not None
                    raise fault.error
                left = None if left is None else left - len(chunk)
                yield chunk
        if fault is not None:
            raise fault.error

    async def stat(self, key: str) -> ObjectInfo:
        info: ObjectInfo = await self._do("stat", key)
        return info

    async def list(
        self, prefix: str, *, after: str | None = None
    ) -> AsyncGenerator[ObjectInfo, None]:
        fault = self._next("list")
        if fault is not None and fault.when == "before":
            raise fault.error
        async for info in self.inner.list(prefix, after=after):
            yield info
            if fault is not None:  # in the middle: after the first
                raise fault.error

    async def delete(self, keys: Sequence[str]) -> None:
        await self._do("delete", keys)

    async def copy(self, source: str, target: str) -> ObjectInfo:
        info: ObjectInfo = await self._do("copy", source, target)
        return info

    async def grant(self, key: str, method: Method, *, expires_s: float) -> Grant:
        grant: Grant = await self._do("grant", key, method, expires_s=expires_s)
        return grant

    async def begin_parts(self, key: str) -> str:
        upload: str = await self._do("begin_parts", key)
        return upload

    async def grant_part(self, key: str, upload: str, number: int, *, expires_s: float) -> Grant:
        grant: Grant = await self._do("grant_part", key, upload, number, expires_s=expires_s)
        return grant

    async def complete_parts(self, key: str, upload: str, etags: Sequence[str]) -> ObjectInfo:
        info: ObjectInfo = await self._do("complete_parts", key, upload, etags)
        return info

    async def abort_parts(self, key: str, upload: str) -> None:
        await self._do("abort_parts", key, upload)

    def _next(self, method: str) -> _Fault | None:
        self.calls.append(method)
        waiting = self._faults.get(method)
        return waiting.popleft() if waiting else None

    async def _do(self, method: str, *arguments: Any, **options: Any) -> Any:  # as the method's
        fault = self._next(method)
        if fault is not None and fault.when == "before":
            raise fault.error
        result = await getattr(self.inner, method)(*arguments, **options)
        if fault is not None:
            raise fault.error
        return result

    async def _content(self, key: str, start: int, end: int | None) -> AsyncGenerator[bytes, None]:
        if key in self._changed:
            yield self._changed[key][start:end]
            return
        async for chunk in self.inner.get(key, start=start, end=end):
            yield chunk
