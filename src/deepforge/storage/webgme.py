"""Files in a WebGME blob server: content decides the address, and nothing is ever removed."""

from __future__ import annotations

import asyncio
import json
import posixpath
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from deepforge.errors import (
    AuthError,
    ConfigError,
    Corrupt,
    DeepForgeError,
    Forbidden,
    InvalidRequest,
    NotFound,
    NotSupported,
    RateLimited,
    StorageFull,
    Unavailable,
)
from deepforge.ids import epoch_s, timestamp, utc_now
from deepforge.settings import Secret, problem_of_url, setting
from deepforge.storage.port import Capabilities, ObjectInfo, StorageAdapter
from deepforge.storage.streams import Digest, blocks
from deepforge.webgme import blobs
from deepforge.webgme.blobs import BYTES, Metadata

QUIET_S = 60.0
"""How long a server may be silent in the middle of anything."""

_LIMITS = httpx.Limits(
    max_connections=None,  # a stream that nobody reads for a while must not hold up the others
    keepalive_expiry=3.0,  # the original closes idle ones after 5 s, maybe under our next request
)
_CHUNK_BYTES = 1024 * 1024
_LARGEST_METADATA_BYTES = 16 * 1024 * 1024
_MOST_LINKS = 10
_CHECK_NAME, _CHECK_CONTENT = "deepforge-check.txt", b"DeepForge can write here.\n"
_WHOLE_ONLY = "a WebGME blob server gives files as a whole"
_NO_LIST = "a WebGME blob server does not tell what it holds"
_NO_DELETE = "a WebGME blob server keeps every file for ever"


@dataclass(frozen=True)
class WebGMESettings:
    """Which server, and who asks."""

    url: str = setting("Address of the server.", example="https://webgme.example.org")
    api_token: Secret | None = setting(
        "An access token of the server, if it wants one.", default=None
    )
    ca_file: str | None = setting(
        "File of the authority that signed the service's certificate (PEM), if it is your own.",
        default=None,
    )


