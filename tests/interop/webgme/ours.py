"""A whole server of ours in a thread, for tests that only need its address."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepforge.execution.access import Address
from deepforge.server.app import build_app
from deepforge.server.home import open_home
from deepforge.server.listen import base_url, bind, serving
from deepforge.server.services import Services, open_services
from deepforge.settings import Secret

READY_WITHIN_S = 60.0


@dataclass(frozen=True)
class OurServer:
    """Where it is, and a token of each of its users; without users it serves the one local user."""

    url: str
    tokens: Mapping[str, str]


@contextlib.contextmanager
def server_running(folder: Path, *, users: Sequence[str] = ()) -> Iterator[OurServer]:
    """Serve until the block ends, with the home in `folder`; with users it wants to know who calls."""
    ready: queue.Queue[tuple[OurServer, asyncio.AbstractEventLoop, asyncio.Event] | BaseException]
    ready = queue.Queue()

    async def serve() -> None:
        environ = {"DEEPFORGE_HOME": str(folder)}
        home = open_home(environ)
        with bind("127.0.0.1", 0) as listener:
            url = base_url(listener)
            address = Address(loopback_url=url, file=str(home.address))
            async with open_services(home, drive=True, address=address, environ=environ) as use:
                tokens = {name: await _new_token(use, name) for name in users}
                app = build_app(use, wants_login=bool(users))
                async with serving(app, listener, stopping=app.state.stopping.set):
                    stop = asyncio.Event()
                    ready.put((OurServer(url, tokens), asyncio.get_running_loop(), stop))
                    await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            ready.put(error)
            raise

    thread = threading.Thread(target=run, name="our-server")
    thread.start()
    began = ready.get(timeout=READY_WITHIN_S)
    if isinstance(began, BaseException):
        thread.join()
        raise RuntimeError("our server did not start") from began
    server, loop, stop = began
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(READY_WITHIN_S)


async def _new_token(use: Services, name: str) -> str:
    await use.users.add(name, Secret("correct horse battery"))
    _, token = await use.tokens.create(name, "interop", ["api"])
    return token.reveal()
