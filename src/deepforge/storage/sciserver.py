"""Objects as files in a volume of SciServer Files.

Where each lies: see `sciserver_tree.py`. Every upload goes to a name of its own first and is moved then:
the service writes in place, and readers would see half a file.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from math import inf
from typing import Literal, Self

from deepforge.errors import (
    ConfigError,
    Corrupt,
    Forbidden,
    NotFound,
    NotSupported,
    StorageFull,
    Unavailable,
)
from deepforge.ids import new_id
from deepforge.sciserver.files import FileInfo, FileService
from deepforge.sciserver.hosts import PUBLIC_SITE, Hosts
from deepforge.sciserver.session import Session
from deepforge.sciserver.volumes import (
    DATA,
    Found,
    Room,
    Volume,
    choices_of,
    find_volume,
    room_of,
)
from deepforge.settings import Choice, Choices, Secret, setting
from deepforge.storage.port import Capabilities, Grant, Method, ObjectInfo, StorageAdapter
from deepforge.storage.sciserver_tree import Tree, exists, info_of, is_place
from deepforge.storage.streams import blocks

_CHUNK_BYTES = 1024 * 1024
_READ_BACK_BYTES = 4 * 1024 * 1024
"""Uploads up to this size are read again before they take their place, in as many requests."""
_ROOM_KNOWN_S = 60.0
_RIGHTS_KNOWN_S = 60.0
_POOLS = Choices(
    (
        Choice("Storage", "permanent, within a quota"),
        Choice("Temporary", "SciServer may delete a file 72 hours after it was made"),
        Choice(DATA, "published data sets, for reading"),
    )
)


@dataclass(frozen=True)
class SciServerFilesSettings:
    """Whose files, and where among them."""

    username: str = setting("Name of your SciServer account.", example="alice")
    password: Secret | None = setting(
        "Its password. Better leave it empty and link the account: deepforge sciserver link.",
        default=None,
    )
    token: Secret | None = setting("A token of SciServer, as linking stores it.", default=None)
    pool: Literal["Storage", "Temporary", "data"] = setting(
        "Storage keeps files, within a quota. Temporary has no quota: SciServer may delete a file 72 "
        "hours after it was made. data is for published data sets, to read from.",
        default="Storage",
    )
    volume: str = setting(
        "Volume to use, or owner/volume for one that is shared with you. Your own is made if it is "
        "missing. In the pool data: the name of the data volume.",
        default="deepforge_data",
    )
    folder: str = setting("Folder in the volume; empty for all of it.", default="")
    site: str = setting("Address of the SciServer site.", default=PUBLIC_SITE)


class SciServerFilesAdapter(StorageAdapter):
    """One volume, or a folder in it, shared with whoever else uses it."""

    capabilities = Capabilities(range_get=False, server_copy=True, grants=True, choices=True)

    def __init__(self, settings: SciServerFilesSettings) -> None:
        super().__init__(settings)
        self.hosts = Hosts.of(settings.site)
        self.volume = Volume.named(settings.volume, pool=settings.pool, username=settings.username)
        folder = settings.folder.strip("/")
        if folder and not is_place(folder):
            raise _wrong_folder(settings.folder)
        self._session = Session(self.hosts, settings.username, settings.password, settings.token)
        self._files = FileService(self._session)
        self._tree = Tree(self._files, self.volume.path, folder)
        self._ready: Found | None = None
        self._ready_until_s = inf
        self._preparing = asyncio.Lock()
        self._room: tuple[Room | None, float] | None = None

    @property
    def endpoints(self) -> Mapping[str, str]:
        return {"site": self.hosts.site}

    @property
    def file_space(self) -> str:
        return self.hosts.file_space

    @property
    def file_root(self) -> str:
        return "/" + self._tree.root.rstrip("/")

    async def __aenter__(self) -> Self:
        await self._session.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._session.__aexit__(*exception)

    @property
    def read_only(self) -> bool:
        """Of a volume that others share: known for a while after it was looked at."""
        if self.volume.is_data:
            return True
        return self._is_ready and self._ready is not None and "write" not in self._ready.actions

    async def choices(self) -> Mapping[str, Choices]:
        listing = await self._files.volumes()
        return {
            "pool": _POOLS,
            "volume": choices_of(listing, self.settings.pool, self.volume, self.settings.username),
        }

    async def check(self) -> None:
        await self._prepare()
        if self.read_only:
            if await self._files.listing(self._tree.root.rstrip("/")) is None:
                raise _wrong_folder(self.settings.folder, "is not there")
            return
        key, content = f"deepforge-check-{new_id()}", b"DeepForge can write here.\n"
        await self.put(key, _once(content), size_bytes=len(content))
        try:
            read = b"".join([chunk async for chunk in self.get(key)])
        finally:
            await self.delete([key])
        if read != content:
            raise Unavailable(f"the volume {self.volume.path!r} did not give back what was written")

    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectInfo:
        await self._prepare(writing=True)
        if only_if_absent and await self._tree.find(key) is not None:
            raise exists(key)
        await self._check_room(size_bytes)
        part = self._tree.new_part()
        sent_bytes, sha = 0, hashlib.sha256()

        async def counted() -> AsyncGenerator[bytes, None]:
            nonlocal sent_bytes
            async with aclosing(blocks(chunks, _CHUNK_BYTES)) as stream:
                async for block in stream:
                    sent_bytes += len(block)
                    if sent_bytes <= _READ_BACK_BYTES:
                        sha.update(block)
                    yield block

        try:
            async with aclosing(counted()) as stream:
                await self._files.write(part, stream, size_bytes)
            self._note_sent(sent_bytes)
            if sent_bytes <= _READ_BACK_BYTES:
                stored = await self._read_back(part, key, sha.digest())
            else:
                stored = await self._files.stat(part)
            if stored is None or stored.size_bytes != sent_bytes:
                raise Corrupt(
                    f"SciServer did not store what was sent as {key!r}",
                    expected=f"{sent_bytes} bytes",
                    found="no file" if stored is None else f"{stored.size_bytes} bytes",
                    hint="does somebody else write to this volume, or is it full?",
                )
            await self._tree.publish(part, key, stored, replace=not only_if_absent)
        except BaseException:
            await self._tree.clean_up(part)
            raise
        return info_of(key, stored)

    async def get(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        if start or end is not None:
            raise NotSupported(
                "range_get", "SciServer gives files as a whole", hint="read it from its start"
            )
        await self._prepare()
        for path in self._tree.places(key):
            async with self._files.read(path) as download:
                if download is None:
                    continue
                received = 0
                async with aclosing(download.chunks()) as chunks:
                    async for chunk in chunks:
                        received += len(chunk)
                        yield chunk
                if received != download.info.size_bytes:
                    raise Unavailable(
                        f"{key!r} broke off after {received} of {download.info.size_bytes} bytes"
                    )
                return
        raise self._missing(key)

    async def stat(self, key: str) -> ObjectInfo:
        await self._prepare()
        found = await self._tree.find(key)
        if found is None:
            raise self._missing(key)
        return info_of(key, found[1])

    async def list(
        self, prefix: str, *, after: str | None = None
    ) -> AsyncGenerator[ObjectInfo, None]:
        await self._prepare()
        async with aclosing(self._tree.walk(prefix, after)) as infos:
            async for info in infos:
                yield info

    async def delete(self, keys: Sequence[str]) -> None:
        if keys:
            await self._prepare(writing=True)
            await self._tree.remove(keys)

    async def copy(self, source: str, target: str) -> ObjectInfo:
        await self._prepare(writing=True)
        found = await self._tree.find(source)
        if found is None:
            raise self._missing(source)
        part = self._tree.new_part()
        try:
            await self._files.move(found[0], part, copy=True)
            stored = await self._files.stat(part)
            if stored is None or stored.size_bytes != found[1].size_bytes:
                raise Unavailable(f"SciServer did not copy {source!r} as a whole")
            await self._tree.publish(part, target, stored, replace=True)
        except BaseException:
            await self._tree.clean_up(part)
            raise
        return info_of(target, stored)

    async def grant(self, key: str, method: Method, *, expires_s: float) -> Grant:
        """A path for jobs that have the volume mounted: `/<pool>/<owner>/<volume>/…`.

        It is the object's own file, or the one that a new object gets unless something is in its way.
        In a data volume: `/<volume>/…`.
        """
        await self._prepare(writing=method == "PUT")
        found = await self._tree.find(key) if method == "GET" else None
        path = found[0] if found else next(self._tree.places(key))
        return Grant("file", method, path="/" + path)

    async def room(self) -> Room | None:
        """What is used of the volume's quota; None where the service does not say, as of data
        volumes."""
        found = await self._prepare()
        room = room_of(await self._files.usage(), found, self.settings.username)
        self._room = (room, asyncio.get_running_loop().time() + _ROOM_KNOWN_S)
        return room

    async def _prepare(self, *, writing: bool = False) -> Found:
        """The volume, with the folder for uploads; what a crash left in it is removed.

        Raises `Forbidden` if it is for reading only, and somebody wants to write.
        """
        if not self._is_ready:
            async with self._preparing:
                if not self._is_ready:
                    found = await find_volume(self._files, self.volume, self.settings.username)
                    is_writable = "write" in found.actions and not self.volume.is_data
                    if is_writable:
                        await self._tree.prepare()
                    is_final = is_writable or self.volume.is_data  # else its owner may give more
                    self._ready_until_s = inf if is_final else time.monotonic() + _RIGHTS_KNOWN_S
                    self._ready = found
        if writing and self.read_only:
            raise self._for_reading()
        assert self._ready is not None
        return self._ready

    @property
    def _is_ready(self) -> bool:
        return self._ready is not None and time.monotonic() < self._ready_until_s

    async def _read_back(self, part: str, key: str, digest: bytes) -> FileInfo | None:
        """Look at what was stored, byte by byte: the service knows no digest."""
        async with self._files.read(part) as download:
            if download is None:
                return None
            sha = hashlib.sha256()
            async for chunk in download.chunks():
                sha.update(chunk)
        if download.info.size_bytes <= _READ_BACK_BYTES and sha.digest() != digest:
            raise Unavailable(f"SciServer did not give back what was sent as {key!r}")
        return download.info

    async def _check_room(self, size_bytes: int | None) -> None:
        if not size_bytes:
            return
        now_s = asyncio.get_running_loop().time()
        room, until_s = self._room or (None, 0.0)
        is_old = now_s > until_s
        if is_old or (
            room is not None and not room.has(size_bytes)
        ):  # it may be told otherwise now
            room = await self.room()
        if room is not None and not room.has(size_bytes):
            raise StorageFull(
                f"{size_bytes} bytes do not fit into the volume {self.volume.path!r}: "
                f"{room.free_bytes} are free",
                hint="remove files on SciServer (it may take 5 minutes to notice), or use the pool "
                "Temporary",
            )

    def _note_sent(self, size_bytes: int) -> None:
        """What the service tells is minutes old: count what came to it."""
        room, until_s = self._room or (None, 0.0)
        if room is not None:
            self._room = replace(room, used_bytes=room.used_bytes + size_bytes), until_s

    def _for_reading(self) -> Forbidden:
        """The error for whoever wants to change something in a volume that can only be read."""
        if self.volume.is_data:
            return Forbidden(
                f"the data volume {self.volume.name!r} of SciServer is for reading only",
                hint="store into a volume of your own",
            )
        return Forbidden(
            f"the volume {self.volume.path!r} of SciServer is shared with "
            f"{self.settings.username!r} for reading only",
            hint=f"ask {self.volume.owner} to share it for writing, or store into another one",
        )

    def _missing(self, key: str) -> NotFound:
        return NotFound(f"there is no object {key!r} in the SciServer volume {self._tree.root!r}")


def _wrong_folder(folder: str, problem: str = "must look like data/forge") -> ConfigError:
    return ConfigError(
        f"{folder!r} is no folder for a storage: it {problem}", fields={"folder": problem}
    )


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
