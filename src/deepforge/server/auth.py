"""Who may call: every route depends on exactly one of `principal` or an attempt's token.

A server that only this machine can reach takes each request as the one owner `local`, and keeps web
pages of other sites out by their `Host` and `Origin`. Any other server wants its access token.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.requests import HTTPConnection

from deepforge.errors import AuthError, Forbidden
from deepforge.settings import Secret

LOCAL_OWNER = "local"


@dataclass(frozen=True)
class Principal:
    """Who makes the request. Everything they make and see carries their `owner`."""

    owner: str


@dataclass(frozen=True)
class Access:
    """How callers are told apart. Without a `token` the server must listen on loopback only."""

    token: Secret | None = None

    def admit(self, connection: HTTPConnection) -> Principal:
        """Say who calls. Raises `AuthError` for a wrong token, `Forbidden` for a foreign page."""
        if self.token is None:
            _refuse_foreign_pages(connection)
        elif not _same(bearer_token(connection), self.token.reveal()):
            raise AuthError(
                "the access token is wrong",
                hint="set DEEPFORGE_TOKEN to what the file `token` in the server's home folder holds",
            )
        return Principal(LOCAL_OWNER)


def principal(request: Request) -> Principal:
    """Say who calls; the dependency of every route that is neither public nor an attempt's."""
    access: Access = request.app.state.access
    return access.admit(request)


Caller = Annotated[Principal, Depends(principal)]


def bearer_token(connection: HTTPConnection) -> str:
    """Return what follows `Authorization: Bearer`. Raises `AuthError` if there is none."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise AuthError(
            "the request carries no access token",
            hint="send the header `Authorization: Bearer <token>`; the CLI reads DEEPFORGE_TOKEN",
        )
    return token.strip()


def is_loopback(host: str) -> bool:
    """Whether a host name or address, without port, can only mean this machine."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _refuse_foreign_pages(connection: HTTPConnection) -> None:
    # A page whose host name was rebound to 127.0.0.1 still sends its own name as Host.
    host = connection.headers.get("host", "")
    if not is_loopback(_hostname(host)):
        raise Forbidden(
            f"this server answers on its own machine only, not as {host[:100]!r}",
            hint="start it with --host and use its access token to reach it from elsewhere",
        )
    origin = connection.headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        raise Forbidden(f"requests from pages of {origin[:100]!r} are refused")


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # such as an unclosed bracket
        return ""


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
