"""Who may call: every route depends on exactly one of the callers here, or is an attempt's.

A server that only this machine can reach takes each request as the one user `local`, and keeps web
pages of other sites out by their `Host` and `Origin`. Any other server wants the token of an account.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.requests import HTTPConnection

from deepforge.accounts.model import LOCAL_USER, SCOPES, Scope
from deepforge.errors import AuthError, Forbidden
from deepforge.server.services import Services


@dataclass(frozen=True)
class Principal:
    """Who makes the request. Everything they make and see carries their `owner`."""

    owner: str
    is_admin: bool
    scopes: frozenset[Scope]


LOCAL = Principal(LOCAL_USER, is_admin=True, scopes=frozenset(SCOPES))


async def admit(connection: HTTPConnection) -> Principal:
    """Say who calls, as it is now: ask again during long replies.

    Raises `AuthError` without a valid token where one is wanted, `Forbidden` for a foreign page.
    """
    services: Services = connection.app.state.services
    token = _given_token(connection)
    if not connection.app.state.wants_login:
        _refuse_foreign_pages(connection)
        if token is None or not await services.users.exist():
            return LOCAL
    elif token is None:
        raise _no_token()
    identity = await services.tokens.authenticate(token)
    return Principal(identity.user, identity.is_admin, identity.scopes)


async def api_caller(request: Request) -> Principal:
    """Admit who may use the whole API."""
    found = await admit(request)
    if "api" not in found.scopes:
        raise Forbidden(
            "this token is a worker's and good for nothing else",
            hint="make one for this: deepforge tokens create NAME --scope api",
        )
    return found


async def worker_caller(request: Request) -> Principal:
    """Admit workers, and who may use the whole API."""
    return await admit(request)


async def admin_caller(request: Request) -> Principal:
    """Admit administrators."""
    found = await api_caller(request)
    if not found.is_admin:
        raise Forbidden("only administrators may do this", hint="ask one")
    return found


async def anybody(request: Request) -> None:
    """Admit who has no token yet, but no page of another site to a server of this machine alone."""
    if not request.app.state.wants_login:
        _refuse_foreign_pages(request)


Caller = Annotated[Principal, Depends(api_caller)]
WorkerCaller = Annotated[Principal, Depends(worker_caller)]
AdminCaller = Annotated[Principal, Depends(admin_caller)]

CALLERS = (api_caller, worker_caller, admin_caller)
"""A route that depends on none of these must be public or an attempt's."""


def bearer_token(connection: HTTPConnection) -> str:
    """Return what follows `Authorization: Bearer`. Raises `AuthError` if there is none."""
    token = _bearer(connection)
    if token is None:
        raise _no_token()
    return token


def caller_address(connection: HTTPConnection) -> str:
    """Where the caller, or the proxy before it, is."""
    return connection.client.host if connection.client is not None else ""


def is_loopback(host: str) -> bool:
    """Whether a host name or address, without port, can only mean this machine."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _given_token(connection: HTTPConnection) -> str | None:
    return _bearer(connection) or connection.headers.get("x-api-token", "").strip() or None


def _bearer(connection: HTTPConnection) -> str | None:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _no_token() -> AuthError:
    return AuthError(
        "the request carries no access token",
        hint="get one with `deepforge login`, and set DEEPFORGE_TOKEN; "
        "programs send the header `Authorization: Bearer <token>`",
    )


def _refuse_foreign_pages(connection: HTTPConnection) -> None:
    # A page whose host name was rebound to 127.0.0.1 still sends its own name as Host.
    host = connection.headers.get("host", "")
    if not is_loopback(_hostname(host)):
        raise Forbidden(
            f"this server answers on its own machine only, not as {host[:100]!r}",
            hint="start it with --host, and with accounts, to reach it from elsewhere",
        )
    origin = connection.headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        raise Forbidden(f"requests from pages of {origin[:100]!r} are refused")


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # such as an unclosed bracket
        return ""
