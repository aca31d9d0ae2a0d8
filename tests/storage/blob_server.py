"""A WebGME blob server in a thread that can be told to answer wrongly."""

from __future__ import annotations

import contextlib
import hashlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from urllib.parse import unquote

from deepforge.webgme import blobs


class BlobServer:
    """`wrong` may answer a request itself: it returns True if it did."""

    def __init__(self) -> None:
        self.url = ""
        self.wrong: Callable[[BaseHTTPRequestHandler], bool] = lambda request: False
        self.contents: dict[str, bytes] = {}
        self.metadata: dict[str, blobs.Metadata] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append((request.command, request.path, dict(request.headers)))
        if self.wrong(request):
            return
        _, _, kind, *rest = request.path.strip("/").split("/")
        if kind == "createFile":
            data = received(request)
            sha1 = hashlib.sha1(data).hexdigest()
            metadata = blobs.of_file(unquote(rest[0]), len(data), sha1)
            hash = blobs.metadata_hash(metadata)
            self.contents[sha1], self.metadata[hash] = data, metadata
            reply(request, json.dumps({hash: spelled(metadata)}).encode())
        elif rest[0] not in self.metadata:
            reply(request, b"Requested object does not exist", 404, "text/html")
        elif kind == "metadata":
            reply(request, json.dumps(spelled(self.metadata[rest[0]])).encode())
        else:
            metadata = self.metadata[rest[0]]
            reply(request, self.contents[metadata.content_hash or ""], type=metadata.mime)


@contextlib.contextmanager
def blob_server(certificate: tuple[str, str] | None = None) -> Iterator[BlobServer]:
    """Serve until the block ends; with TLS if there are a chain and a key."""
    blob = BlobServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            blob.answer(self)

        def do_POST(self) -> None:
            blob.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # clients leave in the middle here

    with Server(("127.0.0.1", 0), Handler) as server:
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "http" if certificate is None else "https"
        blob.url = f"{scheme}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield blob
        finally:
            server.shutdown()
            thread.join()


def reply(
    request: BaseHTTPRequestHandler,
    data: bytes,
    status: int = 200,
    type: str = "application/json",
    *,
    announced: int | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Answer, and announce another size than that of the data if it is given."""
    request.send_response(status)
    request.send_header("Content-Type", type)
    request.send_header("Content-Length", str(len(data) if announced is None else announced))
    for name, value in headers.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(data)
    if announced is not None:
        request.close_connection = True


def received(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("Transfer-Encoding") != "chunked":
        return request.rfile.read(int(request.headers["Content-Length"]))
    data = b""
    while size := int(request.rfile.readline(), 16):
        data += request.rfile.read(size)
        request.rfile.readline()
    request.rfile.readline()
    return data


def spelled(metadata: blobs.Metadata) -> dict[str, object]:
    return {**blobs.to_json(metadata), "lastModified": "2026-11-22T17:06:31.772Z"}
