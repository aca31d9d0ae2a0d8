"""Objects in a bucket of Amazon S3, or of any other service that speaks its language."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from deepforge.errors import ConfigError, DeepForgeError, InvalidRequest, Unavailable
from deepforge.ids import new_id, timestamp
from deepforge.settings import Secret, problem_of_url, setting
from deepforge.storage.keys import check_key, is_key
from deepforge.storage.port import Capabilities, Grant, Method, ObjectInfo, StorageAdapter
from deepforge.storage.retry import Retry, try_again
from deepforge.storage.s3_bucket import Bucket
from deepforge.storage.s3_errors import MissingBucket
from deepforge.storage.signing import LONGEST_S, Credentials, Place, presign
from deepforge.storage.streams import BLOCK_BYTES, blocks, joined
from deepforge.storage.workers import Workers

P = ParamSpec("P")
T = TypeVar("T")

MAX_PARTS = 10_000
_GIB = 1024**3
_PARTS_AT_ONCE = 3  # of one object; more only takes memory
_LARGE_AT_ONCE = 3  # objects that are sent in parts
_PART_RETRY = Retry()


@dataclass(frozen=True)
class S3Settings:
    """Which bucket, and who asks."""

    endpoint_url: str = setting(
        "Address of the service.", example="https://s3.eu-central-1.amazonaws.com"
    )
    bucket: str = setting("Name of the bucket.", example="lab-data")
    access_key_id: str = setting("Public half of the key.")
    secret_access_key: Secret = setting("Secret half of the key.")
    session_token: Secret | None = setting("Only for temporary keys: their token.", default=None)
    region: str = setting("Region of the bucket.", default="us-east-1")
    path_style: bool = setting(
        "Whether the bucket is part of the path (https://host/bucket) or of the host name "
        "(https://bucket.host).",
        default=True,
    )
    public_endpoint_url: str | None = setting(
        "Address of the same service for machines that run jobs, if theirs is another.",
        default=None,
    )
    prefix: str | None = setting(
        "Folder of the bucket to stay in.", default=None, example="deepforge"
    )
    ca_file: str | None = setting(
        "File of the authority that signed the service's certificate (PEM), if it is your own.",
        default=None,
    )
    create_bucket: bool = setting("Whether to make the bucket if it is missing.", default=False)


class S3Adapter(StorageAdapter):
    """One bucket, or a folder of it."""

    capabilities = Capabilities(
        conditional_put=True,
        server_copy=True,
        grants=True,
        part_grants=True,
        max_object_bytes=5 * 1024 * _GIB,
        max_grant_bytes=5 * _GIB,
    )

    def __init__(self, settings: S3Settings) -> None:
        super().__init__(settings)
        _check(settings)
        self._create_bucket = settings.create_bucket
        self._start = f"{settings.prefix}/" if settings.prefix else ""
        self._region = settings.region
        token = settings.session_token
        self._credentials = Credentials(
            settings.access_key_id,
            settings.secret_access_key.reveal(),
            token.reveal() if token else None,
        )
        self._place = Place(settings.endpoint_url, settings.bucket, settings.path_style)
        self._public = replace(
            self._place, endpoint_url=settings.public_endpoint_url or settings.endpoint_url
        )

    @property
    def endpoints(self) -> Mapping[str, str]:
        # The public one is called by deep checks alone. With the bucket in the host name that is
        # another host, which may lead elsewhere.
        called = {"endpoint_url": self._place.origin}
        if self.settings.public_endpoint_url:
            called["public_endpoint_url"] = self._public.origin
        return called

    async def __aenter__(self) -> Self:
        certificate = await asyncio.to_thread(_read_certificate, self.settings.ca_file)
        self._bucket = await asyncio.to_thread(
            Bucket, self._place, self._credentials, self._region, certificate
        )
        self._workers = Workers(16, "s3-storage")
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._workers.close()
        self._bucket.close()

    async def check(self) -> None:
        key, content = f"deepforge-check/{new_id()}", b"deepforge"
        await self.put(key, _once(content))
        try:
            read = b"".join([chunk async for chunk in self.get(key)])
        finally:
            await self.delete([key])
        if read != content:
            raise Unavailable(f"{self._place.endpoint_url} did not give back what was written")

    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectInfo:
        full, size = self._start + key, part_bytes(size_bytes)
        if size_bytes is not None and size_bytes < size:
            data = await joined(chunks)
            return self._ours(await self._run(self._bucket.put, full, data, only_if_absent))
        async with aclosing(blocks(chunks, size)) as stream:
            waiting = [await anext(stream, b"")]
            if len(waiting[0]) < size:
                info = await self._run(self._bucket.put, full, waiting[0], only_if_absent)
                return self._ours(info)
            async with self._large:  # whoever waits for it holds one block, not more
                waiting.append(await anext(stream, b""))
                if waiting[1]:
                    info = await self._put_parts(full, _chain(waiting, stream), only_if_absent)
                else:
                    info = await self._run(self._bucket.put, full, waiting[0], only_if_absent)
        return self._ours(info)

    async def get(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        if end is not None and end <= start:
            await self.stat(key)
            return
        download = await self._run(self._bucket.open, self._start + key, start, end)
        chunk, download.first = download.first, b""
        while download.left_bytes:
            ahead = self._workers.begin(download.read)  # while this chunk is used
            try:
                yield chunk
                chunk = await ahead
            finally:
                ahead.add_done_callback(_forget)
        if chunk:
            yield chunk

    async def stat(self, key: str) -> ObjectInfo:
        return self._ours(await self._run(self._bucket.stat, self._start + key))

    async def list(
        self, prefix: str, *, after: str | None = None
    ) -> AsyncGenerator[ObjectInfo, None]:
        # S3 lists by the bytes of the keys. Services that keep keys as folders (SeaweedFS) list
        # `a/b` before `a-b`. Which one this is cannot be told from a page, so all are sorted here,
        # and the start lies before whatever comes behind `after` in either order.
        start_after = "" if after is None else just_before(self._start + after)
        found: list[ObjectInfo] = []
        token: str | None = None
        while True:
            page, token = await self._run(
                self._bucket.list_page, self._start + prefix, start_after, token
            )
            ours = (self._ours(info) for info in page)
            found += [one for one in ours if (after is None or one.key > after) and is_key(one.key)]
            if token is None:
                break
        found.sort(key=lambda info: info.key)  # by code point, which is by UTF-8 bytes
        for info in found:
            yield info

    async def delete(self, keys: Sequence[str]) -> None:
        full = [self._start + key for key in keys]
        for first in range(0, len(full), 1000):
            await self._run(self._bucket.delete, full[first : first + 1000])

    async def copy(self, source: str, target: str) -> ObjectInfo:
        await self._run(self._bucket.copy, self._start + source, self._start + target)
        return await self.stat(target)

    async def grant(self, key: str, method: Method, *, expires_s: float) -> Grant:
        return self._signed(key, method, expires_s, {})

    async def begin_parts(self, key: str) -> str:
        return await self._run(self._bucket.begin_parts, self._start + key)

    async def grant_part(self, key: str, upload: str, number: int, *, expires_s: float) -> Grant:
        query = {"partNumber": str(number), "uploadId": upload}
        return self._signed(key, "PUT", expires_s, query)

    async def complete_parts(self, key: str, upload: str, etags: Sequence[str]) -> ObjectInfo:
        full = self._start + key
        return self._ours(await self._run(self._bucket.complete_parts, full, upload, etags))

    async def abort_parts(self, key: str, upload: str) -> None:
        await self._run(self._bucket.abort_parts, self._start + key, upload)

    async def _put_parts(
        self, full: str, stream: AsyncIterator[bytes], only_if_absent: bool
    ) -> ObjectInfo:
        upload = await self._run(self._bucket.begin_parts, full)
        try:
            etags = await self._send_parts(full, upload, stream)
            return await try_again(
                _PART_RETRY,
                lambda: self._run(self._bucket.complete_parts, full, upload, etags, only_if_absent),
            )
        except BaseException:
            with suppress(DeepForgeError):  # the first error says more
                await self._run(self._bucket.abort_parts, full, upload)
            raise

    async def _send_parts(
        self, key: str, upload: str, stream: AsyncIterator[bytes]
    ) -> Sequence[str]:
        """Send the blocks, a few at once; return the etags in order."""
        sent: list[asyncio.Task[str]] = []
        running: set[asyncio.Task[str]] = set()
        try:
            async for block in stream:
                if len(sent) == MAX_PARTS:
                    raise InvalidRequest(
                        f"{self._bucket.where.object(key)} would have more than {MAX_PARTS} parts",
                        hint="say its size beforehand, so that the parts can be larger",
                    )
                if len(running) == _PARTS_AT_ONCE:
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                number = len(sent) + 1
                sent.append(asyncio.create_task(self._send_part(key, upload, number, block)))
                running.add(sent[-1])
            return [await task for task in sent]
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*sent, return_exceptions=True)

    async def _send_part(self, key: str, upload: str, number: int, block: bytes) -> str:
        # Retried here: a stream could not be sent again from its start.
        return await try_again(
            _PART_RETRY, lambda: self._run(self._bucket.put_part, key, upload, number, block)
        )

    async def _run(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        try:
            return await self._workers.run(function, *arguments, **named)
        except MissingBucket:
            if not self._create_bucket:
                raise
        await self._workers.run(self._bucket.create)
        return await self._workers.run(function, *arguments, **named)

    def _signed(self, key: str, method: Method, expires_s: float, query: dict[str, str]) -> Grant:
        expires_s = max(1, min(LONGEST_S, int(expires_s)))
        url = presign(
            method,
            self._public,
            self._start + key,
            credentials=self._credentials,
            region=self._region,
            expires_s=expires_s,
            query=query,
        )
        return Grant("http", method, url=url, expires_at=timestamp(time.time() + expires_s))

    def _ours(self, info: ObjectInfo) -> ObjectInfo:
        return replace(info, key=info.key[len(self._start) :]) if self._start else info


def part_bytes(size_bytes: int | None) -> int:
    """How large the parts of an object are: few enough of them, and only a few MiB each."""
    needed = -(-(size_bytes or 0) // MAX_PARTS)
    return max(BLOCK_BYTES, -(-needed // 1024**2) * 1024**2)


def just_before(key: str) -> str:
    """A text to start a listing behind, so that nothing that comes behind `key` is missed.

    That must hold for services that order keys by bytes and for those that order folder by folder,
    where `a/b` comes before `a-b`: so it ends before the first character below the slash.
    """
    cut = re.split("[\x00-.]", key, maxsplit=1)[0].rstrip("/")
    if not cut:
        return ""
    former = ord(cut[-1]) - 1
    if former == ord("/"):
        former = ord(".")
    elif 0xD800 <= former < 0xE000:
        former = 0xD7FF
    return cut[:-1] + chr(former) + "\U0010ffff"


def _check(settings: S3Settings) -> None:
    problems: dict[str, str] = {}
    for name in ("endpoint_url", "public_endpoint_url"):
        url = getattr(settings, name)
        if url is not None and (problem := problem_of_url(url, without="keys or a query")):
            problems[name] = problem
    if problem := _problem_of_bucket(settings.bucket):
        problems["bucket"] = problem
    for name in ("access_key_id", "region"):
        if not re.fullmatch(r"[\x21-\x7e]+", getattr(settings, name)):
            problems[name] = "must be letters and digits without spaces"
    if not settings.secret_access_key:
        problems["secret_access_key"] = "is empty"
    if settings.prefix:
        try:
            check_key(settings.prefix + "/x")
        except InvalidRequest as error:
            problems["prefix"] = error.message
    if problems:
        listing = "; ".join(f"{name} {problem}" for name, problem in sorted(problems.items()))
        raise ConfigError(f"the settings of this storage are wrong: {listing}", fields=problems)


def _problem_of_bucket(name: str) -> str | None:
    """What every service refuses; S3 itself is stricter, and says so when it is asked."""
    if not 2 <= len(name) <= 255:
        return f"must have 2 to 255 characters, and has {len(name)}"
    if wrong := re.search(r"[^A-Za-z0-9._-]", name):
        return f"must be letters a-z, digits, dots, hyphens and underscores, and has {wrong[0]!r}"
    if not re.match(r"[A-Za-z0-9]", name):
        return f"must begin with a letter or a digit, and begins with {name[0]!r}"
    return None


def _read_certificate(path: str | None) -> str | None:
    if not path:
        return None
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = f"cannot be read: {error}"
    else:
        if "-----BEGIN CERTIFICATE-----" in text:
            return text
        problem = "is not a certificate in PEM"
    raise ConfigError(f"ca_file {path!r} {problem}", fields={"ca_file": problem})


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _chain(waiting: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    while waiting:
        yield waiting.pop(0)  # and let go of it: memory is bounded
    async for block in rest:
        yield block


def _forget(future: asyncio.Future[bytes]) -> None:
    """Nobody wants this chunk any more, or why it did not come."""
    if not future.cancelled():
        future.exception()
