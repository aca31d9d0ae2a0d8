"""A whole server whose queue is filled on command, in a process of its own.

    python queue_server.py <HOME> <PORT>

Lines of JSON on standard input: `{"queue": n}` queues n jobs at once, `{"queue": n, "every_s": x}` one
after the other, `{"tell": true}` prints how the queue is. Each answers with one line.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import structlog
import uvloop

from deepforge.compute.port import PYTHON
from deepforge.execution.access import Address
from deepforge.server.app import build_app
from deepforge.server.home import open_home
from deepforge.server.listen import base_url, bind, serving
from deepforge.server.services import Services, open_services
from deepforge.webgme.jobs import CREATED, LOST, RUNNING, SUCCESS
from deepforge.webgme.queue import Queue

OWNER = "local"
AT_ONCE = 500
RUNNER = {"runner.pyz": b"a runner" * 7000}


async def queue_jobs(queue: Queue, count: int, every_s: float) -> None:
    async def one() -> None:
        files = {**RUNNER, "job.json": repr(time.time()).encode()}
        await queue.submit(
            OWNER, secrets.token_hex(12), (PYTHON, "runner.pyz"), files, runner_file="runner.pyz"
        )

    if every_s:
        for _ in range(count):
            await one()
            await asyncio.sleep(every_s)
        return
    for start in range(0, count, AT_ONCE):
        await asyncio.gather(*(one() for _ in range(min(AT_ONCE, count - start))))


def writes_counted(use: Services) -> Counter[str]:
    """Count every write that the database does from now on."""
    counted: Counter[str] = Counter()
    documents: Any = use.documents
    write = documents._write

    async def counting(work: Any) -> Any:
        counted["writes"] += 1
        return await write(work)

    documents._write = counting
    return counted


async def tell(use: Services, counted: Counter[str]) -> dict[str, Any]:
    states: Counter[str] = Counter()
    for state in (CREATED, RUNNING, SUCCESS, LOST):  # page by page: memory is measured here
        async for _ in use.hand_out.queue.with_status(OWNER, state):
            states[state] += 1
    status = Path("/proc/self/status").read_text()
    peak_kib = int(status.partition("VmHWM:")[2].split()[0])
    return {"states": states, "writes": counted["writes"], "memory_bytes": peak_kib * 1024}


async def main(folder: str, port: int) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    environ = {"DEEPFORGE_HOME": folder}
    home = open_home(environ)
    with bind("127.0.0.1", port) as listener:
        address = Address(loopback_url=base_url(listener))
        async with open_services(home, drive=True, address=address, environ=environ) as use:
            app = build_app(use)
            async with serving(app, listener, stopping=app.state.stopping.set):
                print(json.dumps({"url": base_url(listener)}), flush=True)
                await obey(use, writes_counted(use))


async def obey(use: Services, counted: Counter[str]) -> None:
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin
    )
    while line := await stdin.readline():
        asked = json.loads(line)
        began = time.perf_counter()
        if "queue" in asked:
            await queue_jobs(use.hand_out.queue, asked["queue"], asked.get("every_s", 0.0))
            answer = {"seconds": time.perf_counter() - began}
        else:
            answer = await tell(use, counted)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], int(sys.argv[2])))
