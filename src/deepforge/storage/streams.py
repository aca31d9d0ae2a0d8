"""Bytes on their way: blocks of one size, digests computed beside the transfer, files as streams."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Literal, Self

from deepforge.errors import (
    DeepForgeError,
    Forbidden,
    InvalidRequest,
    NotFound,
    StorageFull,
    Unavailable,
)
from deepforge.ids import new_id
from deepforge.storage.workers import on_thread

BLOCK_BYTES = 8 * 1024 * 1024
"""How much is read, hashed or sent in one go; no transfer holds more than a few of these."""

_HASHED_HERE_BYTES = 64 * 1024  # so much costs less than handing it to a thread
_HASHED_WITH_LOCK_BYTES = (
    2047  # hashlib lets go of the interpreter for more: 0.25 ms to get it back
)


async def blocks(
    chunks: AsyncIterable[bytes], size_bytes: int = BLOCK_BYTES
) -> AsyncGenerator[bytes, None]:
    """Join and split chunks into blocks of exactly `size_bytes`; only the last may be smaller.

    A chunk that has the size already is passed on as it is. An empty stream has no blocks.
    """
    held = bytearray()
    async for chunk in chunks:
        if not held and len(chunk) == size_bytes:
            yield chunk
            continue
        rest = memoryview(chunk)
        while len(held) + len(rest) >= size_bytes:
            missing = size_bytes - len(held)
            held += rest[:missing]
            rest = rest[missing:]
            yield bytes(held)
            held.clear()
        held += rest
    if held:
        yield bytes(held)


async def slices(data: bytes) -> AsyncGenerator[bytes, None]:
    """Give bytes as a stream of blocks."""
    if len(data) <= BLOCK_BYTES:
        if data:
            yield data
        return
    for start in range(0, len(data), BLOCK_BYTES):
        yield data[start : start + BLOCK_BYTES]


async def joined(chunks: AsyncIterable[bytes]) -> bytes:
    """All of a small stream."""
    parts = [chunk async for chunk in chunks]
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def part_of(
    chunks: AsyncGenerator[bytes, None], start: int, end: int | None
) -> AsyncGenerator[bytes, None]:
    """Give the bytes `[start, end)` of a stream, and close it behind them."""
    at = 0
    async with aclosing(chunks):
        async for chunk in chunks:
            wanted = chunk[max(0, start - at) : None if end is None else max(0, end - at)]
            at += len(chunk)
            if wanted:
                yield wanted
            if end is not None and at >= end:
                return


def read_small(path: Path, limit_bytes: int) -> bytes | None:
    """The content of a file of at most `limit_bytes`; None for a larger one. Blocking.

    Raises as `read_blocks` does.
    """
    with errors_about(f"file {str(path)!r}"):
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(file, limit_bytes + 1)
            while len(data) <= limit_bytes and (more := os.read(file, limit_bytes + 1)):
                data += more
        finally:
            os.close(file)
    return data if len(data) <= limit_bytes else None


async def read_blocks(path: Path) -> AsyncGenerator[bytes, None]:
    """Read a file. Raises `NotFound`, `Forbidden` or `Unavailable` for a file that cannot be read."""
    subject = f"file {str(path)!r}"
    with errors_about(subject):
        file = await on_thread(open, path, "rb", 0)
    try:
        while True:
            with errors_about(subject):
                block = await on_thread(file.read, BLOCK_BYTES)
            if not block:
                return
            yield block
    finally:
        file.close()


class Draft:
    """A file that is written beside its place and moved there when it is complete. Blocking.

    Raises `StorageFull`, `NotFound` (no such folder), `Forbidden` or `Unavailable`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._subject = f"file {str(path)!r}"
        self._draft = path.with_name(f".deepforge-{new_id()}")
        self._file: int | None = None

    def write(self, data: bytes) -> None:
        with errors_about(self._subject):
            if self._file is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._file = os.open(self._draft, flags, 0o666)
            write_all(self._file, data)

    def finish(self) -> None:
        """The file is in its place afterwards."""
        assert self._file is not None
        with errors_about(self._subject):
            self._draft.replace(self._path)
            os.close(self._file)
            self._file = None

    def close(self) -> None:
        """Leave nothing of a file that was not finished."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
            with suppress(FileNotFoundError):
                self._draft.unlink()


def write_all(file: int, data: bytes) -> None:
    """Write to a file descriptor; the system may take less than all at once."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


