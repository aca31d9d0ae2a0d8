"""Listen on a socket and serve an app on it, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import structlog
import uvicorn
from starlette.types import ASGIApp

from deepforge.errors import ConfigError
from deepforge.server.home import Home

T = TypeVar("T")

STOP_WITHIN_S = 5
"""How long a request that is under way may take once the server was told to stop."""

_log = structlog.get_logger(__name__)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a server's main coroutine on uvloop, where there is one, and return its result."""
    try:
        from uvloop import new_event_loop
    except ImportError:  # not on every platform
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)


def bind(host: str, port: int) -> socket.socket:
    """Listen on `host`; port 0 takes a free one. The caller closes the socket.

    Raises `ConfigError` if the host is not ours or the port is taken.
    """
    # With its protocol named: event loops turn Nagle's delays (40 ms a reply) off only then.
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(host, port, error) from error
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address[0], port))
        listener.listen(2048)  # connections wait here, also before the app is ready
    except (OSError, OverflowError) as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def base_url(listener: socket.socket, host: str | None = None) -> str:
    """How callers on this machine, or those who know it as `host`, reach the listener."""
    address, port = listener.getsockname()[:2]
    name = host or {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


@asynccontextmanager
async def serving(
    app: ASGIApp, listener: socket.socket, *, stopping: Callable[[], None] | None = None
) -> AsyncIterator[None]:
    """Serve `app` on the listener within the block, from its first line on.

    At the end no new connection is taken, `stopping` is called so that endless replies end, what is
    under way may finish for `STOP_WITHIN_S`, and the listener is closed.
    """
    server = _Server(
        uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,  # longer than the pause between two heartbeats of a runner
            timeout_graceful_shutdown=STOP_WITHIN_S,
        )
    )
    task = asyncio.create_task(server.serve([listener]))
    try:
        await server.ready(task)
        yield
    finally:
        if stopping is not None:
            stopping()
        server.stop()
        await task


@asynccontextmanager
async def answering(home: Home, url: str, *, every_s: float = 5.0) -> AsyncIterator[None]:
    """Keep `url` in the address file of the home, for runners that outlive a server.

    Another live server of the same home may put its own there: either can answer. If that one is
    gone, ours comes back within `every_s`.
    """

    async def keep() -> None:
        while True:
            await asyncio.sleep(every_s)
            written = home.read_address()
            if written != url and (written is None or not await _accepts(written)):
                home.write_address(url)

    home.write_address(url)
    keeper = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper
        home.remove_address(url)


@contextmanager
def stop_signals() -> Iterator[asyncio.Future[signal.Signals]]:
    """Give what is done at the first SIGINT or SIGTERM. The second ends this process at once.

    Ending at once is safe: what was acknowledged is stored, and jobs go on without us. Enter it
    before anybody is told that the server is there.
    """
    loop = asyncio.get_running_loop()
    first: asyncio.Future[signal.Signals] = loop.create_future()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def caught(number: signal.Signals) -> None:
        if first.done():
            os._exit(128 + number)
        _log.info("server_stopping", signal=number.name)
        first.set_result(number)

    for number in numbers:
        loop.add_signal_handler(number, caught, number)
    try:
        yield first
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _cannot_listen(host: str, port: int, error: Exception) -> ConfigError:
    return ConfigError(
        f"cannot listen on {host} port {port}: {error}",
        hint="choose another --host or --port; port 0 takes a free one",
    )


class _Server(uvicorn.Server):
    """Leaves signals to the caller, and waits for its end instead of looking for it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ready = asyncio.Event()
        self._stop = asyncio.Event()

    async def ready(self, task: asyncio.Task[None]) -> None:
        """Return once connections are served; raise what `task` raised if it ended before."""
        waiter = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({waiter, task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
        if task.done():
            task.result()

    def stop(self) -> None:
        self.should_exit = True
        self._stop.set()

    async def main_loop(self) -> None:
        self._ready.set()
        await self._stop.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _accepts(url: str) -> bool:
    """Whether something takes connections there."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    try:
        async with asyncio.timeout(2):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, ValueError):
        return False
    writer.close()
    return True
