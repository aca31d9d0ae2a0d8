"""HTTP as the parts of the stand-in see it: a request that is read as it comes, an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

CHUNK_BYTES = 65_536
TRUE = {"true", "1", "yes", "on"}


class Broken(Exception):
    """The client left in the middle, or the connection is to be cut."""


@dataclass
class Answer:
    """A reply. The content is `body`, or that of the file `source` as long as it was then."""

    status: int = 200
    body: bytes = b""
    type: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    source: BinaryIO | None = None
    size_bytes: int | None = None

    @property
    def length(self) -> int:
        return len(self.body) if self.size_bytes is None else self.size_bytes

    def chunks(self) -> Iterator[bytes]:
        if self.source is None:
            yield self.body
            return
        with self.source as file:
            left = self.length
            while left and (chunk := file.read(min(left, CHUNK_BYTES))):
                left -= len(chunk)
                yield chunk


def of_json(value: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, json.dumps(value).encode(), "application/json", headers)


def of_error(text: str | None, status: int = 500) -> Answer:
    """The one shape of an error that Files and Compute have."""
    return of_json({"status": "error", "error": text}, status)


def unauthenticated(path: str) -> Answer:
    """401, as the service of this path spells it."""
    if path.startswith("/fileservice/"):
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+00:00")
        told = {"timestamp": now, "status": 401, "error": "Unauthorized", "path": path}
        return of_json(told, 401)
    answer = of_error("Not authenticated. Add valid token as X-Auth-Token header", 401)
    answer.headers["WWW-Authenticate"] = "X-Auth-Token"
    return answer


def of_html(status: int, title: str) -> Answer:
    page = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
    return Answer(status, page.encode(), "text/html")


class Request:
    """One request. `path` is percent-encoded, with single slashes; `query` has the first values.

    The body is read by whoever wants it; what nobody read is thrown away after the answer.
    `room_bytes` is what the disk can take of it, `breaks_after_bytes` when the connection does,
    `changes_byte` which byte arrives as another one.
    """

    def __init__(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        file: BinaryIO,
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.room_bytes: int | None = None
        self.breaks_after_bytes: int | None = None
        self.changes_byte: int | None = None
        self.read_bytes = 0
        self._body = _chunked(file) if _is_chunked(headers) else _sized(file, headers)

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() in TRUE

    def chunks(self) -> Iterator[bytes]:
        """What is left of the body. Raises `Broken` if the client does not send all of it."""
        seen = 0
        for chunk in self._body:
            if self.changes_byte is not None and 0 <= self.changes_byte - seen < len(chunk):
                at = self.changes_byte - seen
                chunk = chunk[:at] + bytes([chunk[at] ^ 1]) + chunk[at + 1 :]
            yield chunk
            seen += len(chunk)
            self.read_bytes += len(chunk)
            if self.breaks_after_bytes is not None and seen >= self.breaks_after_bytes:
                raise Broken("told to")

    def body(self) -> bytes:
        return b"".join(self.chunks())

    def json(self) -> Any:
        """Raises ValueError."""
        return json.loads(self.body())


def etag(path: Path) -> str:
    return f"W/{path.stat().st_mtime_ns // 1_000_000}"


def _is_chunked(headers: Mapping[str, str]) -> bool:
    return headers.get("Transfer-Encoding", "").lower() == "chunked"


def _sized(file: BinaryIO, headers: Mapping[str, str]) -> Iterator[bytes]:
    left = int(headers.get("Content-Length") or 0)
    while left:
        chunk = _read(file, min(left, CHUNK_BYTES))
        left -= len(chunk)
        yield chunk


def _chunked(file: BinaryIO) -> Iterator[bytes]:
    while True:
        line = file.readline(1024)
        try:
            size = int(line.split(b";")[0], 16)
        except ValueError as cause:
            raise Broken("the client left between two chunks") from cause
        left = size
        while left:
            chunk = _read(file, min(left, CHUNK_BYTES))
            left -= len(chunk)
            yield chunk
        if file.readline(1024) == b"":
            raise Broken("the client left within a chunk")
        if size == 0:
            return


def _read(file: BinaryIO, size: int) -> bytes:
    try:
        data = file.read(size)
    except OSError as cause:
        raise Broken("the client left") from cause
    if not data:
        raise Broken("the client left")
    return data
