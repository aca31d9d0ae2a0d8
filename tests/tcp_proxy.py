"""A TCP proxy on this machine that can cut connections, or put TLS in front of a plain service."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class Proxy:
    """`cut_after` holds, for the next connections in turn, after how many answered bytes to cut."""

    def __init__(self, target_url: str, tls: ssl.SSLContext | None) -> None:
        self.cut_after: list[int] = []
        self.cuts = 0
        self.url = ""
        self._target = urlsplit(target_url)
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(
        self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        from_service, to_service = await asyncio.open_connection(
            self._target.hostname, self._target.port
        )
        up = asyncio.create_task(_pump(from_client, to_service))
        self._tasks.add(up)
        try:
            left = self.cut_after.pop(0) if self.cut_after else None
            while data := await from_service.read(65536):
                if left is not None and len(data) >= left:
                    to_client.write(data[:left])
                    await to_client.drain()
                    to_client.transport.abort()
                    self.cuts += 1
                    return
                left = None if left is None else left - len(data)
                to_client.write(data)
                await to_client.drain()
        except OSError:
            pass  # the client went away
        finally:
            up.cancel()
            self._tasks.discard(up)
            to_client.close()
            to_service.close()
            with suppress(OSError):
                await to_client.wait_closed()
            with suppress(OSError):
                await to_service.wait_closed()


@asynccontextmanager
async def proxied(target_url: str, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    """Run a proxy in front of `target_url` until the block ends."""
    proxy = Proxy(target_url, tls)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    proxy.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield proxy
    finally:
        server.close()
        # connections that clients keep for later would hold the server open
        handlers = [task for task in asyncio.all_tasks() if task.get_coro().__name__ == "serve"]  # type: ignore[union-attr]
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
        target.write_eof()