class WebGMEAdapter(StorageAdapter):
    """The blobs of one server. A key is a blob's hash, or `<hash>/<path>` for a file of an artifact.

    `put` names the blob like the last part of its key, and returns the hash: that alone can be read.
    Equal files under equal names are one blob, so putting again is harmless. What is read, and what
    the server made of an upload, is held against the SHA-1 of the content.
    """

    capabilities = Capabilities(
        chosen_keys=False, range_get=False, listing=False, deletion=False
    )  # fmt: skip

    def __init__(self, settings: WebGMESettings) -> None:
        super().__init__(settings)
        problem = problem_of_url(settings.url)
        if problem is not None:
            raise ConfigError(
                f"the settings of this storage are wrong: url {problem}", fields={"url": problem}
            )
        self._base = settings.url.rstrip("/") + "/rest/blob"

    @property
    def endpoints(self) -> Mapping[str, str]:
        parts = urlsplit(self.settings.url)
        return {"url": f"{parts.scheme}://{parts.netloc}"}

    async def __aenter__(self) -> Self:
        headers = {"Accept-Encoding": "identity", "User-Agent": "DeepForge"}
        if self.settings.api_token:
            headers["x-api-token"] = self.settings.api_token.reveal()
        self._http = httpx.AsyncClient(
            headers=headers,
            verify=await asyncio.to_thread(_certificates, self.settings.ca_file),
            timeout=httpx.Timeout(QUIET_S, connect=10.0, pool=None),
            limits=_LIMITS,
            follow_redirects=False,  # one leads to a login page
        )
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._http.aclose()

    async def check(self) -> None:
        """As in the port, but that one small file stays: the server cannot forget. It is the same
        each time."""

        async def content() -> AsyncIterator[bytes]:
            yield _CHECK_CONTENT

        info = await self.put(_CHECK_NAME, content(), size_bytes=len(_CHECK_CONTENT))
        async for _ in self.get(info.key):
            pass  # it is verified

    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectInfo:
        """As in the port. Nothing is ever replaced, so `only_if_absent` holds by itself."""
        name = posixpath.basename(key)
        digest = Digest("sha1")
        headers = {"Content-Type": BYTES}  # of any other type it stores nothing, or never answers
        if size_bytes is not None:
            headers["Content-Length"] = str(size_bytes)
        path = f"/createFile/{quote(name, safe='')}"
        async with self._ask("POST", path, content=_fed(chunks, digest), headers=headers) as answer:
            made = await self._read_json(answer)
        if len(made) != 1:
            raise self._strange("the upload was answered with something else than one blob")
        ((hash, value),) = made.items()
        metadata = self._metadata(hash, value)
        expected = f"{digest.size_bytes} bytes, {await digest.result()}"
        found = f"{metadata.size_bytes} bytes, sha1:{metadata.content}"
        if found != expected:
            raise Corrupt(
                f"{self._base} stored something else than was sent as {name!r}",
                expected=expected,
                found=found,
                hint="does something between here and the server change requests?",
            )
        return ObjectInfo(
            hash, metadata.size_bytes, _modified_at(value), etag=metadata.content_hash
        )

    async def get(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        if start or end is not None:
            raise NotSupported("range_get", _WHOLE_ONLY, hint="read it from its start")
        file = await self._find(key)
        digest = Digest("sha1")
        async with aclosing(self._read(key, file)) as chunks:
            async for chunk in chunks:
                await digest.feed(chunk)
                if file.size_bytes is not None and digest.size_bytes > file.size_bytes:
                    raise _not_as_stored(key, file, f"more than {file.size_bytes} bytes")
                yield chunk
        if file.size_bytes not in (None, digest.size_bytes):
            raise _not_as_stored(key, file, f"{digest.size_bytes} bytes")
        if (found := await digest.result()) != f"sha1:{file.sha1}":
            raise _not_as_stored(key, file, found)

    async def stat(self, key: str) -> ObjectInfo:
        """As in the port. The size of a file that only its artifact knows is found by reading it."""
        file = await self._find(key)
        size_bytes = file.size_bytes
        if size_bytes is None:
            size_bytes = 0
            async with aclosing(self.get(key)) as chunks:
                async for chunk in chunks:
                    size_bytes += len(chunk)
        return ObjectInfo(key, size_bytes, file.modified_at, etag=file.sha1)

    def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        raise NotSupported("listing", _NO_LIST)

    async def delete(self, keys: Sequence[str]) -> None:
        if keys:
            raise NotSupported("deletion", _NO_DELETE, hint="its operator can remove files")

    async def _find(self, key: str) -> _File:
        """Find out what a key stands for, following soft links."""
        hash, _, path = key.partition("/")
        if not blobs.is_hash(hash):
            raise NotFound(
                f"{self._base} has no blob {key!r}", hint="its keys are hashes of 40 letters"
            )
        for _ in range(_MOST_LINKS + 1):
            metadata, modified_at = await self._get_metadata(hash, key)
            if metadata.kind == "complex":
                entry = metadata.entries.get(path)
                if entry is None:
                    raise _no_such_file(key, path, metadata)
                if entry.kind == "object":
                    return _File(f"{hash}/{quote(path)}", entry.content, None, modified_at, path)
                hash, path = entry.content, ""
                continue
            if path or metadata.content_hash is None:
                raise NotFound(f"there is no file {key!r}: {hash} is a file itself, or empty")
            if metadata.kind == "object":
                size_bytes = metadata.size_bytes
                name = metadata.name or ""
                return _File(hash, metadata.content_hash, size_bytes, modified_at, name)
            hash = metadata.content_hash
        raise InvalidRequest(
            f"{key!r} leads through more than {_MOST_LINKS} soft links", part="key"
        )

    async def _get_metadata(self, hash: str, key: str) -> tuple[Metadata, str]:
        async with self._ask("GET", f"/metadata/{hash}", about=key) as answer:
            value = await self._read_json(answer)
        return self._metadata(hash, value), _modified_at(value)

    async def _read(self, key: str, file: _File) -> AsyncGenerator[bytes, None]:
        # Sub paths that lack their content are answered with 500, not 404.
        async with self._ask("GET", f"/download/{file.address}", about=key) as answer:
            if _is_html(answer) and blobs.mime_of(file.name) != "text/html":
                raise self._web_page()
            with self._errors():
                async for chunk in answer.aiter_raw(_CHUNK_BYTES):
                    yield chunk

    @asynccontextmanager
    async def _ask(
        self, method: str, path: str, *, about: str | None = None, **more: Any
    ) -> AsyncIterator[httpx.Response]:
        """Send a request and give its answer if it is a good one. `about` is the key it is for."""
        with self._errors():
            request = self._http.build_request(method, self._base + path, **more)
            answer = await self._http.send(request, stream=True)
        try:
            self._check(answer, about)
            yield answer
        finally:
            await answer.aclose()

    def _check(self, answer: httpx.Response, about: str | None) -> None:
        status = answer.status_code
        if status == 200:
            return
        where = f"{self._base} answered {status}"
        if status == 401 or 300 <= status < 400:
            raise AuthError(
                f"{where}: it does not accept who we are",
                hint="give this storage an access token of the server that is valid (api_token)",
            )
        if status == 403:
            raise Forbidden(f"{where}: this token may not use its blobs")
        if status == 404 and about is not None:
            raise NotFound(f"{self._base} has no blob {about!r}")
        if status == 404:
            raise ConfigError(
                f"{where}: there is no blob server at this address",
                fields={"url": "is not the address of a WebGME server"},
            )
        if status == 429:
            raise RateLimited(f"{where}: it wants fewer requests")
        if status == 507:
            raise StorageFull(f"{where}: it has no room left")
        if status >= 500 and about is None:
            raise Unavailable(where)
        if status >= 500:
            raise Unavailable(
                f"{where} to a request for {about!r}",
                hint="it does so too when the content of a file is missing; its log tells",
            )
        raise InvalidRequest(f"{where}: it refuses the request")

    async def _read_json(self, answer: httpx.Response) -> dict[str, Any]:
        if _is_html(answer):
            raise self._web_page()
        data = bytearray()
        with self._errors():
            async for chunk in answer.aiter_raw():
                data += chunk
                if len(data) > _LARGEST_METADATA_BYTES:
                    raise self._strange(f"metadata of more than {_LARGEST_METADATA_BYTES} bytes")
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._strange("something that is not JSON") from error
        if not isinstance(value, dict):
            raise self._strange("JSON that is not an object")
        return value

    def _metadata(self, hash: str, value: object) -> Metadata:
        metadata = blobs.from_json(value)
        if (found := blobs.metadata_hash(metadata)) != hash:
            raise Corrupt(
                f"{self._base} gave metadata of another blob than {hash[:40]!r}",
                expected=hash[:40],
                found=found,
            )
        return metadata

    def _web_page(self) -> ConfigError:
        return ConfigError(
            f"{self._base} answered with a web page in place of data",
            fields={"url": "is not the address of a WebGME server"},
            hint="is it the address of a login page, or of a proxy in between?",
        )

    def _strange(self, what: str) -> Unavailable:
        return Unavailable(
            f"{self._base} answered with {what}", hint="is it the address of a WebGME server?"
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what the HTTP client raises into our errors.

        A put that was cut off may have happened; as it may be repeated, that is no matter.
        """
        try:
            yield
        except httpx.TimeoutException as error:
            raise Unavailable(f"{self._base} did not answer in time") from error
        except httpx.TransportError as error:
            refused = _certificate_error(error)
            if refused is None:
                raise Unavailable(f"{self._base} could not be reached: {error}") from error
            raise ConfigError(
                f"{self._base} has a certificate that is not trusted: {refused.verify_message}",
                fields={"url": "has a certificate that is not trusted"},
                hint="set ca_file to the certificate of your own authority",
            ) from error


@dataclass(frozen=True)
class _File:
    """Where the content of a key is read, and what it must be."""

    address: str
    sha1: str
    size_bytes: int | None
    modified_at: str
    name: str


async def _fed(chunks: AsyncIterator[bytes], digest: Digest) -> AsyncGenerator[bytes, None]:
    async with aclosing(blocks(chunks, _CHUNK_BYTES)) as stream:
        async for block in stream:
            await digest.feed(block)
            yield block


def _not_as_stored(key: str, file: _File, found: str) -> Corrupt:
    expected = f"{file.size_bytes} bytes" if found.endswith("bytes") else f"sha1:{file.sha1}"
    return Corrupt(
        f"{key!r} did not come as it was stored",
        expected=expected,
        found=found,
        hint="it was cut short or changed on its way, or the server's disk is damaged",
    )


def _no_such_file(key: str, path: str, metadata: Metadata) -> DeepForgeError:
    paths = sorted(metadata.entries)
    listing = ", ".join(paths[:5]) + (", …" if len(paths) > 5 else "")
    if path:
        return NotFound(f"there is no file {key!r}", hint=f"the artifact holds {listing}")
    return InvalidRequest(
        f"{key!r} is an artifact of {len(paths)} files, not a file",
        part="key",
        hint=f"name one of them: {metadata.name or 'it'} holds {listing}, so the key is "
        f"{key}/{paths[0]}"
        if paths
        else "it is empty",
    )


def _modified_at(value: Mapping[str, Any]) -> str:
    """When the server stored it. One that does not say is taken to have done so now."""
    text = value.get("lastModified")
    try:
        return timestamp(epoch_s(text)) if isinstance(text, str) else utc_now()
    except ValueError:
        return utc_now()


def _is_html(answer: httpx.Response) -> bool:
    media_type: str = answer.headers.get("content-type", "").partition(";")[0]
    return media_type.strip().lower() == "text/html"


def _certificates(ca_file: str | None) -> ssl.SSLContext:
    context = httpx.create_ssl_context()
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"ca_file {ca_file!r} holds no certificate that can be read: {error}",
                fields={"ca_file": "cannot be read"},
            ) from error
    return context


def _certificate_error(error: BaseException) -> ssl.SSLCertVerificationError | None:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    return cause
