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

_PATH = "/sciserver"
_DONE = "SciServer is linked. You can close this page and go back to DeepForge."
_REFUSED = "This page is not the one that DeepForge waits for. Nothing was linked."


class Listener:
    """Waits on this machine for the browser that comes back. `page_url` is where it has to begin."""

    def __init__(self, page_url: str, state: str) -> None:
        self.page_url = page_url
        self._state = state
        self._came = threading.Event()
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
        is_ours = cast("_Server", self.server).listener.take(self.path)
        text = (_DONE if is_ours else _REFUSED).encode()
        self.send_response(200 if is_ours else 400)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass  # the address holds the token
