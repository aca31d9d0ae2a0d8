"""What everybody calls to use a storage. It stands over the port and makes all adapters alike.

Key rules, digests, retries with growing pauses, limits and error discipline are here, once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from deepforge.errors import (
    AlreadyExists,
    Corrupt,
    DeepForgeError,
    InvalidRequest,
    NotSupported,
)
from deepforge.settings import Choices
from deepforge.storage.keys import check_key, check_prefix
from deepforge.storage.port import (
    Capabilities,
    Grant,
    Method,
    ObjectInfo,
    ObjectRef,
    StorageAdapter,
)
from deepforge.storage.receipts import Receipts
from deepforge.storage.retry import Retry, discipline, try_again
from deepforge.storage.streams import (
    Digest,
    Draft,
    Source,
    errors_about,
    part_of,
    read_blocks,
    read_small,
    slices,
)
from deepforge.storage.workers import on_thread

T = TypeVar("T")

_PATIENT = Retry()
_TINY_BYTES = 64 * 1024  # files of so much are read and written here: a thread costs more
_DELETED_AT_ONCE = 1000  # as many keys as S3 takes in one request


class StorageClient:
    """One open storage under its name. Safe for many tasks of one event loop.

    Every method raises errors of `deepforge.errors` only. `Unavailable`, `RateLimited` and
    `OutcomeUnknown` come after all retries; any other error comes at once. Keys are checked before
    anything is asked: `InvalidRequest`.
    """

    def __init__(
        self,
        adapter: StorageAdapter,
        name: str,
        *,
        receipts: Receipts | None = None,
        retry: Retry = _PATIENT,
        reads_at_once: int = 16,
        writes_at_once: int = 8,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Stand over an adapter that is open already; whoever opened it closes it.

        `receipts` let a storage that chooses its keys be read by those we put with as well.
        """
        self.adapter = adapter
        self.name = name
        self._receipts = None if adapter.capabilities.chosen_keys else receipts
        self._retry = retry
        # Two limits, because a put may wait for a get of the same storage (a copy). A read holds
        # its place only while it waits for the next bytes, so an idle stream blocks nobody.
        self._reads = asyncio.Semaphore(reads_at_once)
        self._writes = asyncio.Semaphore(writes_at_once)
        self._sleep = sleep
        self._chance = chance

    @property
    def capabilities(self) -> Capabilities:
        return self.adapter.capabilities

    @property
    def file_space(self) -> str | None:
        """Where the objects are also files, as in the port."""
        return self.adapter.file_space

    @property
    def file_root(self) -> str:
        """The folder there that holds them all, as in the port."""
        return self.adapter.file_root

    @property
    def read_only(self) -> bool:
        """Whether nothing can be stored or deleted here, as in the port."""
        return self.adapter.read_only

    async def choices(self) -> Mapping[str, Choices]:
        """What the service offers for settings, as in the port. No retries: somebody waits."""
        with discipline(self.adapter, "choices"):
            return await self.adapter.choices()

    async def check(self) -> None:
        """Prove that the storage works with these settings; leave nothing behind. No retries.

        Raises `AuthError`, `Forbidden`, `ConfigError(fields)`, `Unavailable`, `StorageFull`.
        """
        with discipline(self.adapter, "check"):
            await self.adapter.check()

    async def put_bytes(self, key: str, data: bytes, *, only_if_absent: bool = False) -> ObjectRef:
        """Store bytes under a key, all or nothing, in place of what was there.

        With `only_if_absent`, raises `AlreadyExists` if there is an object; should an answer have
        been lost, an object of exactly these bytes counts as ours. Raises `StorageFull`.
        """
        return await self._put_again(key, lambda: slices(data), len(data), only_if_absent)

    async def put_file(self, key: str, path: Path, *, only_if_absent: bool = False) -> ObjectRef:
        """Store the content of a file, as `put_bytes` does. The file is read as a stream.

        Raises `NotFound` or `Forbidden` when the file cannot be read.
        """
        data = read_small(path, _TINY_BYTES)
        if data is not None:
            return await self.put_bytes(key, data, only_if_absent=only_if_absent)
        with errors_about(f"file {str(path)!r}"):
            size_bytes = path.stat().st_size
        return await self._put_again(key, lambda: read_blocks(path), size_bytes, only_if_absent)

    async def put_stream(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectRef:
        """Store a stream, all or nothing, with bounded memory. It can be read once: no retries.

        What `chunks` raises comes out unchanged. `InvalidRequest` if it gives another number of
        bytes than `size_bytes`.
        """
        check_key(key)
        return await self._put_once(key, chunks, size_bytes, only_if_absent)

    async def get_bytes(self, source: ObjectRef | str, *, limit_bytes: int) -> bytes:
        """Return a whole small object; verified if a reference with a digest is given.

        Raises `NotFound`, `Corrupt`, and `InvalidRequest` for an object above `limit_bytes`.
        """
        key = await self._stored(check_key(source if isinstance(source, str) else source.key))
        data = await self._again("get", lambda: self._collect(key, limit_bytes))
        if isinstance(source, ObjectRef):
            if len(data) != source.size_bytes:
                raise self._corrupt(source, f"{len(data)} bytes")
            if source.digest is not None:
                digest = Digest()
                await digest.feed(data)
                if (found := await digest.result()) != source.digest:
                    raise self._corrupt(source, found)
        return data

    async def get_stream(self, ref: ObjectRef) -> AsyncGenerator[bytes, None]:
        """Give the bytes of an object. A broken connection is taken up again where it broke.

        Raises `NotFound` before the first chunk, and `Corrupt` at the end (or before) unless size
        and digest are those of the reference: who uses the bytes must wait for the end.
        """
        stored = await self._stored(check_key(ref.key))
        digest = Digest()
        stream = self._read(stored, resume=ref.digest is not None)
        async with aclosing(stream):
            async for chunk in stream:
                if digest.size_bytes + len(chunk) > ref.size_bytes:
                    raise self._corrupt(ref, f"more than {ref.size_bytes} bytes")
                if ref.digest is None:
                    digest.size_bytes += len(chunk)
                else:
                    await digest.feed(chunk)
                yield chunk
        if digest.size_bytes != ref.size_bytes:
            raise self._corrupt(ref, f"{digest.size_bytes} bytes")
        if ref.digest is not None and (found := await digest.result()) != ref.digest:
            raise self._corrupt(ref, found)

    async def get_range(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Give the bytes `[start, end)` of an object as they are: a part cannot be verified.

        Raises `NotFound` before the first chunk. Not taken up again once bytes have come. A storage
        without ranges is read from the start of the object, and what comes before is dropped.
        """
        check_key(key)
        stored = await self._stored(key)
        if self.capabilities.range_get:
            stream = self._read(stored, start=start, end=end, resume=False)
        else:
            stream = part_of(self._read(stored, resume=False), start, end)
        async with aclosing(stream) as chunks:
            async for chunk in chunks:
                yield chunk

    async def get_file(self, ref: ObjectRef, path: Path) -> None:
        """Store an object as a file: verified, and complete or not there at all.

        Not forced to the disk: the object is kept where it came from. Raises as `get_stream` does,
        and `StorageFull` when the disk is full.
        """
        draft = Draft(path)
        try:
            if ref.size_bytes <= _TINY_BYTES:
                draft.write(await self.get_bytes(ref, limit_bytes=ref.size_bytes))
                draft.finish()
                return
            async with aclosing(self.get_stream(ref)) as stream:
                async for chunk in stream:
                    await on_thread(draft.write, chunk)
            await on_thread(draft.finish)
        finally:
            draft.close()

    async def stat(self, key: str) -> ObjectInfo:
        """Raises `NotFound`. The key told is the one the object is kept under."""
        stored = await self._stored(check_key(key))
        return await self._again("stat", lambda: self.adapter.stat(stored))

    async def list(
        self, prefix: str = "", *, after: str | None = None
    ) -> AsyncGenerator[ObjectInfo, None]:
        """Every object whose key begins with `prefix`, ascending by the UTF-8 bytes of the key.

        `after` resumes behind a key, whether or not it still exists.
        """
        check_prefix(prefix)
        failures = 0
        while True:
            try:
                async with aclosing(self._advance(self.adapter.list(prefix, after=after))) as infos:
                    async for info in infos:
                        after, failures = info.key, 0
                        yield info
                return
            except DeepForgeError as error:
                failures += 1
                await self._pause(failures, error)

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove any number of objects. Absent ones are fine; safe to repeat after any error."""
        for key in keys:
            check_key(key)
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            batch = keys[start : start + _DELETED_AT_ONCE]
            await self._again("delete", partial(self.adapter.delete, batch))

    async def copy(self, ref: ObjectRef, key: str) -> ObjectRef:
        """Store the same bytes under another key; by the service itself where it can."""
        check_key(ref.key)
        check_key(key)
        if not (self.capabilities.server_copy and self.capabilities.chosen_keys):
            stream = self.get_stream(ref)
            async with aclosing(stream):
                return await self.put_stream(key, stream, size_bytes=ref.size_bytes)
        info = await self._again("copy", lambda: self.adapter.copy(ref.key, key))
        return replace(ref, storage=self.name, key=info.key, size_bytes=info.size_bytes)

    async def grant(self, key: str, method: Method, *, expires_s: float) -> Grant:
        """Allow one object to be read or written without credentials; it need not exist.

        Raises `NotSupported` where the storage cannot do it.
        """
        check_key(key)
        self._require("grants", self.capabilities.grants)
        _check_expiry(expires_s)
        return await self._again(
            "grant", lambda: self.adapter.grant(key, method, expires_s=expires_s)
        )

    async def begin_parts(self, key: str) -> str:
        """Begin an object that others write in parts; return the upload's id. As in the port."""
        check_key(key)
        self._require("part_grants", self.capabilities.part_grants)
        return await self._again("begin_parts", lambda: self.adapter.begin_parts(key))

    async def grant_part(self, key: str, upload: str, number: int, *, expires_s: float) -> Grant:
        """Allow part `number` (1 to 10,000) to be written. As in the port."""
        check_key(key)
        self._require("part_grants", self.capabilities.part_grants)
        _check_expiry(expires_s)
        if not 1 <= number <= 10_000:
            raise InvalidRequest(f"part {number} is not one of 1 to 10000", part="number")
        return await self._again(
            "grant_part", lambda: self.adapter.grant_part(key, upload, number, expires_s=expires_s)
        )

    async def complete_parts(self, key: str, upload: str, etags: Sequence[str]) -> ObjectInfo:
        """Make the object of its parts, in order. Safe to repeat with the same etags."""
        check_key(key)
        self._require("part_grants", self.capabilities.part_grants)
        if not etags:
            raise InvalidRequest(f"upload of {key!r} has no parts to complete", part="etags")
        return await self._again(
            "complete_parts", lambda: self.adapter.complete_parts(key, upload, etags)
        )

    async def abort_parts(self, key: str, upload: str) -> None:
        """Give up an upload in parts and free its room. An unknown upload is fine."""
        check_key(key)
        self._require("part_grants", self.capabilities.part_grants)
        await self._again("abort_parts", lambda: self.adapter.abort_parts(key, upload))

    async def _put_again(
        self,
        key: str,
        source: Callable[[], AsyncGenerator[bytes, None]],
        size_bytes: int,
        only_if_absent: bool,
    ) -> ObjectRef:
        check_key(key)
        failures = 0
        while True:
            chunks = source()
            try:
                async with aclosing(chunks):
                    return await self._put_once(key, chunks, size_bytes, only_if_absent)
            except AlreadyExists:
                if not failures:
                    raise
                ours = await self._if_stored(key, source())  # by an attempt whose answer was lost
                if ours is None:
                    raise
                return ours
            except DeepForgeError as error:
                failures += 1
                await self._pause(failures, error)

    async def _put_once(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        size_bytes: int | None,
        only_if_absent: bool,
    ) -> ObjectRef:
        receipts = self._receipts
        if receipts is not None and only_if_absent and await receipts.stored(key) is not None:
            raise AlreadyExists(f"there is an object {key!r} already")
        source = Source(key, chunks, size_bytes, self.capabilities.max_object_bytes)
        async with self._writes:
            try:
                with discipline(self.adapter, "put"):
                    info = await self.adapter.put(
                        key, source, size_bytes=size_bytes, only_if_absent=only_if_absent
                    )
            except Exception:
                if source.failure is not None:  # whatever the adapter made of it
                    raise source.failure from None
                raise
        if info.size_bytes != source.digest.size_bytes:
            raise Corrupt(
                f"object {key!r} was stored in {self.name!r} with another size",
                expected=f"{source.digest.size_bytes} bytes",
                found=f"{info.size_bytes} bytes",
            )
        if receipts is not None:
            await receipts.keep(key, info.key, only_if_absent=only_if_absent)
        return ObjectRef(self.name, info.key, info.size_bytes, await source.digest.result())

    async def kept_under(self, key: str) -> str:
        """The key that an object is kept under: another one where the storage chooses. Nothing is
        asked of the service."""
        return await self._stored(check_key(key))

    async def _stored(self, key: str) -> str:
        """The key that the object is kept under, where the storage chose it."""
        if self._receipts is None:
            return key
        return await self._receipts.stored(key) or key

    async def _if_stored(self, key: str, chunks: AsyncGenerator[bytes, None]) -> ObjectRef | None:
        digest = Digest()
        async with aclosing(chunks):
            async for chunk in chunks:
                await digest.feed(chunk)
        ref = ObjectRef(self.name, key, digest.size_bytes, await digest.result())
        try:
            async for _ in self.get_stream(ref):
                pass
        except Corrupt:
            return None
        return ref

    async def _collect(self, key: str, limit_bytes: int) -> bytes:
        parts: list[bytes] = []
        size_bytes = 0
        stream = self.adapter.get(key)
        try:
            async for chunk in stream:
                parts.append(chunk)
                size_bytes += len(chunk)
                if size_bytes > limit_bytes:
                    raise InvalidRequest(
                        f"object {key!r} in {self.name!r} has more than {limit_bytes} bytes",
                        hint="read it as a stream or into a file",
                    )
        finally:
            await _close(stream)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _read(
        self, key: str, *, resume: bool, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Read a range; with `resume` (a digest will tell) go on behind what had come."""
        received, failures = 0, 0
        while True:
            try:
                stream = self.adapter.get(key, start=start + received, end=end)
                async with aclosing(self._advance(stream)) as chunks:
                    async for chunk in chunks:
                        received, failures = received + len(chunk), 0
                        yield chunk
                return
            except DeepForgeError as error:
                if received and not (resume and self.capabilities.range_get):
                    raise
                failures += 1
                await self._pause(failures, error)

    async def _advance(self, stream: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        """Pull an adapter's stream under the limit for reads, and close it at the end."""
        try:
            while True:
                async with self._reads:
                    with discipline(self.adapter, "get or list"):
                        try:
                            one = await anext(stream)
                        except StopAsyncIteration:
                            return
                yield one
        finally:
            await _close(stream)

    async def _again(self, method: str, call: Callable[[], Awaitable[T]]) -> T:
        async def attempt() -> T:
            async with self._reads:
                with discipline(self.adapter, method):
                    return await call()

        return await try_again(self._retry, attempt, sleep=self._sleep, chance=self._chance)

    async def _pause(self, failures: int, error: DeepForgeError) -> None:
        """Wait before the next attempt, or raise the error if there shall be none."""
        pause_s = self._retry.pause_s(failures, error, self._chance())
        if pause_s is None:
            raise error
        await self._sleep(pause_s)

    def _require(self, capability: str, present: bool) -> None:
        if not present:
            raise NotSupported(capability, f"storage {self.name!r} does not offer it")

    def _corrupt(self, ref: ObjectRef, found: str) -> Corrupt:
        expected = f"{ref.size_bytes} bytes" if found.endswith("bytes") else ref.digest or ""
        return Corrupt(
            f"object {ref.key!r} in {self.name!r} is not what was stored there",
            expected=expected,
            found=found,
            hint="it was cut short or changed by somebody; store it again",
        )


def _check_expiry(expires_s: float) -> None:
    if not expires_s > 0:
        raise InvalidRequest(f"a grant cannot expire after {expires_s} s", part="expires_s")


async def _close(stream: AsyncIterator[object]) -> None:
    """Close an adapter's stream; a plain iterator cannot be closed."""
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()