class Digest:
    """A hash that is computed on a thread while the bytes travel on."""

    def __init__(self, algorithm: Literal["sha256", "sha1"] = "sha256") -> None:
        self.size_bytes = 0
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm)
        self._pending: asyncio.Future[None] | None = None

    async def feed(self, chunk: bytes) -> None:
        """Take the next bytes. Returns at once for large ones, unless the former are not in yet."""
        await self._settle()
        self.size_bytes += len(chunk)
        if len(chunk) <= _HASHED_HERE_BYTES:
            for start in range(0, len(chunk), _HASHED_WITH_LOCK_BYTES):
                self._hash.update(chunk[start : start + _HASHED_WITH_LOCK_BYTES])
        else:
            loop = asyncio.get_running_loop()
            self._pending = loop.run_in_executor(None, self._hash.update, chunk)

    async def result(self) -> str:
        """Return `sha256:<hex>` of all that was fed, or the like of another algorithm."""
        await self._settle()
        return f"{self._algorithm}:{self._hash.hexdigest()}"

    async def _settle(self) -> None:
        if self._pending is not None:
            await asyncio.shield(self._pending)  # cancelled or not, the thread goes on using it
            self._pending = None


class Source:
    """Chunks on their way into an adapter: counted, hashed, and remembered if they fail."""

    def __init__(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        size_bytes: int | None,
        max_bytes: int | None,
    ) -> None:
        self.digest = Digest()
        self.failure: Exception | None = None
        self._key = key
        self._chunks = aiter(chunks)
        self._size_bytes = size_bytes
        self._max_bytes = max_bytes

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            if not self.digest.size_bytes:
                self._check(self._size_bytes or 0, "was announced with")
            while not (chunk := await anext(self._chunks)):
                pass
            await self.digest.feed(chunk)
            self._check(self.digest.size_bytes, "has at least")
            return chunk
        except StopAsyncIteration:
            if self._size_bytes not in (None, self.digest.size_bytes):
                self.failure = self._wrong_size()
                raise self.failure from None
            raise
        except Exception as error:
            self.failure = error
            raise

    def _check(self, size_bytes: int, verb: str) -> None:
        if self._max_bytes is not None and size_bytes > self._max_bytes:
            raise InvalidRequest(
                f"object {self._key!r} {verb} {size_bytes} bytes; "
                f"this storage keeps at most {self._max_bytes}"
            )
        if self._size_bytes is not None and size_bytes > self._size_bytes:
            raise self._wrong_size()

    def _wrong_size(self) -> InvalidRequest:
        return InvalidRequest(
            f"object {self._key!r} was announced with {self._size_bytes} bytes, "
            f"but {self.digest.size_bytes} came",
            part="size_bytes",
        )


@contextmanager
def errors_about(subject: str) -> Iterator[None]:
    """Turn what the system says about `subject` into one of our errors."""
    try:
        yield
    except OSError as error:
        if isinstance(error, DeepForgeError):  # two of which are OSErrors as well
            raise
        raise from_os_error(error, subject) from error


def from_os_error(error: OSError, subject: str) -> DeepForgeError:
    """Say in our errors what the system said about `subject` (a file, a storage)."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageFull(
            f"no room for {subject}: {reason}",
            hint="free some space or raise the quota, then try again",
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(f"there is no {subject}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Forbidden(f"not allowed to use {subject}: {reason}")
    return Unavailable(f"{subject} failed: {reason}")
