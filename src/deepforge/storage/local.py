"""Objects as files in a folder of this machine. Where each lies: see `folder.py`."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from deepforge.errors import (
    ConfigError,
    Forbidden,
    NotFound,
    StorageFull,
    Unavailable,
)
from deepforge.ids import new_id
from deepforge.machine import machine_space
from deepforge.settings import setting
from deepforge.storage.folder import Folder, info_of
from deepforge.storage.port import Capabilities, Grant, Method, ObjectInfo, StorageAdapter
from deepforge.storage.streams import blocks, errors_about, from_os_error, write_all
from deepforge.storage.workers import Workers

P = ParamSpec("P")
T = TypeVar("T")

_READ_BYTES = 4 * 1024 * 1024
_SMALL_BYTES = 64 * 1024
_LISTED_AT_ONCE = 500


@dataclass(frozen=True)
class LocalSettings:
    """Where the folder is."""

    folder: str = setting("Folder on the server's machine, as a full path.", example="/data/forge")


class LocalAdapter(StorageAdapter):
    """One folder, shared with whoever else uses it."""

    capabilities = Capabilities(conditional_put=True, server_copy=True, grants=True)

    def __init__(self, settings: LocalSettings) -> None:
        super().__init__(settings)
        path = Path(settings.folder)
        if not path.is_absolute():
            raise _wrong_folder(f"{settings.folder!r} is not a full path")
        self._path = str(path)
        self._subject = f"folder {self._path!r}"

    async def __aenter__(self) -> Self:
        self._workers = Workers(8, "local-storage")
        try:
            self._folder = await self._workers.run(Folder, self._path)
        except BaseException as error:
            await self._workers.close()
            if not isinstance(error, OSError):
                raise
            ours = from_os_error(error, self._subject)
            if isinstance(ours, StorageFull):
                raise ours from error
            raise _wrong_folder(f"{self._path!r} cannot be used: {error.strerror}") from error
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._workers.close()

    @property
    def file_space(self) -> str:
        return machine_space()

    async def check(self) -> None:
        key, content = f"deepforge-check-{new_id()}", b"deepforge"
        try:
            await self.put(key, _once(content))
            read = b"".join([chunk async for chunk in self.get(key)])
            await self.delete([key])
        except (Forbidden, NotFound) as error:
            raise _wrong_folder(f"{self._path!r} cannot be used: {error.message}") from error
        if read != content:
            raise Unavailable(f"{self._subject} did not give back what was written")

    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectInfo:
        draft = _Draft(self._folder)
        try:
            former = b""
            async for block in blocks(chunks):
                if former:
                    await self._run(draft.write, former)
                former = block
            return await self._run(draft.publish, former, key, only_if_absent)
        finally:
            draft.close()

    async def get(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        reader = _Reader()
        try:
            path, found = self._here(lambda: self._find(key))
            if found.st_size <= _SMALL_BYTES:
                chunk = self._here(lambda: reader.open(path, start, end))
            else:
                chunk = await self._run(reader.open, path, start, end)
            while chunk:
                yield chunk
                chunk = b"" if reader.at_end else await self._run(reader.read)
        finally:
            reader.close()

    async def stat(self, key: str) -> ObjectInfo:
        return info_of(key, self._here(lambda: self._find(key))[1])

    async def list(
        self, prefix: str, *, after: str | None = None
    ) -> AsyncGenerator[ObjectInfo, None]:
        walk = self._folder.walk(prefix, after)
        while batch := await self._run(_batch, walk):
            for info in batch:
                yield info

    async def delete(self, keys: Sequence[str]) -> None:
        def remove() -> None:
            for key in keys:
                self._folder.remove(key)

        await self._run(remove)

    async def copy(self, source: str, target: str) -> ObjectInfo:
        draft = _Draft(self._folder)
        try:
            return await self._run(self._copy, source, draft, target)
        finally:
            draft.close()

    async def grant(self, key: str, method: Method, *, expires_s: float) -> Grant:
        return Grant("file", method, path=self._here(lambda: self._folder.place(key)))

    def _find(self, key: str) -> tuple[str, os.stat_result]:
        found = self._folder.find(key)
        if found is None:
            raise NotFound(f"there is no object {key!r} in {self._subject}")
        return found

    def _copy(self, source: str, draft: _Draft, target: str) -> ObjectInfo:
        draft.copy(self._find(source)[0])
        return draft.publish(b"", target, False)

    def _here(self, function: Callable[[], T]) -> T:
        """Call not on a thread: a few looks at names, or some KiB, cost less than the way there."""
        with errors_about(self._subject):
            return function()

    async def _run(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        with errors_about(self._subject):
            return await self._workers.run(function, *arguments, **named)


class _Reader:
    """A range of a file. It stays what it was at `open`, whatever takes its name meanwhile."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._start = 0
        self._end = 0

    def open(self, path: str, start: int, end: int | None) -> bytes:
        """Open the file and read the first chunk."""
        self._file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        size_bytes = os.fstat(self._file).st_size
        self._start, self._end = start, size_bytes if end is None else min(end, size_bytes)
        return self.read()

    @property
    def at_end(self) -> bool:
        return self._start >= self._end

    def read(self) -> bytes:
        """Give the next chunk, empty at the end (or where somebody cut the file meanwhile)."""
        if self._file is None or self._start >= self._end:
            return b""
        chunk = os.pread(self._file, min(_READ_BYTES, self._end - self._start), self._start)
        self._start += len(chunk)
        return chunk

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)


class _Draft:
    """A file that is written first and becomes an object then. `close` leaves nothing of it."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._path = folder.new_draft()
        self._file: int | None = None

    def write(self, block: bytes) -> None:
        if self._file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._file = os.open(self._path, flags, 0o666)
        write_all(self._file, block)

    def copy(self, source: str) -> None:
        shutil.copyfile(source, self._path)
        self._file = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)

    def publish(self, block: bytes, key: str, only_if_absent: bool) -> ObjectInfo:
        self.write(block)
        assert self._file is not None
        os.fsync(self._file)
        return self._folder.publish(self._path, key, only_if_absent=only_if_absent)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        with suppress(FileNotFoundError):
            Path(self._path).unlink()


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _batch(walk: Iterator[ObjectInfo]) -> list[ObjectInfo]:
    return list(islice(walk, _LISTED_AT_ONCE))


def _wrong_folder(problem: str) -> ConfigError:
    return ConfigError(
        f"the folder of this storage is wrong: {problem}",
        fields={"folder": problem},
        hint="name a folder on the server's machine in which DeepForge may write",
    )
