"""Linking an account: a browser logs in at SciServer, which sends it back to us with a token."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast
from urllib.parse import parse_qs, urlsplit

from deepforge.errors import AuthError, DeepForgeError
from deepforge.sciserver.hosts import Hosts
from deepforge.sciserver.login import checked_token, login_page
from deepforge.settings import Secret

SHOWN_WITHIN_S = 5.0
"""How long a browser may take to ask for the page that says how it went."""

_PATH = "/sciserver"
_DONE_PATH = "/sciserver/linked"
"""Where the browser is sent on to: the address with the token stays in no history."""
_DONE = "SciServer is linked. You can close this page and go back to DeepForge."
_REFUSED = "This page is not the one that DeepForge waits for. Nothing was linked."


class Listener:
    """Waits on this machine for the browser that comes back. `page_url` is where it has to begin."""

    def __init__(self, page_url: str, state: str) -> None:
        self.page_url = page_url
        self._state = state
        self._came = threading.Event()
        self._shown = threading.Event()
        self._token: Secret | None = None

    def wait(self, within_s: float) -> Secret:
        """The token it brought. Raises `AuthError` when it does not come in time."""
        if not self._came.wait(within_s) or self._token is None:
            raise AuthError(
                f"nobody came back from the login page within {within_s:.0f} s",
                hint="this site may send browsers to known addresses only; "
                "log in here instead: deepforge sciserver link --password",
            )
        return self._token

    def take(self, address: str) -> bool:
        """Whether this request is the browser's; of all others nothing is believed."""
        parts = urlsplit(address)
        query = parse_qs(parts.query)
        state, token = query.get("state", [""])[0], query.get("token", [""])[0]
        if parts.path != _PATH or not secrets.compare_digest(state.encode(), self._state.encode()):
            return False
        try:
            self._token = checked_token(token)
        except DeepForgeError:
            return False
        self._came.set()
        return True

    def is_last(self, address: str) -> bool:
        """Whether this request asks for the page that says it is linked, and it is."""
        return address == _DONE_PATH and self._came.is_set()

    def note_shown(self) -> None:
        """The last page was sent."""
        self._shown.set()

    def wait_shown(self) -> None:
        """Wait until the browser that came was sent the last page, but not for long."""
        if self._came.is_set():
            self._shown.wait(SHOWN_WITHIN_S)


@contextmanager
def listening(hosts: Hosts) -> Iterator[Listener]:
    """Listen on a free port of 127.0.0.1 within the block."""
    state = secrets.token_urlsafe(24)
    with _Server(("127.0.0.1", 0), _Handler) as server:
        callback = f"http://127.0.0.1:{server.server_port}{_PATH}?state={state}"
        listener = Listener(login_page(hosts, callback), state)
        server.listener = listener
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="sciserver link")
        thread.start()
        try:
            yield listener
            listener.wait_shown()
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    """With threads, as browsers open connections beforehand on which they say nothing."""

    daemon_threads = True
    listener: Listener


class _Handler(BaseHTTPRequestHandler):
    timeout = 10  # for whoever connects and says nothing

    def do_GET(self) -> None:
        listener = cast("_Server", self.server).listener
        if listener.take(self.path):
            self._answer(303, "", Location=_DONE_PATH)
        elif listener.is_last(self.path):
            self._answer(200, _DONE)
            listener.note_shown()
        else:
            self._answer(400, _REFUSED)

    def _answer(self, status: int, said: str, **headers: str) -> None:
        text = said.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass  # the address holds the token
