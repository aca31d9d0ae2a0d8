"""Calling the server: the executor and blob protocols, one connection for each thread."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, Callable, Dict, Mapping, Optional, Union
from urllib.parse import quote

from deepforge.runner.addresses import WireError, split_url
from deepforge.runner.files import blocks
from deepforge.runner.wire import Answer, Client
from deepforge.worker.trouble import NotAdmitted, Refused, Trouble

LONGEST_ANSWER = 64 * 1024 * 1024
_REFUSALS = (400, 404, 405, 406, 409, 410, 411, 413, 415, 422)

Token = Callable[[], Optional[str]]
"""The access token to use now: it may be replaced while the worker runs."""


class Line:
    """One thread's way of calling one server. Raises `Trouble` and `Refused`, nothing else.

    `check` is called about every second while waiting; what it raises ends the exchange.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        check: Callable[[], None] = lambda: None,
        silence_s: float = 60.0,
    ) -> None:
        self._url = url.rstrip("/")
        self._token = token
        loopback = split_url(self._url)[0][1] in ("127.0.0.1", "localhost", "::1")
        self._client = Client(check, proxied=not loopback, silence_s=silence_s)

    def close(self) -> None:
        self._client.close()

    def ask(
        self, method: str, path: str, body: Any = None, headers: Optional[Mapping[str, str]] = None
    ) -> Dict[str, Any]:
        """Send JSON and return the object that was answered."""
        data = None if body is None else json.dumps(body).encode("utf-8")
        asked = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            **(headers or {}),
        }
        answer = self._send(method, path, asked, data)
        return self._object(path, self._read(answer))

    def tell(self, path: str, body: Any) -> None:
        """POST JSON; whatever a good answer says is fine."""
        data = json.dumps(body).encode("utf-8")
        answer = self._send("POST", path, {"Content-Type": "application/json"}, data)
        self._read(answer)
        if answer.headers.get("content-type", "").startswith("text/html"):
            raise _web_page(path)

    def upload(self, path: str, file: str) -> Dict[str, Any]:
        """POST a file as a blob and return the object that was answered."""
        size_bytes = os.stat(file).st_size
        headers = {"Content-Type": "application/octet-stream"}
        answer = self._send(
            "POST", path, headers, lambda: blocks(file, 0, size_bytes), size_bytes=size_bytes
        )
        return self._object(path, self._read(answer))

    def upload_bytes(self, path: str, data: bytes) -> Dict[str, Any]:
        """As `upload`, of what is in memory."""
        answer = self._send("POST", path, {"Content-Type": "application/octet-stream"}, data)
        return self._object(path, self._read(answer))

    def download(self, path: str, target: str, *, magic: bytes = b"") -> str:
        """Stream a body into a file and return its SHA-1. Raises `OSError` for what the disk says.

        A body that does not begin with `magic` while it claims to be a web page is `Trouble`.
        """
        answer = self._send("GET", path, {}, None)
        sha, first = hashlib.sha1(), True
        try:
            with open(target, "wb", buffering=0) as file:
                while True:
                    count = answer.readinto(self._client.block)
                    if count == 0:
                        return sha.hexdigest()
                    piece = self._client.block[:count]
                    if first and answer.headers.get("content-type", "").startswith("text/html"):
                        if not bytes(piece[: len(magic)]) == magic:
                            raise _web_page(path)
                    first = False
                    sha.update(piece)
                    while len(piece):
                        piece = piece[file.write(piece) :]
        except WireError as error:
            raise Trouble("%s: %s" % (path, error)) from error
        finally:
            if not answer.ended:
                self._client.close()

    def fetch(self, path: str) -> bytes:
        """GET something small as it is."""
        return self._read(self._send("GET", path, {}, None))

    def _send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Union[bytes, Callable[[], Any], None],
        size_bytes: Optional[int] = None,
    ) -> Answer:
        asked = dict(headers)
        token = self._token()
        if token:
            asked["x-api-token"] = token
        try:
            answer = self._client.send(method, self._url + path, asked, body, size_bytes)
            if answer.status in (200, 201, 202, 204):
                return answer
            said = answer.read(500).decode("utf-8", "replace")
        except WireError as error:
            raise Trouble("%s" % error) from error
        if not answer.ended:
            self._client.close()
        told = "%s answered %d: %s" % (path, answer.status, _told(said))
        if answer.status in (401, 403) or 300 <= answer.status < 400:
            raise NotAdmitted("the server does not accept the token (%d)" % answer.status)
        if answer.status in _REFUSALS:
            raise Refused(told, answer.status)
        raise Trouble(told, answered=True)

    def _read(self, answer: Answer) -> bytes:
        try:
            data = answer.read(LONGEST_ANSWER)
        except WireError as error:
            raise Trouble("%s" % error) from error
        return data

    def _object(self, path: str, data: bytes) -> Dict[str, Any]:
        try:
            value = json.loads(data.decode("utf-8"))
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise _web_page(path)
        return value


def segment(text: str) -> str:
    """One piece of a path, however odd the text."""
    return quote(text, safe="")


def _told(said: str) -> str:
    """What an answer says went wrong: in the words of our server, or whatever it is."""
    try:
        error = json.loads(said)["error"]
        message, hint = str(error["message"]), error["hint"]
    except (ValueError, LookupError, TypeError):
        return said.strip() or "nothing more"
    return "%s (%s)" % (message, hint) if hint else message


def _web_page(path: str) -> Trouble:
    return Trouble(
        "%s was answered with something else than was asked for: is the URL that of the server, "
        "or does a proxy or a login page stand before it?" % path,
        answered=True,
    )
