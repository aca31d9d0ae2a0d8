"""The two ways to run it all: as a server, and embedded in a process of somebody else."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog
from fastapi import FastAPI

from deepforge.accounts import users as user_store
from deepforge.accounts.users import Users
from deepforge.connections.endpoints import EVERYTHING, read_allowed
from deepforge.documents.registry import open_documents
from deepforge.errors import ConfigError
from deepforge.execution.access import Address
from deepforge.machine import keep_secrets_in_memory
from deepforge.server.app import build_app, build_channel_app
from deepforge.server.auth import is_loopback
from deepforge.server.home import Home
from deepforge.server.listen import answering, base_url, bind, serving, stop_signals
from deepforge.server.services import open_services

_WILDCARDS = ("", "0.0.0.0", "::")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Listening:
    """Where a server that is ready now can be reached, and whether callers need an account."""

    url: str
    wants_login: bool


async def start(
    home: Home,
    *,
    host: str,
    port: int,
    public_url: str | None = None,
    announce: Callable[[Listening], None],
) -> None:
    """Serve until SIGINT or SIGTERM, driving executions meanwhile; jobs go on when it returns.

    Port 0 takes a free one. On loopback, and without a public URL, whoever is on this machine is the
    one user; else callers need accounts, and only endpoints on the internet are called for them,
    besides those that the environment allows (`connections.endpoints`). Raises `ConfigError`, also
    when there is no account, and `Unavailable` when there is no database.
    """
    keep_secrets_in_memory()
    public = _checked_url(public_url) if public_url is not None else None
    is_open = public is not None or not is_loopback(host)
    endpoints = read_allowed(os.environ) if is_open else EVERYTHING
    async with AsyncExitStack() as stack:
        stop = stack.enter_context(stop_signals())
        listener = stack.enter_context(bind(host, port))
        if is_open:
            await _require_accounts(home)
        url = base_url(listener)
        if public is None and is_open and host not in _WILDCARDS:
            public = base_url(listener, host)
        address = Address(
            loopback_url=url, public_url=public, file=str(home.address), is_open=is_open
        )
        services = await stack.enter_async_context(
            open_services(home, drive=True, address=address, endpoints=endpoints)
        )
        app = build_app(services, wants_login=is_open)
        await stack.enter_async_context(serving(app, listener, stopping=app.state.stopping.set))
        await stack.enter_async_context(answering(home, url))
        _log.info("server_started", url=url, public_url=public, home=str(home.folder))
        _settle_memory()
        announce(Listening(public or url, wants_login=is_open))
        await stop
    _log.info("server_stopped", url=url)


@asynccontextmanager
async def embedded(home: Home, *, drive: bool) -> AsyncIterator[FastAPI]:
    """Give the app to a caller in this process, who needs no token.

    With `drive` it moves executions on within the block, and runners on this machine reach it on a
    free port of loopback, where it answers nobody else. Jobs go on after the block.
    """
    keep_secrets_in_memory()
    async with AsyncExitStack() as stack:
        if not drive:
            services = await stack.enter_async_context(
                open_services(home, drive=False, address=Address(file=str(home.address)))
            )
            yield build_app(services)
            return
        listener = stack.enter_context(bind("127.0.0.1", 0))
        url = base_url(listener)
        address = Address(loopback_url=url, file=str(home.address))
        services = await stack.enter_async_context(open_services(home, drive=True, address=address))
        channel = build_channel_app(services)
        await stack.enter_async_context(serving(channel, listener))
        await stack.enter_async_context(answering(home, url))
        app = build_app(services)
        _settle_memory()
        yield app


def _settle_memory() -> None:
    """Spare the collector what is there for good, and have it look less often at what comes."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


async def _require_accounts(home: Home) -> None:
    async with open_documents(home.database_url(), user_store.COLLECTIONS) as documents:
        users = await Users(documents).list()
    if all(one.is_disabled for one in users):
        raise ConfigError(
            "a server that others can reach wants accounts, and there is none",
            hint="make yours, an administrator's, with `deepforge users add NAME`, then start again",
        )


def _checked_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        whole = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        whole = False
    if not whole or parts.query or parts.fragment or parts.username:
        raise ConfigError(
            f"{text!r} is not a URL that runners could call",
            fields={"public_url": "is not an http or https address"},
            hint="such as --public-url https://forge.example.org",
        )
    return text.rstrip("/")
