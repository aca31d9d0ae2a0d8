"""The stand-in as one HTTP server on loopback, and the control of it."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import parse_qsl

from deepforge.testing.sciserver.compute import Compute
from deepforge.testing.sciserver.faults import Fault, Faults, Kind
from deepforge.testing.sciserver.files import Files
from deepforge.testing.sciserver.jobs import Jobs
from deepforge.testing.sciserver.portal import Portal
from deepforge.testing.sciserver.wire import (
    Answer,
    Broken,
    Request,
    of_error,
    of_html,
    of_json,
    unauthenticated,
)
from deepforge.testing.sciserver.world import Users, World

REFUSED_IN_PATHS = re.compile(r"%(?:2f|5c|00)", re.IGNORECASE)
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Asked:
    """One request that came, and what it got; status 0 if the connection was broken first.

    `size_bytes` is what it carried: the body of a request, or else of the answer.
    """

    method: str
    path: str
    query: str
    status: int
    size_bytes: int = 0


class SciServer:
    """A running stand-in. Its parts may be looked at and changed while it runs."""

    def __init__(self, folder: Path, *, tick_s: float) -> None:
        self.state = World(folder)
        self.faults = Faults()
        self.jobs = Jobs(self.state, self.faults, tick_s=tick_s)
        self.portal = Portal(self.state)
        self.requests: list[Asked] = []
        self.stopped = threading.Event()
        self._files = Files(self.state)
        self._compute = Compute(self.state, self.jobs)

    @property
    def url(self) -> str:
        """Where everything is below: `/login-portal`, `/fileservice/api` and `/racm`."""
        return self.state.url

    @property
    def users(self) -> Users:
        return self.state.users

    def answer(self, request: Request) -> Answer:
        """What the service says to a request."""
        for prefix, part in (
            ("/login-portal", self.portal),
            ("/fileservice/api", self._files),
            ("/racm", self._compute),
        ):
            if request.path.startswith(f"{prefix}/"):
                return part.answer(request, request.path.removeprefix(prefix))
        if request.path.startswith("/control/"):
            return self._control(request, request.path.removeprefix("/control/"))
        return of_html(404, "404 Not Found")

    def _control(self, request: Request, name: str) -> Answer:
        """For those who started it as a process of its own."""
        try:
            match request.method, name:
                case "POST", "faults":
                    self.faults.add(**request.json())
                case "DELETE", "faults":
                    self.faults.clear()
                case "POST", "users":
                    self.users.add_user(**request.json())
                case "POST", "revoke":
                    self.users.revoke(*request.json())
                case "GET", "requests":
                    return of_json([vars(one) for one in self.requests])
                case _:
                    return of_html(404, "404 Not Found")
        except (ValueError, TypeError, KeyError) as error:
            return of_error(str(error), 400)
        return Answer(204)


@contextlib.contextmanager
def serving(folder: Path, *, port: int, tick_s: float) -> Iterator[SciServer]:
    """Serve until the block ends; then no thread, connection or job of it is left."""
    site = SciServer(folder, tick_s=tick_s)

    class Handler(_Handler):
        server_site = site

    with _Server(("127.0.0.1", port), Handler) as server:
        site.state.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="sciserver")
        thread.start()
        site.jobs.start()
        try:
            yield site
        finally:
            site.stopped.set()
            server.shutdown()
            thread.join()
            server.leave()
            site.jobs.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.connections: set[socket.socket] = set()

    def leave(self) -> None:
        """Wake those who wait for a client's next request."""
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: object) -> None:
        pass  # clients leave in the middle here


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_site: SciServer

    def setup(self) -> None:
        super().setup()
        cast("_Server", self.server).connections.add(self.connection)
        if self.server_site.stopped.is_set():  # came too late to be woken by `leave`
            self.connection.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        cast("_Server", self.server).connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def do_GET(self) -> None:
        site = self.server_site
        path, _, query = self.path.partition("?")
        path = re.sub("/+", "/", path)
        told: list[int] = []

        def tell(status: int, size_bytes: int = 0) -> None:
            """Before the answer leaves, so that a client that has it finds its request here."""
            told.append(status)
            site.requests.append(Asked(self.command, path, query, status, size_bytes))

        try:
            request = Request(
                self.command,
                path,
                dict(reversed(parse_qsl(query, keep_blank_values=True))),
                cast("Mapping[str, str]", self.headers),
                cast("BinaryIO", self.rfile),
            )
            self._handle(site, request, site.faults.take(self.command, path), tell)
        except (Broken, OSError):
            self.close_connection = True
        finally:
            if not told:
                tell(0)

    do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_GET

    def _handle(
        self,
        site: SciServer,
        request: Request,
        fault: Fault | None,
        tell: Callable[[int, int], None],
    ) -> None:
        kind: Kind | None = None if fault is None else fault.kind
        if fault is not None and kind == "quota":
            request.room_bytes = fault.after_bytes
        if fault is not None and kind == "corrupt" and request.method == "PUT":
            request.changes_byte = fault.after_bytes
        if fault is not None and kind == "reset_before":
            self._reset_on_close()
            if fault.after_bytes == 0:
                raise Broken("told to")
            request.breaks_after_bytes = fault.after_bytes
        if REFUSED_IN_PATHS.search(request.path):
            answer = of_html(400, "HTTP Status 400 – Bad Request")
        else:
            answer = (fault and self._instead(fault, request)) or site.answer(request)
        for _ in request.chunks():  # nobody wanted it
            pass
        if kind == "reset_after":
            if answer.source is not None:
                answer.source.close()
            self._reset_on_close()
            raise Broken("told to")
        if fault is not None and kind == "slow":
            site.stopped.wait(fault.after_s)
        tell(answer.status, request.read_bytes or answer.length * (self.command != "HEAD"))
        self._send(answer, fault)

    def _instead(self, fault: Fault, request: Request) -> Answer | None:
        match fault.kind:
            case "status":
                return of_html(fault.status, f"{fault.status} from the proxy")
            case "error":
                return of_error(fault.text or None)
            case "unauthorized":
                return unauthenticated(request.path)
            case "login_page":
                return of_html(200, "Log in")
            case "missing":
                return Answer(200, b"", "application/octet-stream")
        return None

    def _send(self, answer: Answer, fault: Fault | None) -> None:
        self.send_response(answer.status)
        if answer.type is not None:
            self.send_header("Content-Type", answer.type)
        if answer.status != 204:
            self.send_header("Content-Length", str(answer.length))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            if answer.source is not None:
                answer.source.close()
            return
        sent = 0
        for chunk in answer.chunks():
            for part in self._disturbed(chunk, sent, fault):
                self.wfile.write(part)
            sent += len(chunk)
        if sent < answer.length:  # the file was changed meanwhile: as the real one, say no more
            self.server_site.stopped.wait()
            self.close_connection = True

    def _disturbed(self, chunk: bytes, sent: int, fault: Fault | None) -> Iterator[bytes]:
        if fault is None:
            yield chunk
            return
        at = fault.after_bytes - sent
        is_here = 0 <= at < len(chunk)
        match fault.kind:
            case "truncate" if is_here:
                yield chunk[:at]
                self.wfile.flush()
                raise Broken("told to")
            case "hang" if is_here:
                yield chunk[:at]
                self.wfile.flush()
                self.server_site.stopped.wait()
                raise Broken("told to")
            case "corrupt" if is_here:
                yield chunk[:at] + bytes([chunk[at] ^ 1]) + chunk[at + 1 :]
            case "trickle":
                step = fault.after_bytes or 1
                for start in range(0, len(chunk), step):
                    yield chunk[start : start + step]
                    self.wfile.flush()
                    self.server_site.stopped.wait(fault.after_s)
            case _:
                yield chunk

    def _reset_on_close(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)

    def log_message(self, *_: object) -> None:
        pass
