"""A queue with its routes, in the process of a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import httpx
from fastapi import FastAPI

from deepforge.execution.access import Address
from deepforge.server.app import build_app
from deepforge.server.home import open_home
from deepforge.server.services import Services, open_services
from deepforge.webgme.hand_out import HandOut
from deepforge.webgme.queue import Queue

OWNER = "local"


@dataclass
class Rig:
    services: Services
    app: FastAPI
    http: httpx.AsyncClient

    @property
    def queue(self) -> Queue:
        return self.services.hand_out.queue

    @property
    def hand_out(self) -> HandOut:
        return self.services.hand_out

    async def submit(self, key: str, **more: Any) -> str:
        """Queue an attempt that does nothing; return its id."""
        more.setdefault("files", {"job.json": key.encode()})
        return await self.queue.submit(OWNER, key, ("{python}", "-c", ""), **more)

    async def ask(self, client_id: str, *running: str, wait_s: int = 0, **more: Any) -> Any:
        """Ask for work as a worker of ours would; return the answer's JSON."""
        answer = await self.send(question(client_id, *running, **more), wait_s=wait_s)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def send(self, asked: Any, *, wait_s: int = 0) -> httpx.Response:
        headers = {"Prefer": f"wait={wait_s}"} if wait_s else {}
        return await self.http.post("/rest/executor/worker", json=asked, headers=headers)

    async def post(self, path: str, body: Any) -> httpx.Response:
        return await self.http.post(f"/rest/executor/{path}", json=body)


def question(
    client_id: str,
    *running: str,
    slots: int = 1,
    labels: tuple[str, ...] = (),
    instance: str | None = "i1",
    cpus: float = 8,
    memory_bytes: int = 2**33,
    gpus: int = 0,
) -> dict[str, Any]:
    """What a worker sends; without an `instance` what the original one sends."""
    asked: dict[str, Any] = {
        "clientId": client_id,
        "availableProcesses": slots,
        "labels": list(labels),
        "runningJobs": list(running),
    }
    if instance is not None:
        room = {"cpus": cpus, "memoryBytes": memory_bytes, "gpus": gpus}
        asked["deepforge"] = {"instance": instance, "name": client_id, **room, "free": room}
    return asked


@asynccontextmanager
async def opened(folder: Path, *, database: str | None = None) -> AsyncIterator[Rig]:
    environ = {"DEEPFORGE_HOME": str(folder)}
    if database is not None:
        environ["DEEPFORGE_DATABASE"] = database
    home = open_home(environ)
    address = Address(loopback_url="http://127.0.0.1:1", file=str(home.address))
    async with open_services(home, drive=False, address=address, environ=environ) as services:
        app = _built_app()
        app.state.services = services
        app.state.stopping = asyncio.Event()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost", timeout=60
        ) as http:
            yield Rig(services, app, http)


@cache
def _built_app() -> FastAPI:
    """Building it takes longer than most tests; it has no state but what is put in."""
    return build_app(cast(Services, None))
