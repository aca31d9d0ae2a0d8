from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from deepforge.errors import ConfigError
from deepforge.server.body import Stream
from deepforge.server.home import Home
from deepforge.server.listen import answering, base_url, bind, serving


def app(stopping: asyncio.Event | None = None) -> Starlette:
    async def hello(request: Request) -> Response:
        return PlainTextResponse("hello")

    async def endless(request: Request) -> Response:
        async def chunks() -> AsyncGenerator[bytes, None]:
            yield b"begun"
            assert stopping is not None
            await stopping.wait()
            yield b" ended"

        return Stream(chunks())

    return Starlette(routes=[Route("/", hello), Route("/endless", endless)])


def test_a_free_port_is_taken_and_told() -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]

        assert port > 0
        assert base_url(listener) == f"http://127.0.0.1:{port}"
        assert base_url(listener, "::1") == f"http://[::1]:{port}"


def test_a_server_on_every_address_is_reached_here_by_loopback() -> None:
    with bind("0.0.0.0", 0) as listener:
        assert base_url(listener).startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("host", "port"),
    [("203.0.113.1", 0), ("no.such.host.invalid", 0), ("127.0.0.1", 70000), ("a" * 300, 0)],
)
def test_an_address_that_is_not_ours_is_a_clear_error(host: str, port: int) -> None:
    with pytest.raises(ConfigError, match="cannot listen on") as caught:
        bind(host, port)

    assert "--port" in str(caught.value.hint)


def test_a_port_that_is_taken_is_a_clear_error() -> None:
    with bind("127.0.0.1", 0) as listener, pytest.raises(ConfigError, match="cannot listen on"):
        bind("127.0.0.1", listener.getsockname()[1])


async def test_it_serves_within_the_block_and_not_after() -> None:
    with bind("127.0.0.1", 0) as listener:
        url = base_url(listener)
        async with httpx.AsyncClient() as http:
            async with serving(app(), listener):
                response = await http.get(url)
            assert response.text == "hello"
            assert "server" not in response.headers

            with pytest.raises(httpx.TransportError):
                await http.get(url)


async def test_a_small_reply_is_not_held_back() -> None:
    """Nagle's algorithm against delayed acknowledgements costs 40 ms a reply."""
    with bind("127.0.0.1", 0) as listener:
        async with serving(app(), listener), httpx.AsyncClient(base_url=base_url(listener)) as http:
            seconds = []
            for _ in range(20):
                began = time.perf_counter()
                await http.get("/")
                seconds.append(time.perf_counter() - began)

    assert min(seconds[1:]) < 0.03


async def test_an_endless_reply_ends_when_the_server_stops() -> None:
    stopping = asyncio.Event()
    with bind("127.0.0.1", 0) as listener:
        async with httpx.AsyncClient() as http:
            async with serving(app(stopping), listener, stopping=stopping.set):
                asking = asyncio.create_task(http.get(base_url(listener) + "/endless"))
                await asyncio.sleep(0.1)
            assert (await asking).text == "begun ended"


async def test_two_apps_may_be_served_at_once() -> None:
    with bind("127.0.0.1", 0) as first, bind("127.0.0.1", 0) as second:
        async with serving(app(), first), serving(app(), second), httpx.AsyncClient() as http:
            assert (await http.get(base_url(first))).text == "hello"
            assert (await http.get(base_url(second))).text == "hello"


async def test_the_address_file_holds_our_url_while_we_answer(tmp_path: Path) -> None:
    home = Home(tmp_path)
    async with answering(home, "http://127.0.0.1:1"):
        assert home.read_address() == "http://127.0.0.1:1"

    assert home.read_address() is None


async def test_our_address_comes_back_when_a_later_server_is_gone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with bind("127.0.0.1", 0) as other:
        async with answering(home, "http://127.0.0.1:1", every_s=0.01):
            home.write_address(base_url(other))
            await asyncio.sleep(0.1)
            assert home.read_address() == base_url(other)

            other.close()
            async with asyncio.timeout(5):
                while home.read_address() != "http://127.0.0.1:1":  # noqa: ASYNC110  a file
                    await asyncio.sleep(0.01)


SERVER = """
import asyncio, sys
from starlette.applications import Starlette
from deepforge.server.listen import base_url, bind, serving, stop_signals

async def main():
    with bind("127.0.0.1", 0) as listener, stop_signals() as stop:
        async with serving(Starlette(), listener):
            print(base_url(listener), flush=True)
            await stop
            if "slow" in sys.argv:
                print("stopping", flush=True)
                await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_in_good_order(number: signal.Signals) -> None:
    with _server() as process:
        os.kill(process.pid, number)

        assert process.wait(10) == 0


def test_a_second_signal_ends_it_at_once() -> None:
    with _server("slow") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        while process.stdout.readline() != "stopping\n":
            assert process.poll() is None
        began = time.monotonic()
        process.send_signal(signal.SIGINT)

        assert process.wait(10) == 128 + signal.SIGINT
        assert time.monotonic() - began < 2


def _server(*arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    host, port = url.removeprefix("http://").split(":")
    socket.create_connection((host, int(port))).close()
    return process
