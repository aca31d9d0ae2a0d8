"""A real HTTP server in a thread: granted objects, and our side of the job channel."""

from __future__ import annotations

import json
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from deepforge.runner.protocol import Channel, Grant, Job, to_json

TOKEN = "one-attempt-only"
ATTEMPT = "/api/v1/attempts/e-op-1"


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request: a status instead, or a body cut after some bytes."""

    status: int | None = None
    body: bytes = b""
    cut_after: int | None = None
    whole: bytes | None = None
    """Other content than was stored, under a perfect answer."""


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class FarServer:
    """Objects under `/objects/…`; `faults[path]` go wrong first, in order."""

    objects: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    requests: list[Request] = field(default_factory=list)
    answers: dict[str, Callable[[Request], tuple[int, Any]]] = field(default_factory=dict)
    chunked: bool = False
    ranges: bool = True
    log: bytearray = field(default_factory=bytearray)
    job: Job | None = None
    port: int = 0

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.far = self
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.close_connections()
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def granted(self, key: str, method: str, **more: Any) -> Grant:
        return Grant("http", method, url=f"{self.address}/objects/{key}", **more)

    def channel(self, **more: Any) -> Channel:
        return Channel(url=self.address + ATTEMPT, token=TOKEN, **more)

    def fail(self, path: str, *faults: Fault) -> None:
        self.faults[path].extend(faults)

    def asked(self, path: str, method: str | None = None) -> list[Request]:
        """The requests to a path so far."""
        return [
            one
            for one in list(self.requests)
            if one.path.split("?")[0] == path and method in (None, one.method)
        ]

    def called(self, path: str) -> list[Request]:
        """The requests to a path of the channel so far."""
        return self.asked(ATTEMPT + path)

    def answer(self, request: Request) -> tuple[int, Any]:
        """Answer as our server does: the channel of one attempt."""
        path = request.path.split("?")[0][len(ATTEMPT) :]
        if path in self.answers:
            return self.answers[path](request)
        if path == "/start":
            assert self.job is not None
            return 200, json.loads(to_json(self.job))
        if path == "/log":
            start = int(request.path.partition("start=")[2])
            if start <= len(self.log):
                self.log[start:] = request.body
            return 200, {"cancel": False}
        if path == "/heartbeat":
            return 200, {"cancel": False}
        return 200, {}


class HangingUpServer(ThreadingHTTPServer):
    """A server that can close all its connections, as one that is killed does, and that does not
    mind clients who go away in the middle: some tests are about them."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, *arguments: Any) -> None:
        self.open: set[Any] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        for request in list(self.open):
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class _Server(HangingUpServer):
    far: FarServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    disable_nagle_algorithm = True

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._object(self._received())

    def do_PUT(self) -> None:
        request = self._received(read=not self._fault_is_early())
        self._object(request)

    def do_POST(self) -> None:
        request = self._received()
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return self._answer(401, b"no such token")
        status, value = self.server.far.answer(request)
        return self._answer(
            status, value if isinstance(value, bytes) else json.dumps(value).encode()
        )

    def _received(self, read: bool = True) -> Request:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length) if read else b""
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, body)
        self.server.far.requests.append(request)
        return request

    def _fault_is_early(self) -> bool:
        faults = self.server.far.faults[urlsplit(self.path).path]
        return bool(faults) and faults[0].cut_after is not None

    def _object(self, request: Request) -> None:
        far, path = self.server.far, urlsplit(self.path).path
        key = unquote(path).removeprefix("/objects/")
        fault = far.faults[path].popleft() if far.faults[path] else Fault()
        if fault.status is not None:
            return self._answer(fault.status, fault.body)
        if self.command == "PUT":
            if fault.cut_after is not None:
                self.rfile.read(fault.cut_after)
                self.close_connection = True
                return None
            far.objects[key] = request.body
            return self._answer(200, b"", ETag=f'"{len(request.body)}-{key}"')
        data = far.objects.get(key) if fault.whole is None else fault.whole
        if data is None:
            return self._answer(404, b"NoSuchKey")
        return self._give(data, fault)

    def _give(self, data: bytes, fault: Fault) -> None:
        start = 0
        asked = self.headers.get("range")
        if asked and self.server.far.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        rest = data[start:]
        if self.server.far.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for begin in range(0, len(rest), 5000):
                piece = rest[begin : begin + 5000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if fault.cut_after is not None:
            self.wfile.write(rest[: fault.cut_after])
            self.close_connection = True
        else:
            self.wfile.write(rest)

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
