"""Where in a volume of SciServer an object lies, and how it gets there and away.

An object whose key is an ordinary path is the file of that path, so jobs and people see it where they
expect it, and any file of theirs is an object. What cannot lie there (`a` when there is `a/b`, names of
more than 255 bytes) lies *aside*: escaped, under `.deepforge/objects`. Parts of uploads lie in
`.deepforge/parts`. Names that begin with `.deepforge` are never objects.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncGenerator, Awaitable, Iterable, Iterator, Sequence
from contextlib import aclosing, suppress

from deepforge.errors import (
    AlreadyExists,
    DeepForgeError,
    InvalidRequest,
    NotFound,
    RateLimited,
    Unavailable,
)
from deepforge.ids import epoch_s, new_id, utc_now
from deepforge.sciserver.files import AT_ONCE, FileInfo, FileService, Folder
from deepforge.storage.aside import escape, unescape
from deepforge.storage.keys import is_key
from deepforge.storage.port import ObjectInfo

_OWN = re.compile(r"(^|/)\.deepforge")
_LONGEST_NAME_BYTES = 255
_STALE_AFTER_S = 24 * 3600
_CLEAN_UP_S = 10.0
_MOVES = 3
_REMOVALS = 4
_PAUSE_S = 0.3
_MOST_REMEMBERED = 10_000
_LOOKED_AT_SINGLY = 3


class Tree:
    """The objects in a folder of a volume. Errors as the file service's."""

    def __init__(self, files: FileService, volume: str, folder: str) -> None:
        self.root = f"{volume}/{folder}/" if folder else f"{volume}/"
        self._files = files
        self._volume = volume
        self._aside = f"{self.root}.deepforge/objects/"
        self._parts = f"{self.root}.deepforge/parts/"
        self._made: set[str] = set()

    async def prepare(self) -> None:
        """The folder for parts is there afterwards, without what a crash left in it a day ago."""
        await self._files.make_folder(self._parts.rstrip("/"))
        parts = await self._files.listing(self._parts.rstrip("/"))
        now_s = epoch_s(utc_now())
        for name, info in (parts.files if parts else {}).items():
            if epoch_s(info.modified_at) < now_s - _STALE_AFTER_S:
                await self._files.remove(self._parts + name)

    def new_part(self) -> str:
        return self._parts + new_id()

    async def find(self, key: str) -> tuple[str, FileInfo] | None:
        """The path of the object, and its file; None if there is no such object."""
        for path in self.places(key):
            info = await self._files.stat(path)
            if info is not None:
                return path, info
        return None

    def places(self, key: str) -> Iterator[str]:
        """Where an object may lie, in the order in which readers look and writers try."""
        if _is_usual(key):
            yield self.root + key
        yield self._aside + escape(key)

    async def publish(self, part: str, key: str, stored: FileInfo, *, replace: bool) -> None:
        """Move a part where the object belongs: to its own path, or aside if that cannot be."""
        problem: DeepForgeError | None = None
        for path in self.places(key):
            try:
                await self._make_folder(path)
                await self._move(part, path, stored, replace=replace)
                return
            except (AlreadyExists, NotFound, InvalidRequest, Unavailable) as error:
                self._made.discard(path.rpartition("/")[0])
                if await self._files.stat(path) is not None and not replace:
                    raise exists(key) from error
                if not await self._is_blocked(path):
                    raise
                problem = error
        raise problem or exists(key)

    async def clean_up(self, part: str) -> None:
        """Leave no part behind, also when cancelled; should it fail, the next start does it."""
        with suppress(DeepForgeError, TimeoutError):
            async with asyncio.timeout(_CLEAN_UP_S):
                for attempt in range(1, _REMOVALS + 1):
                    try:
                        await self._files.remove(part)
                        return
                    except (Unavailable, RateLimited):  # what broke the upload may not be over yet
                        await _pause(attempt)

    async def walk(self, prefix: str, after: str | None) -> AsyncGenerator[ObjectInfo, None]:
        """Every object, as the port's `list` wants them."""
        aside = [
            info_of(key, info)
            for key, info in sorted((await self._list_aside()).items())
            if key.startswith(prefix) and (after is None or key > after)
        ]
        async with aclosing(self._walk_plain(_folder_of(prefix), prefix, after)) as plain:
            async for info in plain:
                while aside and aside[0].key <= info.key:
                    other = aside.pop(0)
                    if other.key != info.key:
                        yield other
                yield info
        for info in aside:
            yield info

    async def remove(self, keys: Sequence[str]) -> None:
        """No object has one of these keys afterwards."""
        aside = await self._list_aside()
        waiting = [self._aside + escape(key) for key in set(keys) if key in aside]
        by_folder: dict[str, list[str]] = {}
        for key in set(filter(_is_usual, keys)):
            folder, _, name = (self.root + key).rpartition("/")
            by_folder.setdefault(folder, []).append(name)
        for folder, names in by_folder.items():
            waiting += await self._files_of(folder, names)

        async def remove() -> None:
            while waiting:
                await self._files.remove(waiting.pop())

        await _all(remove() for _ in range(min(AT_ONCE, len(waiting))))

    async def _move(self, part: str, path: str, stored: FileInfo, *, replace: bool) -> None:
        """Move, and find out what happened where the answer does not tell."""
        for attempt in range(1, _MOVES + 1):
            try:
                await self._files.move(part, path, replace=replace)
            except Unavailable:
                if await self._files.stat(part) is None:
                    there = await self._files.stat(path)
                    if there is not None and there.size_bytes == stored.size_bytes:
                        return
                    raise
                if attempt == _MOVES or await self._is_blocked(path):
                    raise
                await _pause(attempt)
            else:
                return

    async def _make_folder(self, path: str) -> None:
        folder = path.rpartition("/")[0]
        if folder not in self._made and len(folder) > len(self._volume):
            await self._files.make_folder(folder)
            if len(self._made) >= _MOST_REMEMBERED:
                self._made.clear()
            self._made.add(folder)

    async def _is_blocked(self, path: str) -> bool:
        """Whether a folder has this name, or a file the name of one of its folders."""
        parts = path[len(self._volume) + 1 :].split("/")
        for number in range(1, len(parts)):
            if await self._files.stat(f"{self._volume}/{'/'.join(parts[:number])}") is not None:
                return True
        with suppress(DeepForgeError):  # a file cannot be listed
            return await self._files.listing(path) is not None
        return False

    async def _files_of(self, folder: str, names: Sequence[str]) -> Sequence[str]:
        """The paths that are files: the service removes folders with all that is in them."""
        if len(names) > _LOOKED_AT_SINGLY:
            with suppress(DeepForgeError):  # a file that has the folder's name
                found = await self._files.listing(folder)
                return [f"{folder}/{name}" for name in names if found and name in found.files]
        paths = [f"{folder}/{name}" for name in names]
        return [path for path in paths if await self._files.stat(path) is not None]

    async def _walk_plain(
        self, start: str, prefix: str, after: str | None
    ) -> AsyncGenerator[ObjectInfo, None]:
        path = (self.root + start).rstrip("/")
        if _OWN.search(start):
            return
        try:
            folder = await self._files.listing(path)
        except DeepForgeError:
            if await self._files.stat(path) is None:
                raise
            return  # a file is no folder
        for name in _sorted_names(folder):
            key = start + name
            if _OWN.match(name):
                continue
            if name.endswith("/"):
                below = key.startswith(prefix) or prefix.startswith(key)
                if below and (after is None or after < key or after.startswith(key)):
                    async with aclosing(self._walk_plain(key, prefix, after)) as infos:
                        async for info in infos:
                            yield info
            elif key.startswith(prefix) and (after is None or key > after) and is_key(key):
                assert folder is not None
                yield info_of(key, folder.files[name])

    async def _list_aside(self) -> dict[str, FileInfo]:
        tree = await self._files.listing(self._aside.rstrip("/"), whole=True)
        found: dict[str, FileInfo] = {}
        waiting = [("", tree)] if tree else []
        while waiting:
            start, folder = waiting.pop()
            waiting += [(f"{start}{name}/", below) for name, below in folder.folders.items()]
            for name, info in folder.files.items():
                key = unescape(start + name)
                if key is not None:
                    found[key] = info
        return found


