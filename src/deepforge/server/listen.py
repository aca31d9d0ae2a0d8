"""Listen on a socket and serve an app on it, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog
import uvicorn
from starlette.types import ASGIApp

from deepforge.errors import ConfigError
from deepforge.server.home import Home

STOP_WITHIN_S = 5
"""How long a request that is under way may take once the server was told to stop."""

_log = structlog.get_logger(__name__)


def bind(host: str, port: int) -> socket.socket:
    """Listen on `host`; port 0 takes a free one. The caller closes the socket.

    Raises `ConfigError` if the host is not ours or the port is taken.
    """
    try:
        if not 0 <= port <= 65535:
            raise OverflowError("a port is a number from 0 to 65535")
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # Connections wait here from now on, also before the app is ready to take them.
        return socket.create_server((str(address[0]), port), family=family, backlog=2048)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error}",
            hint="choose another --host or --port; port 0 takes a free one",
        ) from error


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
