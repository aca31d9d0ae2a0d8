"""The server's app within this process: opened on a thread of its own, closed with the command."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import httpx

from deepforge.cli.asgi import App, AsgiTransport
from deepforge.server.home import Home, open_home
from deepforge.server.listen import run
from deepforge.server.logs import configure_logging
from deepforge.server.start import embedded

_LOG_FILE = "embedded.log"
_LONGEST_LOG_BYTES = 5 * 1024 * 1024


@contextmanager
def embedded_transport(*, driving: bool) -> Iterator[httpx.BaseTransport]:
    """Open the app over the home folder for as long as the block.

    With `driving`, running executions are adopted and moved on meanwhile, and runners on this machine
    can call us. Raises what opening raises, such as `ConfigError`.
    """
    home = open_home()
    with _log(home) as log:
        configure_logging(log, level=logging.WARNING)
        thread = _AppThread(home, driving=driving)
        thread.start()
        try:
            app, loop = thread.opened()
            yield AsgiTransport(app, loop)
        finally:
            thread.close()


class _AppThread:
    """A thread with an event loop in which the app is open between `start` and `close`."""

    def __init__(self, home: Home, *, driving: bool) -> None:
        self._home = home
        self._driving = driving
        self._thread = threading.Thread(target=self._run, name="embedded server", daemon=True)
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._close: asyncio.Event | None = None
        self._app: App | None = None
        self._error: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def opened(self) -> tuple[App, asyncio.AbstractEventLoop]:
        """Wait until the app is open. Raises what went wrong instead."""
        self._ready.wait()
        if self._app is None or self._loop is None:
            raise self._error or RuntimeError("the embedded server ended at once")
        return self._app, self._loop

    def close(self) -> None:
        """End what the app does and wait for it. Raises what went wrong meanwhile."""
        self._ready.wait()
        if self._loop is not None and self._close is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._close.set)
        self._thread.join()
        if self._app is not None and self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            run(self._serve())
        except BaseException as error:  # it belongs to whoever waits for this thread
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._close = asyncio.Event()
        async with embedded(self._home, drive=self._driving) as self._app:
            self._ready.set()
            await self._close.wait()


@contextmanager
def _log(home: Home) -> Iterator[TextIO]:
    """Open the file in which the app says what an operator may want to know later."""
    path = home.logs / _LOG_FILE
    try:
        too_long = path.exists() and path.stat().st_size > _LONGEST_LOG_BYTES
        log = path.open("w" if too_long else "a", encoding="utf-8", buffering=1)
    except OSError:  # such as a full disk: commands that only read must work all the same
        log = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  (closed below)
    try:
        yield log
    finally:
        with suppress(OSError):  # what could not be written is not worth the command
            log.close()
