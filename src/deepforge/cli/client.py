"""A plain blocking client of the HTTP API: to a server, or to the same app in this process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from deepforge.errors import (
    AuthError,
    ConfigError,
    DeepForgeError,
    InvalidRequest,
    NotSupported,
    Unavailable,
)

URL_VARIABLE = "DEEPFORGE_URL"
TOKEN_VARIABLE = "DEEPFORGE_TOKEN"

_QUIET_S = 60.0
"""Longer than a server may stay silent: a stream of events says something every 10 s."""


class Client:
    """Calls the API and raises the errors of `deepforge.errors` that its answers spell.

    `where` names the server in messages. `embedded` is true when it lives and ends with us.
    """

    def __init__(self, http: httpx.Client, *, where: str, embedded: bool) -> None:
        self._http = http
        self.where = where
        self.embedded = embedded

    def must_outlive_us(self) -> None:
        """Raise `InvalidRequest` if the server ends when this command does."""
        if self.embedded:
            raise InvalidRequest(
                "--detach needs a server that goes on without this command",
                hint=f"start one with `deepforge start` and set {URL_VARIABLE}",
            )

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON of the answer. A parameter that is None is left out."""
        return self._call("GET", path, params=_present(query))

    def post(
        self,
        path: str,
        body: Any = None,
        *,
        content: bytes | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """Send JSON, or `content` as it is. `timeout_s` is for answers that take their time."""
        request: dict[str, Any] = {"content": content}
        if content is None:
            request = {"json": body if body is not None else {}}
        if timeout_s is not None:
            request["timeout"] = timeout_s
        return self._call("POST", path, **request)

    def put(
        self,
        path: str,
        content: bytes | Iterator[bytes],
        *,
        size_bytes: int | None = None,
        **query: Any,
    ) -> Any:
        """Send bytes, all at once or piece by piece. With `size_bytes` the server knows beforehand how
        many there are: what does not fit is refused before it is sent."""
        headers = {} if size_bytes is None else {"Content-Length": str(size_bytes)}
        params = _present(query)
        return self._call("PUT", path, params=params, content=content, headers=headers)

    def patch(self, path: str, body: Any) -> Any:
        """Send JSON that changes a part of something."""
        return self._call("PATCH", path, json=body)

    def delete(self, path: str, **query: Any) -> None:
        self._call("DELETE", path, params=_present(query))

    def items(
        self, path: str, *, most: int | None = None, **query: Any
    ) -> Iterator[dict[str, Any]]:
        """Give the items of a list, page after page, `most` of them at most."""
        after: str | None = None
        left = most
        while left is None or left > 0:
            limit = 1000 if left is None else min(left, 1000)
            page = self.get(path, **query, after=after, limit=limit)
            yield from page["items"]
            after = page["next"]
            if after is None:
                return
            left = None if left is None else left - len(page["items"])

    @contextmanager
    def download(self, path: str, **query: Any) -> Iterator[httpx.Response]:
        """Open an answer whose body is read piece by piece within the block."""
        with self._errors(), self._http.stream("GET", path, params=_present(query)) as response:
            self._check(response)
            yield response

    def events(
        self, execution: str, *, logs: bool = True, whole_logs: bool = False
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Follow an execution: the kind and the data of each event, until its end.

        Without `whole_logs`, of a long log that was stored before only the last MiB comes; without
        `logs`, nothing of any. Raises `Unavailable` when the stream breaks off.
        """
        path = f"/executions/{execution}/events"
        asked = {"logs": str(logs).lower(), "whole_logs": str(whole_logs).lower()}
        with self.download(path, **asked) as response:
            kind = ""
            for line in _lines(response):
                name, _, value = line.partition(b": ")
                if name == b"event":
                    kind = value.decode()
                elif name == b"data":
                    yield kind, json.loads(value)
                    if kind == "end":
                        return
        raise Unavailable(f"{self.where} stopped sending events")

    def _call(self, method: str, path: str, **request: Any) -> Any:
        with self._errors():
            response = self._http.request(method, path, **request)
        self._check(response)
        if not response.content:
            return None
        if response.headers.get("content-type", "").startswith("application/json"):
            return response.json()
        raise self._not_ours(response)

    def _check(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        response.read()
        try:
            error = response.json()["error"]
            code, message = str(error["code"]), str(error["message"])
        except (ValueError, KeyError, TypeError) as cause:
            raise self._not_ours(response) from cause
        raise spelled_error(code, message, error.get("hint"), error.get("details") or {})

    def _not_ours(self, response: httpx.Response) -> DeepForgeError:
        kind = Unavailable if response.status_code >= 500 else ConfigError
        return kind(
            f"{self.where} answered {response.status_code} in a way no DeepForge server does",
            hint=None if self.embedded else f"check {URL_VARIABLE}",
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            hint = None if self.embedded else f"is the server running? check {URL_VARIABLE}"
            reason = str(error) or type(error).__name__
            raise Unavailable(f"{self.where} does not answer: {reason}", hint=hint) from error


@contextmanager
def connect(*, driving: bool = False) -> Iterator[Client]:
    """Open the client that the environment asks for.

    With `DEEPFORGE_URL` it speaks to that server. Without, the app runs embedded in this process for
    as long as the block; it moves executions on only if `driving`.
    """
    url = os.environ.get(URL_VARIABLE)
    if not url:
        from deepforge.cli.embedded import embedded_transport

        with (
            embedded_transport(driving=driving) as transport,
            httpx.Client(
                transport=transport, base_url="http://127.0.0.1/api/v1", timeout=None
            ) as http,
        ):
            yield Client(http, where="the embedded server", embedded=True)
        return
    with _remote(url) as http:
        yield Client(http, where=f"the server {url}", embedded=False)


def _remote(url: str) -> httpx.Client:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"{URL_VARIABLE} is not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(
            f"{URL_VARIABLE} is not the address of a server: {url!r}",
            hint="such as http://127.0.0.1:8000",
        )
    if parsed.userinfo:
        raise ConfigError(
            f"{URL_VARIABLE} holds a user name or password, which would be shown",
            hint=f"put the access token of the server in {TOKEN_VARIABLE}",
        )
    headers = {}
    if token := os.environ.get(TOKEN_VARIABLE, "").strip():
        if not token.isascii() or not token.isprintable():
            raise AuthError(f"{TOKEN_VARIABLE} holds characters that no token has")
        headers["Authorization"] = f"Bearer {token}"
    return httpx.Client(
        base_url=url.rstrip("/") + "/api/v1",
        headers=headers,
        timeout=httpx.Timeout(_QUIET_S, connect=10),
        follow_redirects=False,
    )


def spelled_error(
    code: str, message: str, hint: str | None, details: Mapping[str, Any]
) -> DeepForgeError:
    """Make the error that an answer spells. One of a newer server becomes a plain one."""
    kind = _kinds().get(code, DeepForgeError)
    try:
        if issubclass(kind, NotSupported):
            return kind(details["capability"], details["reason"], hint=hint)
        error: DeepForgeError = kind(message, hint=hint, **details)
    except (TypeError, KeyError):
        return DeepForgeError(message, hint=hint)
    return error


def _lines(response: httpx.Response) -> Iterator[bytes]:
    """Split at line feeds alone: JSON may hold other characters that Python takes for line ends."""
    rest = b""
    for chunk in response.iter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def _kinds() -> dict[str, type[Any]]:  # constructors of several shapes
    found: dict[str, type[Any]] = {}
    waiting: list[type[DeepForgeError]] = [DeepForgeError]
    while waiting:
        kind = waiting.pop()
        if (
            kind.__module__ == DeepForgeError.__module__
        ):  # elsewhere some are refined for their place
            found[kind.code] = kind
            waiting += kind.__subclasses__()
    return found


def _present(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}
