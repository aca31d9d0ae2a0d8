"""Many simulated workers in one process: each asks for a job, does nothing, and says that it is done.

    python crowd.py <URL> <WORKERS>

Lines on standard input: `tell` prints what happened, `forget` the same, and begins the delays anew. A
job carries when it was queued, so how long it took to arrive is known of each. Connections that break
are made again, and reports are repeated until they are answered, as real workers do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import uvloop

AGAIN_S = 0.2


class Crowd:
    """What all workers of this process saw."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.handed: Counter[str] = Counter()
        self.delays_s: list[float] = []
        self.done = 0
        self.refused = 0

    def tell(self) -> dict[str, Any]:
        delays = sorted(self.delays_s)
        place = len(delays) - 1
        return {
            "handed": len(self.handed),
            "twice": sum(count > 1 for count in self.handed.values()),
            "done": self.done,
            "refused": self.refused,
            "p50_s": delays[place // 2] if delays else 0.0,
            "p99_s": delays[place * 99 // 100] if delays else 0.0,
        }


class Line:
    """One kept-alive connection."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(
        self, path: str, body: dict[str, Any], *, wait: bool = False
    ) -> tuple[int, bytes]:
        crowd, data = self._crowd, json.dumps(body).encode()
        prefer = "Prefer: wait=25\r\n" if wait else ""
        head = (
            f"POST /rest/executor/{path} HTTP/1.1\r\nHost: {crowd.host}:{crowd.port}\r\n{prefer}"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(crowd.host, crowd.port)
            reader, writer = self._streams
            writer.write(head.encode() + data)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = answer.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
            return int(answer[9:12]), await reader.readexactly(int(length))
        except BaseException:
            if self._streams is not None:
                self._streams[1].close()
                self._streams = None
            raise


async def work(crowd: Crowd, name: str) -> None:
    line = Line(crowd)
    room = {"cpus": 1, "memoryBytes": 2**30, "gpus": 0}
    held: list[str] = []
    while True:
        asked = {
            "clientId": name,
            "availableProcesses": 1 - len(held),
            "labels": [],
            "runningJobs": held,
            "deepforge": {"instance": name, "name": name, **room, "free": room},
        }
        try:
            for hash in list(held):
                done = {"worker": name, "status": "SUCCESS", "exitCode": 0}
                status, _ = await line.post(f"update/{hash}", done)
                if status >= 500:
                    raise ConnectionError(status)
                crowd.done += status == 200
                crowd.refused += status != 200
                held.remove(hash)
                asked["availableProcesses"] = 1
            status, data = await line.post("worker", asked, wait=True)
            if status != 200:
                raise ConnectionError(status)
        except (OSError, EOFError):
            await asyncio.sleep(AGAIN_S)
            continue
        answer = json.loads(data)
        for hash, job in answer["deepforge"]["jobs"].items():
            crowd.handed[hash] += 1
            crowd.delays_s.append(time.time() - float(job["files"]["job.json"]))
            held.append(hash)


async def main(url: str, workers: int) -> None:
    crowd = Crowd(url)
    tasks = [asyncio.create_task(work(crowd, f"w{number}")) for number in range(workers)]
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin
    )
    while line := (await stdin.readline()).strip():
        print(json.dumps(crowd.tell()), flush=True)
        if line == b"forget":
            crowd.delays_s = []
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], int(sys.argv[2])))
