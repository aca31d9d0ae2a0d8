from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import httpx
import pytest
from fastapi import FastAPI

from deepforge.execution.access import Address
from deepforge.server.app import build_app
from deepforge.server.home import Home, open_home
from deepforge.server.listen import base_url, bind, serving
from deepforge.server.services import Services, open_services


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"DEEPFORGE_HOME": str(tmp_path / "home")}


@pytest.fixture
def home(environ: dict[str, str]) -> Home:
    return open_home(environ)


@pytest.fixture
async def services(home: Home, environ: dict[str, str]) -> AsyncIterator[Services]:
    """Everything over a fresh home; nothing is driven."""
    address = Address(loopback_url="http://127.0.0.1:1", file=str(home.address))
    async with open_services(home, drive=False, address=address, environ=environ) as opened:
        yield opened


@pytest.fixture(scope="session")
def built_app() -> FastAPI:
    """Building it takes longer than most tests; it has no state but what `app` puts in."""
    return build_app(cast(Services, None))


@pytest.fixture
def app(built_app: FastAPI, services: Services) -> FastAPI:
    built_app.state.services = services
    built_app.state.stopping = asyncio.Event()
    built_app.state.wants_login = False
    return built_app


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client in this process, without a socket."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost/api/v1") as client:
        yield client


@pytest.fixture
async def wire(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client over a real socket."""
    with bind("127.0.0.1", 0) as listener:
        async with (
            serving(app, listener, stopping=app.state.stopping.set),
            httpx.AsyncClient(base_url=base_url(listener) + "/api/v1", timeout=60) as client,
        ):
            yield client


@pytest.fixture
async def live(
    built_app: FastAPI, home: Home, environ: dict[str, str]
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a whole server on a real socket, which drives executions."""
    with bind("127.0.0.1", 0) as listener:
        url = base_url(listener)
        address = Address(loopback_url=url, file=str(home.address))
        async with open_services(home, drive=True, address=address, environ=environ) as services:
            built_app.state.services = services
            built_app.state.stopping = asyncio.Event()
            built_app.state.wants_login = False
            async with (
                serving(built_app, listener, stopping=built_app.state.stopping.set),
                httpx.AsyncClient(base_url=f"{url}/api/v1", timeout=60) as client,
            ):
                yield client
