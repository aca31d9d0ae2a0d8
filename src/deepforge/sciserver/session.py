"""Calls to SciServer in a user's name: one token for all, and a password that is tried once."""

from __future__ import annotations

import asyncio
import hashlib
import json as json_text
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Self
from weakref import WeakKeyDictionary

import httpx

from deepforge.errors import (
    AuthError,
    ConfigError,
    DeepForgeError,
    InvalidRequest,
    OutcomeUnknown,
    RateLimited,
    Unavailable,
)
from deepforge.sciserver import login
from deepforge.sciserver.hosts import Hosts
from deepforge.sciserver.login import AccountLocked, NotAsked, PasswordRefused, Token
from deepforge.sciserver.refusals import known_refusals
from deepforge.settings import Secret

QUIET_S = 60.0
"""How long a service may be silent in the middle of anything."""

REST_S = 60.0
"""After how long without a call a session lets go of its connections."""

_LIMITS = httpx.Limits(max_connections=None, keepalive_expiry=3.0)
_UNCLEAR_S = 300.0
"""After a password whose fate is unknown: two of these fit into the time that three wrong ones may
not."""
_RENEWED_AT = 0.9
"""A token for a password is renewed after this part of its life, before a long upload needs it."""
_TOO_YOUNG_S = 60.0
"""A token that is refused so soon was not refused for its age: another one would not help."""


