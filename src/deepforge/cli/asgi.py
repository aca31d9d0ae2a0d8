"""A blocking httpx transport into an ASGI app that runs on another thread's event loop.

Bodies are streamed both ways with bounded memory, so that events arrive as they happen and a large
artifact never lies in memory. (httpx's own ASGI transport collects whole answers first.)
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import httpx

from deepforge.errors import DeepForgeError

Message = MutableMapping[str, Any]  # ASGI: values of many types
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]

_QUEUED_CHUNKS = 4
_CLOSE_WITHIN_S = 5


class AsgiTransport(httpx.BaseTransport):
    """Sends each request to `app` on `loop`. Use it from any thread but the loop's own."""

    def __init__(self, app: App, loop: asyncio.AbstractEventLoop) -> None:
        self._app = app
        self._loop = loop

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response as soon as its headers are there.

        Raises `httpx.RemoteProtocolError` if the app ends without an answer, and whatever the app
        raises before it begins one.
        """
        exchange = _Exchange(self._app, self._loop, request)
        try:
            status, headers = exchange.start()
        except BaseException:  # Ctrl-C too: the app must not go on for nobody
            exchange.close()
            raise
        return httpx.Response(status, headers=headers, stream=exchange, request=request)


class _Exchange(httpx.SyncByteStream):
    """One request and its response. Everything but `close` is called by one thread."""

    def __init__(self, app: App, loop: asyncio.AbstractEventLoop, request: httpx.Request) -> None:
        self._app = app
        self._loop = loop
        self._request = request
        self._task: concurrent.futures.Future[None] | None = None
        # `None` ends it; an exception is raised where it is read
        self._messages: asyncio.Queue[Message | BaseException | None] = asyncio.Queue(
            _QUEUED_CHUNKS
        )
        self._answered = False
        self._complete = False
        self._closed = asyncio.Event()
        self._ended = threading.Event()

    def start(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        self._task = asyncio.run_coroutine_threadsafe(self._run(), self._loop)
        message = self._next()
        if message is None:
            raise httpx.RemoteProtocolError("the app ended without an answer")
        self._answered = True
        return message["status"], list(message.get("headers", []))

    def __iter__(self) -> Iterator[bytes]:
        while (message := self._next()) is not None:
            if body := message.get("body", b""):
                yield body
            if not message.get("more_body", False):
                self._complete = True
                return

    def close(self) -> None:
        """Tell the app that nobody listens any more, and wait until it has noticed."""
        if self._task is None or self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._closed.set)
        if not self._complete:
            self._task.cancel()
        self._ended.wait(_CLOSE_WITHIN_S)

    def _next(self) -> Message | None:
        waiting = asyncio.run_coroutine_threadsafe(self._messages.get(), self._loop)
        try:
            message = waiting.result()
        finally:
            waiting.cancel()
        if not isinstance(message, BaseException):
            return message
        if not self._answered:
            raise message
        raise _cause_of_ours(message) or httpx.ReadError(f"the answer broke off: {message!r}")

    async def _run(self) -> None:
        last: BaseException | None = None
        try:
            try:
                await self._app(self._scope(), self._receiver(), self._messages.put)
            except Exception as error:
                last = error
            await self._messages.put(last)
        finally:
            self._ended.set()

    def _scope(self) -> Message:
        url = self._request.url
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self._request.method,
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in self._request.headers.raw],
            "client": ("127.0.0.1", 0),
            "server": (url.host, url.port or 80),
        }

    def _receiver(self) -> Callable[[], Awaitable[Message]]:
        stream = self._request.stream
        assert isinstance(stream, httpx.SyncByteStream)
        chunks = iter(stream)
        ended = False

        async def receive() -> Message:
            nonlocal ended
            if ended:
                await self._closed.wait()
                return {"type": "http.disconnect"}
            # reading a file may block, so it happens on a thread of its own
            chunk = await asyncio.to_thread(next, chunks, None)
            ended = chunk is None
            return {"type": "http.request", "body": chunk or b"", "more_body": not ended}

        return receive


def _cause_of_ours(error: BaseException | None) -> DeepForgeError | None:
    """Find the error that a person can act on behind the one that ended the app."""
    while error is not None and not isinstance(error, DeepForgeError):
        error = error.__cause__ or error.__context__
    return error
