"""Objects in the memory of this process, for tests and trials."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from deepforge.errors import AlreadyExists, NotFound
from deepforge.ids import digest, utc_now
from deepforge.settings import setting
from deepforge.storage.port import Capabilities, ObjectInfo, StorageAdapter

_CHUNK_BYTES = 1024 * 1024
_shelves: dict[str, dict[str, tuple[bytes, ObjectInfo]]] = {}


@dataclass(frozen=True)
class MemorySettings:
    """Storages with the same shelf, in one process, hold the same objects."""

    shelf: str = setting("Which objects of this process to see.", default="default")


class MemoryAdapter(StorageAdapter):
    """Nothing here outlives the process."""

    capabilities = Capabilities(conditional_put=True, server_copy=True)

    def __init__(self, settings: MemorySettings) -> None:
        super().__init__(settings)
        self._objects = _shelves.setdefault(settings.shelf, {})

    async def check(self) -> None:
        """Always fine."""

    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectInfo:
        self._refuse(key, only_if_absent)
        data = b"".join([chunk async for chunk in chunks])
        self._refuse(key, only_if_absent)  # somebody may have been faster
        info = ObjectInfo(key, len(data), utc_now(), etag=digest(data))
        self._objects[key] = (data, info)
        return info

    async def get(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        data = memoryview(self._find(key)[0])[start:end]
        for first in range(0, len(data), _CHUNK_BYTES):
            yield bytes(data[first : first + _CHUNK_BYTES])

    async def stat(self, key: str) -> ObjectInfo:
        return self._find(key)[1]

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        for key in sorted(self._objects):  # by code point, which is by UTF-8 bytes
            if key.startswith(prefix) and (after is None or key > after) and key in self._objects:
                yield self._objects[key][1]

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._objects.pop(key, None)

    async def copy(self, source: str, target: str) -> ObjectInfo:
        data, info = self._find(source)
        copied = ObjectInfo(target, len(data), utc_now(), etag=info.etag)
        self._objects[target] = (data, copied)
        return copied

    def _find(self, key: str) -> tuple[bytes, ObjectInfo]:
        try:
            return self._objects[key]
        except KeyError:
            raise NotFound(f"there is no object {key!r}") from None

    def _refuse(self, key: str, only_if_absent: bool) -> None:
        if only_if_absent and key in self._objects:
            raise AlreadyExists(f"there is an object {key!r} already")