class Session:
    """One user at one site. An async context manager, for many tasks of one event loop.

    A token is given (the user linked the account), or a password, or both: the token is used as long
    as it lives. With neither, every call asks for a link. Sessions of the same user share the token
    that a password gave, and also that it was refused: a password is tried once, however many
    sessions and calls there are. `refusals.remembered_by` makes that last beyond the event loop.
    """

    def __init__(
        self,
        hosts: Hosts,
        username: str,
        password: Secret | None = None,
        token: Secret | None = None,
    ) -> None:
        self.hosts = hosts
        self.username = username
        self._password = password or None
        self._linked = None if not token else login.checked_token(token.reveal())
        self._account: _Account | None = None
        self._http: httpx.AsyncClient | None = None
        self._calls = 0
        self._rest: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._let_go()
        await asyncio.gather(*self._closing)

    @property
    def expires_at(self) -> str | None:
        """When the token at hand ends (RFC 3339 text in UTC); None before there is one.

        With a password it is renewed by then; without, the user has to link again.
        """
        held = self._account.token if self._account else None
        return held.expires_at if held else None

    @property
    def renews_itself(self) -> bool:
        """Whether there is a password: then the end of a token is no matter."""
        return self._password is not None

    async def token(self) -> str:
        """Return a token, after logging in if need be.

        Raises `AuthError(expired)`: linking again helps, also when the password was refused, which is
        not tried again. `Unavailable` when the portal does not answer.
        """
        account = self._shared()
        async with account.lock:
            if account.token is None or account.is_due(time.monotonic()):
                await _to_its_end(self._get(account))
            assert account.token is not None
            return account.token.value.reveal()

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        params: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> httpx.Response:
        """Send a request with the token, and return the answer, read.

        An answer of any status comes back but those that mean the same for every service: 401
        `AuthError(expired)` (with a password, after a new login), redirects `ConfigError`, 413
        `InvalidRequest`, 429 `RateLimited`, 502 to 504 `Unavailable`. A POST whose answer was lost,
        or that one of the latter answers, is `OutcomeUnknown`. `error_text` tells what a service
        says of its 500. `timeout_s` is for each silence, not for the whole.
        """
        more: dict[str, Any] = {"json": json, "content": content, "params": params}
        if timeout_s is not None:
            more["timeout"] = timeout_s
        for is_last in (False, True):
            try:
                async with self.stream(method, url, **more) as answer:
                    with _errors(self.hosts, method):
                        await answer.aread()
                    return answer
            except _Renewed:
                if is_last:
                    raise login.ended(self.hosts) from None
        raise AssertionError  # the last one raises or returns

    @asynccontextmanager
    async def stream(self, method: str, url: str, **more: Any) -> AsyncIterator[httpx.Response]:
        """Send a request and give its answer to be read within the block.

        Errors as for `request`, with `Unavailable` when the token ended and a new one is there: what
        was sent may be a stream that cannot be sent again. `more` is what httpx takes. Reading the
        answer needs `reading`.
        """
        token = await self.token()
        with self._called() as http:
            with _errors(self.hosts, method):
                request = http.build_request(method, url, **more)
                request.headers["X-Auth-Token"] = token
                answer = await http.send(request, stream=True)
            try:
                if answer.status_code == 401:
                    await self._refused(token)
                _check(answer, self.hosts, method)
                yield answer
            finally:
                await answer.aclose()

    def reading(self, method: str = "GET") -> Any:
        """A block in which what breaks off while an answer is read becomes one of our errors."""
        return _errors(self.hosts, method)

    @contextmanager
    def _called(self) -> Iterator[httpx.AsyncClient]:
        """The HTTP client for one call. It goes when nobody has called for a while: a session stays
        open as long as anybody may hold it, also after another link took its place."""
        if self._rest is not None:
            self._rest.cancel()
        if self._http is None:
            self._http = httpx.AsyncClient(
                headers={"Accept-Encoding": "identity", "User-Agent": "DeepForge"},
                timeout=httpx.Timeout(QUIET_S, connect=10.0, pool=None),
                limits=_LIMITS,
                follow_redirects=False,  # one leads to a login page
            )
        self._calls += 1
        try:
            yield self._http
        finally:
            self._calls -= 1
            if self._calls == 0:
                self._rest = asyncio.get_running_loop().call_later(REST_S, self._let_go)

    def _let_go(self) -> None:
        """Close the HTTP client; the next call gets another."""
        if self._rest is not None:
            self._rest.cancel()
        if self._http is not None:
            closing = asyncio.ensure_future(self._http.aclose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            self._http = None

    async def _get(self, account: _Account) -> None:
        """A token into the account, or the error that tells why there is none."""
        if self._linked is not None and not account.linked_ended:
            try:
                account.token = await login.look_at(self.hosts, self._linked)
            except AuthError:
                account.linked_ended = True
                if self._password is None:
                    raise
            else:
                if account.token.username != self.username:
                    other, account.token = account.token.username, None
                    raise ConfigError(
                        f"this token is one of the SciServer user {other!r}, not {self.username!r}",
                        fields={"username": "is not whose token this is"},
                    )
                account.renewed_at_s = None
                return
        if self._password is None:
            raise (login.ended if self._linked else login.not_linked)(self.hosts)
        await self._log_in(account, self._password)

    async def _log_in(self, account: _Account, password: Secret) -> None:
        now = time.monotonic()
        if account.refusal is not None and now < account.refused_until_s:
            raise account.refusal
        account.refusal = None
        refusals, about = known_refusals(), (self.hosts.site, self.username)
        if refusals is not None and await refusals.has(about, password):
            raise PasswordRefused(self.username)
        try:
            value = await login.log_in(self.hosts, self.username, password)
        except NotAsked:
            raise
        except PasswordRefused as error:
            account.refuse(error, float("inf"))
            if refusals is not None:
                await refusals.add(about, password)
                account.refusal = None  # who gives it anew has it forgotten there
            raise
        except AccountLocked as error:
            account.refuse(error, now + (error.minutes + 1) * 60)
            raise
        except (Unavailable, asyncio.CancelledError):
            account.refuse(
                Unavailable(
                    f"the last login of {self.username!r} to SciServer was not answered",
                    hint="the password is tried again in some minutes: wrong ones lock the account",
                ),
                now + _UNCLEAR_S,
            )
            raise
        account.token = await login.look_at(self.hosts, value)
        account.made_at_s = time.monotonic()
        account.renewed_at_s = account.made_at_s + account.token.life_s * _RENEWED_AT

    async def _refused(self, token: str) -> None:
        """Raise `_Renewed` if there is hope for another try, and else the error to tell."""
        account = self._shared()
        async with account.lock:
            held = account.token
            if held is not None and held.value.reveal() == token:
                account.token = None
                if account.renewed_at_s is None:
                    account.linked_ended = True
                elif time.monotonic() - account.made_at_s < _TOO_YOUNG_S:
                    account.token = held
                    raise login.ended(self.hosts)
        await self.token()
        raise _Renewed(f"the login to SciServer ({self.hosts.site}) had ended, and was renewed")

    def _shared(self) -> _Account:
        if self._account is None:
            password = self._password.reveal() if self._password else ""
            linked = self._linked.reveal() if self._linked else ""
            secrets = hashlib.sha256(f"{password}\0{linked}".encode()).digest()
            accounts = _ACCOUNTS.setdefault(asyncio.get_running_loop(), {})
            key = (self.hosts.site, self.username, secrets)
            self._account = accounts.setdefault(key, _Account())
        return self._account


class _Account:
    """What the sessions of one user with the same secrets share."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.token: Token | None = None
        self.made_at_s = 0.0
        self.renewed_at_s: float | None = None  # None: the token is the user's, not for a password
        self.linked_ended = False
        self.refusal: AuthError | Unavailable | None = None
        self.refused_until_s = 0.0

    def is_due(self, now_s: float) -> bool:
        return self.renewed_at_s is not None and now_s > self.renewed_at_s

    def refuse(self, error: AuthError | Unavailable, until_s: float) -> None:
        self.refusal, self.refused_until_s = error, until_s


_ACCOUNTS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str, bytes], _Account]] = (
    WeakKeyDictionary()
)


class _Renewed(Unavailable):
    """The token had ended; there is a new one."""


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do it also when the caller is cancelled, who is told then: a password that was sent counts
    there, and what became of it must be known to all who need it."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        with suppress(DeepForgeError):
            await task
        raise


def error_text(answer: httpx.Response) -> str | None:
    """What a service says of an error (an answer that was read); None if it says nothing."""
    try:
        text = json_text.loads(answer.content)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return text if isinstance(text, str) and text else None


def json_of(answer: httpx.Response) -> Any:
    """Read an answer as JSON. A login page in its place is a `ConfigError`, else `Unavailable`."""
    where = answer.request.url.copy_with(query=None)
    try:
        return json_text.loads(answer.content)
    except (ValueError, RecursionError) as error:
        if "text/html" in answer.headers.get("content-type", ""):
            raise ConfigError(
                f"{where} answered with a web page in place of data",
                fields={"site": "is not the address of a SciServer site"},
                hint="is there a login page or a proxy in between?",
            ) from error
        raise Unavailable(f"{where} answered with something that is not JSON") from error


def _check(answer: httpx.Response, hosts: Hosts, method: str) -> None:
    status = answer.status_code
    where = f"{hosts.site} answered {status}"
    if 300 <= status < 400:
        raise ConfigError(
            f"{where}: it leads elsewhere",
            fields={"site": "is not the address of a SciServer site"},
        )
    if status == 413:
        raise InvalidRequest(f"{where}: what was sent is too large for this site")
    if status == 429:
        raise RateLimited(f"{where}: it wants fewer requests", retry_after_s=_retry_after_s(answer))
    if status in (502, 503, 504):
        raise (OutcomeUnknown if method == "POST" else Unavailable)(where)


def _retry_after_s(answer: httpx.Response) -> float | None:
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isdecimal() else None


class _errors:
    """Turns what the HTTP client raises into our errors."""

    def __init__(self, hosts: Hosts, method: str) -> None:
        self._site, self._method = hosts.site, method

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, httpx.HTTPError | httpx.InvalidURL):
            return
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            raise Unavailable(f"{self._site} could not be reached: {error}") from error
        lost = OutcomeUnknown if self._method == "POST" else Unavailable
        if isinstance(error, httpx.TimeoutException):
            raise lost(f"{self._site} did not answer in time") from error
        raise lost(f"the connection to {self._site} broke off: {error}") from error
