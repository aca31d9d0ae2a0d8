"""The file service of SciServer: what each call means, and what its errors say.

A path is text such as `Storage/alice/volume/folder/name`: pool, owner, volume, and what is in it. The
service answers 500 to everything it does not like: the words of the answer tell what it is. A file that
is missing is a good answer without bytes: only its lack of an `Etag` tells.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx

from deepforge.errors import (
    AlreadyExists,
    ConfigError,
    DeepForgeError,
    Forbidden,
    InvalidRequest,
    NotFound,
    StorageFull,
    Unavailable,
)
from deepforge.ids import timestamp, utc_now
from deepforge.sciserver.session import Session, error_text, json_of

AT_ONCE = 4
"""Requests of one session that the file service has to answer at the same time."""

_ETAG = re.compile(r'W/"?(\d+)"?')
_CHUNK_BYTES = 1024 * 1024
_WORDS: tuple[tuple[str, type[DeepForgeError]], ...] = (
    ("already exists", AlreadyExists),
    ("does not exist", NotFound),
    ("Missing required permissions", Forbidden),
    ("Disk quota exceeded", StorageFull),
    ("No space left on device", StorageFull),
    ("Attempted to access a path outside", InvalidRequest),
    ("(Is a directory)", InvalidRequest),
    ("(Not a directory)", InvalidRequest),
    ("owner name is not present", InvalidRequest),
    ("Path variable", InvalidRequest),
)


@dataclass(frozen=True)
class FileInfo:
    """One file. `modified_at` is RFC 3339 text in UTC."""

    size_bytes: int
    modified_at: str


@dataclass(frozen=True)
class Folder:
    """What a folder holds: names of folders, and files by name."""

    folders: dict[str, Folder]
    files: dict[str, FileInfo]


class Slot:
    """One of the requests that may be under way; given back while the caller is waited for."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots = slots
        self._held = False

    async def take(self) -> None:
        if not self._held:
            await self._slots.acquire()
            self._held = True

    def give_back(self) -> None:
        if self._held:
            self._slots.release()
            self._held = False