def is_place(folder: str) -> bool:
    """Whether objects can lie in a folder of this name."""
    return is_key(folder) and _is_usual(folder)


def info_of(key: str, info: FileInfo) -> ObjectInfo:
    return ObjectInfo(key, info.size_bytes, info.modified_at)


def exists(key: str) -> AlreadyExists:
    return AlreadyExists(f"there is an object {key!r} already")


def _is_usual(key: str) -> bool:
    """Whether a file can have this path."""
    return not _OWN.search(key) and all(
        len(part.encode()) <= _LONGEST_NAME_BYTES for part in key.split("/")
    )


def _folder_of(prefix: str) -> str:
    start = prefix.rpartition("/")[0]
    return f"{start}/" if start else ""


async def _pause(attempt: int) -> None:
    await asyncio.sleep(_PAUSE_S * attempt * (0.5 + random.random()))


async def _all(works: Iterable[Awaitable[None]]) -> None:
    """Do them at once; the first error ends the others."""

    async def do(work: Awaitable[None]) -> None:
        await work

    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(do(work))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors


def _sorted_names(folder: Folder | None) -> list[str]:
    """Files and folders, sorted as keys sort: a folder counts with its slash (`a-b` before `a/`)."""
    if folder is None:
        return []
    return sorted([*(f"{name}/" for name in folder.folders), *folder.files])
