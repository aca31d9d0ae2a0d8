"""The transport into an app of this process: streams both ways, and nobody waits for nobody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import httpx
import pytest

from deepforge.cli.asgi import AsgiTransport
from deepforge.errors import Corrupt

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

CHUNK = b"x" * 65536


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def events() -> list[str]:
    return []


@pytest.fixture
def http(loop: asyncio.AbstractEventLoop, events: list[str]) -> Iterator[httpx.Client]:
    app = App(events)
    with httpx.Client(
        transport=AsgiTransport(app, loop), base_url="http://127.0.0.1", timeout=None
    ) as http:
        yield http


class App:
    """A bare ASGI app with one behaviour for each path; it writes down what it notices."""

    def __init__(self, events: list[str]) -> None:
        self.events = events

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        await getattr(self, scope["path"].strip("/"))(scope, receive, send)

    async def echo(self, scope: Message, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive())["more_body"] or message["body"]:
            body += message["body"]
        await _begin(send)
        name = dict(scope["headers"])[b"host"]
        await send(
            {"type": "http.response.body", "body": name + b" " + scope["query_string"] + body}
        )

    async def count(self, scope: Message, receive: Receive, send: Send) -> None:
        size_bytes = 0
        while (message := await receive())["more_body"]:
            size_bytes += len(message["body"])
        await _begin(send)
        await send({"type": "http.response.body", "body": b"%d" % size_bytes})

    async def endless(self, scope: Message, receive: Receive, send: Send) -> None:
        await _begin(send)
        try:
            while True:
                await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
                self.events.append("sent")
        finally:
            self.events.append("closed")

    async def silent(self, scope: Message, receive: Receive, send: Send) -> None:
        await _begin(send)
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        try:
            await asyncio.Event().wait()
        finally:
            self.events.append("closed")

    async def broken(self, scope: Message, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    async def breaks_off(self, scope: Message, receive: Receive, send: Send) -> None:
        await _begin(send)
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ZeroDivisionError

    async def breaks_off_for_a_reason(self, scope: Message, receive: Receive, send: Send) -> None:
        await _begin(send)
        try:
            raise Corrupt("damaged", expected="a", found="b")
        except Corrupt as error:
            raise RuntimeError("too late for an answer") from error

    async def nothing(self, scope: Message, receive: Receive, send: Send) -> None:
        return None


async def _begin(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1")]})


def test_headers_query_and_body_arrive(http: httpx.Client) -> None:
    answer = http.post("/echo", params={"a": "b c"}, content=b"!")

    assert (answer.status_code, answer.headers["x-a"]) == (200, "1")
    assert answer.content == b"127.0.0.1 a=b+c!"


def test_a_body_is_sent_piece_by_piece(http: httpx.Client) -> None:
    answer = http.put("/count", content=(CHUNK for _ in range(100)))

    assert answer.text == str(100 * len(CHUNK))


def test_an_answer_arrives_while_it_is_made(http: httpx.Client, events: list[str]) -> None:
    with http.stream("GET", "/silent") as answer:
        assert next(answer.iter_bytes()) == b"first"
        assert events == []

    assert events == ["closed"]


def test_an_app_is_held_back_until_its_reader_has_read(
    http: httpx.Client, events: list[str]
) -> None:
    with http.stream("GET", "/endless") as answer:
        chunks = answer.iter_raw()
        for _ in range(10):
            next(chunks)
        assert events.count("sent") < 20

    assert events[-1] == "closed"


def test_an_app_that_fails_before_its_answer_raises_its_error(http: httpx.Client) -> None:
    with pytest.raises(ZeroDivisionError):
        http.get("/broken")


def test_an_answer_that_breaks_off_is_not_taken_for_whole(http: httpx.Client) -> None:
    with pytest.raises(httpx.ReadError):
        http.get("/breaks_off")


def test_the_reason_of_ours_behind_a_broken_answer_is_told(http: httpx.Client) -> None:
    with pytest.raises(Corrupt, match="damaged"):
        http.get("/breaks_off_for_a_reason")


def test_an_app_without_an_answer_is_an_error(http: httpx.Client) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        http.get("/nothing")


def test_many_threads_may_call_at_once(http: httpx.Client) -> None:
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: answers.append(http.put("/count", content=b"abc").text))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == ["3"] * 20