class FileService:
    """Calls of one session. Errors of `deepforge.errors`; nothing is tried again here."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._url = session.hosts.files_url
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def volumes(self) -> dict[str, Any]:
        """Every pool with the volumes that this user may use, as the service tells it."""
        answer = await self._good("GET", f"{self._url}/volumes", "its volumes")
        found = json_of(answer)
        if not isinstance(found, dict) or not isinstance(found.get("rootVolumes"), list):
            raise Unavailable(f"{self._url} told its volumes in a way that is not known")
        return found

    async def usage(self) -> list[dict[str, Any]]:
        """What is used of each quota, as the service tells it: empty where there are none."""
        found = json_of(await self._good("GET", f"{self._url}/usage", "the quota"))
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    async def make_volume(self, volume: str, description: str) -> None:
        """The volume (`Storage/alice/name`) is there afterwards; it must be the user's own."""
        await self._good(
            "PUT",
            f"{self._url}/volume/{encoded(volume)}",
            volume,
            params={"quiet": "true"},
            json={"description": description},
        )

    async def stat(self, path: str) -> FileInfo | None:
        """Look for a file; None for a folder and for nothing at all."""
        async with self._slots:
            answer = await self._session.request("HEAD", self._file(path))
        if answer.status_code != 200:  # a HEAD has no words: ask with those, for the error alone
            async with self.read(path):
                raise Unavailable(f"{self._url} answered {answer.status_code} about {path!r}")
        return info_of(answer)

    @asynccontextmanager
    async def read(self, path: str) -> AsyncIterator[Download | None]:
        """Open a file, to be read within the block; None for a folder and for nothing at all."""
        slot = Slot(self._slots)
        try:
            await slot.take()
            async with self._session.stream("GET", self._file(path)) as answer:
                if answer.status_code != 200:
                    with self._session.reading():
                        await answer.aread()
                    raise self._error(answer, path)
                info = info_of(answer)
                yield None if info is None else Download(info, answer, self._session, slot)
        finally:
            slot.give_back()

    async def write(
        self, path: str, chunks: AsyncIterator[bytes], size_bytes: int | None = None
    ) -> None:
        """Write a file that is not there yet. Readers see it grow; none is left of one that failed.

        Raises `AlreadyExists`, `StorageFull`. While `chunks` are waited for, others may transfer.
        """
        slot = Slot(self._slots)

        async def fed() -> AsyncGenerator[bytes, None]:
            while True:
                slot.give_back()
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
                finally:
                    await slot.take()
                yield chunk

        headers = {} if size_bytes is None else {"Content-Length": str(size_bytes)}
        try:
            await slot.take()
            async with self._session.stream(
                "PUT", self._file(path), content=fed(), headers=headers
            ) as answer:
                with self._session.reading("PUT"):
                    await answer.aread()
        finally:
            slot.give_back()
        if answer.status_code != 200:
            raise self._error(answer, path)
        self._not_a_page(answer)

    async def move(
        self, source: str, target: str, *, replace: bool = False, copy: bool = False
    ) -> None:
        """Move or copy a file. Raises `AlreadyExists`, and `NotFound` for no source.

        `Unavailable` leaves open whether it happened.
        """
        pool, owner, volume, path = target.split("/", 3)
        await self._good(
            "PUT",
            f"{self._url}/data/{encoded(source)}",
            target,
            params={"replaceExisting": str(replace).lower(), "doCopy": str(copy).lower()},
            json={
                "destinationPath": path,
                "destinationRootVolume": pool,
                "destinationOwnerName": owner,
                "destinationUserVolume": volume,
            },
        )

    async def make_folder(self, path: str) -> None:
        """The folder is there afterwards, and those around it; unless a file has its name."""
        url = f"{self._url}/folder/{encoded(path)}"
        await self._good("PUT", url, path, params={"quiet": "true"})

    async def remove(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it. One that is not there is fine."""
        if len([part for part in path.split("/") if part]) < 4:
            raise InvalidRequest(f"{path!r} is no file within a volume", part="path")
        url = f"{self._url}/data/{encoded(path)}"
        await self._good("DELETE", url, path, params={"quiet": "true"})

    async def listing(self, path: str, *, whole: bool = False) -> Folder | None:
        """What is in a folder (with `whole` also below it); None if it is not there."""
        url = f"{self._url}/jsontree/{encoded(path)}"
        params = {} if whole else {"level": "2"}
        try:
            answer = await self._good("GET", url, path, params=params)
        except NotFound:
            return None
        try:
            return _folder(json_of(answer)["root"])
        except (KeyError, TypeError, ValueError) as error:
            raise Unavailable(f"{self._url} listed {path!r} in a way that is not known") from error

    def _file(self, path: str) -> str:
        return f"{self._url}/file/{encoded(path)}"

    async def _good(self, method: str, url: str, about: str, **more: Any) -> httpx.Response:
        async with self._slots:
            answer = await self._session.request(method, url, **more)
        if answer.status_code != 200:
            raise self._error(answer, about)
        self._not_a_page(answer)
        return answer

    def _not_a_page(self, answer: httpx.Response) -> None:
        if "text/html" in answer.headers.get("content-type", ""):
            raise _web_page(self._url)

    def _error(self, answer: httpx.Response, about: str) -> DeepForgeError:
        status, text = answer.status_code, error_text(answer)
        if status == 404:
            return ConfigError(
                f"there is no file service at {self._url}",
                fields={"site": "is not the address of a SciServer site"},
            )
        if status < 500:
            return InvalidRequest(f"SciServer refuses a request for {about!r} ({status})")
        if text is None:
            return Unavailable(f"SciServer answered {status} to a request for {about!r}")
        return error_of(text, about)


class Download:
    """A file that is being read. Its length is held against what was promised."""

    def __init__(
        self, info: FileInfo, answer: httpx.Response, session: Session, slot: Slot
    ) -> None:
        self.info = info
        self._answer = answer
        self._session = session
        self._slot = slot

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The bytes. Raises `Unavailable` when they break off, or never come."""
        stream = self._answer.aiter_raw(_CHUNK_BYTES)
        while True:
            await self._slot.take()
            with self._session.reading():
                chunk = await anext(stream, b"")
            self._slot.give_back()
            if not chunk:
                return
            yield chunk


class NoVolume(ConfigError):
    """There is no such volume, or it is not shared with this user: the service does not tell which.

    Not the same as an object that is missing: with the volume everything went away.
    """


def error_of(text: str, about: str) -> DeepForgeError:
    """Make the error that the file service spells. An internal one (`Unavailable`) may pass."""
    if "Volume does not exist" in text:
        return NoVolume(
            f"SciServer says of {about!r}: {text[:500]}",
            fields={"volume": "does not exist, or is not shared with you"},
            hint="it does not exist, or its owner does not share it with you",
        )
    kind = next((kind for words, kind in _WORDS if words in text), None)
    if kind is None:
        return Unavailable(f"SciServer failed with {about!r}: {text[:500]}")
    hint = None
    if kind is StorageFull:
        hint = "remove files on SciServer, or use the pool Temporary"
    if kind is Forbidden:
        hint = "ask the volume's owner for more rights, or use another volume"
    return kind(f"SciServer says of {about!r}: {text[:500]}", hint=hint)


def info_of(answer: httpx.Response) -> FileInfo | None:
    """What the headers tell of a file; None when there is none (or a folder)."""
    etag = answer.headers.get("etag")
    if etag is None:
        if "text/html" in answer.headers.get("content-type", ""):
            raise _web_page(str(answer.request.url.copy_with(query=None)))
        return None
    size = answer.headers.get("content-length", "")
    if not size.isdecimal():
        raise Unavailable("SciServer told no size of a file")
    found = _ETAG.fullmatch(etag)
    modified_at = timestamp(int(found[1]) / 1000) if found else utc_now()
    return FileInfo(int(size), modified_at)


def encoded(path: str) -> str:
    return quote(path, safe="/")


def _folder(value: Any) -> Folder:  # JSON; the keys of a folder without entries may be missing
    return Folder(
        {str(one["name"]): _folder(one) for one in value.get("folders") or ()},
        {
            str(one["name"]): FileInfo(int(one["size"]), _moment(one.get("lastModified")))
            for one in value.get("files") or ()
        },
    )


def _moment(text: object) -> str:
    try:
        return timestamp(datetime.fromisoformat(str(text)).astimezone(UTC).timestamp())
    except ValueError:
        return utc_now()


def _web_page(url: str) -> ConfigError:
    return ConfigError(
        f"{url} answered with a web page in place of data",
        fields={"site": "is not the address of a SciServer site"},
        hint="is there a login page or a proxy in between?",
    )
