"""Send many small POST requests over kept-alive connections, from a process of its own.

    python hammer.py CONNECTIONS <requests.json

One request is [URL, token, body]. The last line of standard output says how many seconds all took;
any answer but 200 is an error.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit

import uvloop


async def main(connections: int) -> None:
    waiting = [prepared(*one) for one in json.loads(sys.stdin.readline())]
    host, port, _ = waiting[0]
    streams = [await asyncio.open_connection(host, port) for _ in range(connections)]

    async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while waiting:
            writer.write(waiting.pop()[2])
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(f"the server answered {head.decode()}")
            length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
            await reader.readexactly(int(length))

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for stream in streams:
            group.create_task(work(*stream))
    print(json.dumps({"seconds": time.perf_counter() - began}))
    for _, writer in streams:
        writer.close()


def prepared(url: str, token: str, body: str) -> tuple[str, int, bytes]:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return host, port, (head + body).encode()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1])))
