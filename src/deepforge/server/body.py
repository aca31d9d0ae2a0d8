"""Bodies of requests and replies as streams: bounded memory, and freed the moment a caller leaves."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Send

from deepforge.errors import InvalidRequest

BYTES = "application/octet-stream"


class Stream(StreamingResponse):
    """A streamed reply that closes its source at once when the reply ends, however it ends."""

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str = BYTES,
    ) -> None:
        super().__init__(chunks, status_code, headers, media_type)
        self._chunks = chunks

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._chunks):
            await super().stream_response(send)


async def begun(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Fetch the first chunk and return all of them: what fails at once fails before the reply."""
    first = await anext(chunks, b"")

    async def whole() -> AsyncGenerator[bytes, None]:
        async with aclosing(chunks):
            yield first
            async for chunk in chunks:
                yield chunk

    return whole()


async def uploaded(request: Request) -> AsyncIterator[bytes]:
    """The body in chunks as they come. Raises `InvalidRequest` when the caller leaves before its end."""
    try:
        async for chunk in request.stream():
            if chunk:
                yield chunk
    except ClientDisconnect as error:
        raise InvalidRequest("the upload ended before its last byte", part="body") from error


async def read_limited(request: Request, limit_bytes: int) -> bytes:
    """The whole body; the answer is 413 as soon as it is larger than the limit."""
    return b"".join([chunk async for chunk in uploaded(_limited(request, limit_bytes))])


class JsonRoute(APIRoute):
    """A route with a small JSON body, or none; 413 beyond `limit_bytes`."""

    limit_bytes = 1024 * 1024

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def limited(request: Request) -> Response:
            return await handle(_limited(request, self.limit_bytes))

        return limited


def content_length(request: Request) -> int | None:
    """The size the caller announced, or None for a body of unknown size."""
    text = request.headers.get("content-length")
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def range_start(request: Request) -> int:
    """The first byte asked for by `Range: bytes=N-`, else 0. Other ranges are answered whole."""
    match = re.fullmatch(r"bytes=([0-9]{1,18})-", request.headers.get("range", "").strip())
    return 0 if match is None else int(match.group(1))


def ranged_stream(
    chunks: AsyncGenerator[bytes, None],
    start: int,
    size_bytes: int,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer with the bytes from `start` to the end of something that has `size_bytes`."""
    common = {"Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff", **(headers or {})}
    if start == 0:
        common["Content-Length"] = str(size_bytes)
        return Stream(chunks, headers=common, media_type=BYTES)
    if start >= size_bytes:
        common["Content-Range"] = f"bytes */{size_bytes}"
        return Response(status_code=416, headers=common)
    common["Content-Length"] = str(size_bytes - start)
    common["Content-Range"] = f"bytes {start}-{size_bytes - 1}/{size_bytes}"
    return Stream(chunks, status_code=206, headers=common, media_type=BYTES)


def _limited(request: Request, limit_bytes: int) -> Request:
    size_bytes = content_length(request) or 0
    received_bytes = 0

    async def receive() -> Message:
        nonlocal received_bytes
        if size_bytes > limit_bytes:
            raise HTTPException(413)
        message = await request.receive()
        received_bytes += len(message.get("body", b""))
        if received_bytes > limit_bytes:
            raise HTTPException(413)
        return message

    return Request(request.scope, receive)
