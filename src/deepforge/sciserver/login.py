"""The login portal: a token for a password, what a token is worth, the address for a browser."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from deepforge.errors import AuthError, ConfigError, InvalidRequest, RateLimited, Unavailable
from deepforge.ids import epoch_s, timestamp
from deepforge.sciserver.hosts import Hosts
from deepforge.settings import Secret

WITHIN_S = 30.0
"""How long the portal may take for an answer."""

_TOKEN = re.compile(r"[A-Za-z0-9_=.-]{8,8192}")
_LOCKED = "Maximum number of login attempts"
_MINUTES = re.compile(r"in (\d+) minute")


class PasswordRefused(AuthError):
    """The portal said no to this name and password. Three of these lock the account.

    It counts as expired: linking the account helps, and what runs waits for that.
    """

    def __init__(self, username: str) -> None:
        super().__init__(
            f"SciServer does not accept this password of {username!r}",
            expired=True,
            hint="it is not tried again, as three wrong ones lock the account; "
            "link it: deepforge sciserver link",
        )


class AccountLocked(AuthError):
    """Too many wrong passwords: the portal refuses even the right one for `minutes`.

    It counts as expired, as what runs waits for the end of it.
    """

    def __init__(self, message: str, *, minutes: int, hint: str | None = None) -> None:
        super().__init__(message, expired=True, hint=hint)
        self.minutes = minutes


class NotAsked(Unavailable):
    """The portal could not be reached: a password was not tried."""


@dataclass(frozen=True)
class Token:
    """A token and what the portal says of it. `expires_at` is RFC 3339 text in UTC."""

    value: Secret
    username: str
    expires_at: str
    life_s: float
    """From its making to its end."""


async def log_in(hosts: Hosts, username: str, password: Secret) -> Secret:
    """Try a password once, and return a new token.

    Raises `PasswordRefused`, `AccountLocked`, `NotAsked` when trying again costs nothing, and
    `Unavailable` when it is unknown whether the password was tried.
    """
    user = {"name": username, "password": password.reveal()}
    body = {"auth": {"identity": {"password": {"user": user}}}}
    answer = await _ask(hosts, "POST", "/keystone/v3/tokens", body)
    if answer.status_code == 200:
        return checked_token(answer.headers.get("x-subject-token") or answer.text.strip())
    text = _message(answer)
    if _LOCKED in text or answer.status_code == 429:
        found = _MINUTES.search(text)
        minutes = int(found[1]) if found else 10
        raise AccountLocked(
            f"SciServer locks the account {username!r}: too many wrong passwords",
            minutes=minutes,
            hint=f"it opens again in {minutes} minutes; no password is tried until then",
        )
    if answer.status_code == 401 or "401" in text:
        raise PasswordRefused(username)
    raise Unavailable(f"the login portal of {hosts.site} answered {answer.status_code}")


async def look_at(hosts: Hosts, value: Secret) -> Token:
    """Ask the portal whose token this is, and until when.

    Raises `AuthError(expired)` for one that ended or was never one, and `Unavailable`.
    """
    path = f"/api/tokens/{quote(checked_token(value.reveal()).reveal(), safe='')}"
    answer = await _ask(hosts, "GET", path)
    if answer.status_code == 401:
        raise ended(hosts)
    if answer.status_code != 200:
        raise Unavailable(f"the login portal of {hosts.site} answered {answer.status_code}")
    try:
        told = json.loads(answer.content)["token"]
        ends_s = epoch_s(told["expires_at"])
        life_s = ends_s - epoch_s(told["issued_at"])
        return Token(value, str(told["user"]["name"]), timestamp(ends_s), life_s)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _not_a_portal(hosts) from error


def login_page(hosts: Hosts, callback_url: str) -> str:
    """Where a browser logs in; it is sent to the callback then, with `token` in its query.

    The portal keeps one parameter of the callback's own query, and loses the rest.
    """
    return f"{hosts.login_url}/login?callbackUrl={quote(callback_url, safe='')}"


def checked_token(text: str) -> Secret:
    """Raises `InvalidRequest` for what cannot be a token: it goes into addresses and headers."""
    if _TOKEN.fullmatch(text) is None:
        raise InvalidRequest("this is no SciServer token", part="token")
    return Secret(text)


def ended(hosts: Hosts) -> AuthError:
    """The error for a token that is not, or no longer, accepted."""
    return AuthError(
        f"your link to SciServer ({hosts.site}) has ended",
        expired=True,
        hint="link again: deepforge sciserver link",
    )


def not_linked(hosts: Hosts) -> AuthError:
    """The error for an account of which there is neither a token nor a password."""
    return AuthError(
        f"your account at SciServer ({hosts.site}) is not linked",
        expired=True,
        hint="link it: deepforge sciserver link",
    )


async def _ask(
    hosts: Hosts, method: str, path: str, body: Mapping[str, Any] | None = None
) -> httpx.Response:
    """One request to the portal, past httpx's client: that logs addresses, and these hold tokens."""
    request = httpx.Request(
        method,
        hosts.login_url + path,
        json=body,
        headers={"User-Agent": "DeepForge", "Connection": "close"},
        extensions={"timeout": httpx.Timeout(WITHIN_S, connect=10.0).as_dict()},
    )
    with _errors(hosts):
        async with httpx.AsyncHTTPTransport(proxy=_proxy(hosts.login_url)) as transport:
            answer = await transport.handle_async_request(request)
            answer.request = request
            await answer.aread()
    if 300 <= answer.status_code < 400 or answer.status_code == 404:
        raise _not_a_portal(hosts)
    if answer.status_code == 200 and "text/html" in answer.headers.get("content-type", ""):
        raise _not_a_portal(hosts)
    if answer.status_code == 429 and method != "POST":
        raise RateLimited(f"the login portal of {hosts.site} wants fewer requests")
    return answer


def _proxy(url: str) -> str | None:
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urllib.request.getproxies().get(parts.scheme)


@contextmanager
def _errors(hosts: Hosts) -> Iterator[None]:
    where = f"the login portal of {hosts.site}"
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise NotAsked(f"{where} could not be reached: {error}") from error
    except httpx.TimeoutException as error:
        raise Unavailable(f"{where} did not answer in time") from error
    except httpx.HTTPError as error:
        raise Unavailable(f"{where} broke off: {error}") from error


def _message(answer: httpx.Response) -> str:
    try:
        return str(json.loads(answer.content)["error"]["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def _not_a_portal(hosts: Hosts) -> ConfigError:
    return ConfigError(
        f"{hosts.login_url} does not answer as a SciServer login portal does",
        fields={"site": "is not the address of a SciServer site"},
    )
