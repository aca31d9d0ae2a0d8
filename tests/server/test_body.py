from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from fastapi import Request

from deepforge.errors import InvalidRequest, NotFound
from deepforge.server.body import (
    Stream,
    begun,
    content_length,
    range_start,
    ranged_stream,
    uploaded,
)


class Chunks:
    """A source that tells whether it was closed."""

    def __init__(self, *chunks: bytes | Exception) -> None:
        self.chunks = chunks
        self.closed = False

    async def give(self) -> AsyncGenerator[bytes, None]:
        try:
            for chunk in self.chunks:
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
        finally:
            self.closed = True


def request(*messages: dict[str, Any], **headers: str) -> Request:
    waiting = list(messages)

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    raw = [(name.replace("_", "-").encode(), one.encode()) for name, one in headers.items()]
    return Request({"type": "http", "method": "PUT", "headers": raw}, receive)


def body(data: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


async def test_what_fails_at_once_fails_before_the_reply() -> None:
    source = Chunks(NotFound("no such object"), b"never")

    with pytest.raises(NotFound):
        await begun(source.give())
    assert source.closed


async def test_nothing_is_lost_by_fetching_the_first_chunk() -> None:
    for chunks in ([], [b"a"], [b"a", b"b", b"c"]):
        assert b"".join([one async for one in await begun(Chunks(*chunks).give())]) == b"".join(
            chunks
        )


async def test_a_caller_who_leaves_closes_the_source() -> None:
    source = Chunks(b"a", b"b", b"c")

    async def send(message: Any) -> None:
        if message.get("body") == b"b":
            raise OSError("the connection is gone")

    with pytest.raises(OSError, match="gone"):
        await Stream(await begun(source.give())).stream_response(send)
    assert source.closed


async def test_an_upload_is_read_to_its_end() -> None:
    parts = request(body(b"ab", more=True), body(b"", more=True), body(b"c", more=False))

    assert [one async for one in uploaded(parts)] == [b"ab", b"c"]


async def test_an_upload_that_is_cut_is_an_error_and_not_a_short_one() -> None:
    cut = request(body(b"ab", more=True), {"type": "http.disconnect"})

    with pytest.raises(InvalidRequest, match="before its last byte"):
        [one async for one in uploaded(cut)]


@pytest.mark.parametrize(
    ("header", "start"),
    [("bytes=0-", 0), ("bytes=17-", 17), ("bytes=1-2", 0), ("bytes=-5", 0), ("bytes=x-", 0),
     ("lines=3-", 0), ("bytes=1-,5-", 0), ("bytes=" + "9" * 40 + "-", 0), ("bytes=²-", 0)],
)  # fmt: skip
def test_a_range_is_read_from_its_start_or_not_at_all(header: str, start: int) -> None:
    assert range_start(request(range=header)) == start


def test_an_announced_size_is_a_number_or_unknown() -> None:
    assert content_length(request(content_length="12")) == 12
    assert content_length(request()) is None
    assert content_length(request(content_length="-1")) is None


@pytest.mark.parametrize(
    ("start", "size_bytes", "status", "length"),
    [(0, 0, 200, "0"), (0, 5, 200, "5"), (2, 5, 206, "3"), (5, 5, 416, None), (9, 5, 416, None)],
)
def test_a_reply_says_how_much_follows(
    start: int, size_bytes: int, status: int, length: str | None
) -> None:
    response = ranged_stream(Chunks().give(), start, size_bytes)

    assert response.status_code == status
    assert status == 416 or response.headers["content-length"] == length
