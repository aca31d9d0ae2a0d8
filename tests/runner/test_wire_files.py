"""Parts of files as bodies, sent by the system where it can do that."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from certificates import Certificate, make_certificate
from deepforge.runner.addresses import WireError
from deepforge.runner.wire import Answer, Client, FilePart

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SIZE_BYTES = 9_000_001  # more than a socket holds
START = 5


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "output"
    path.write_bytes(os.urandom(START + SIZE_BYTES + 7))
    return path


@contextmanager
def taking(
    take: Callable[[socket.socket], None], context: ssl.SSLContext | None = None
) -> Iterator[str]:
    """A server that has `take` deal with its one connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with suppress(OSError):
                if context is not None:
                    connection = context.wrap_socket(connection, server_side=True)
                take(connection)
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        scheme = "http" if context is None else "https"
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/x"
        thread.join(20)
        assert not thread.is_alive()


class Taken:
    """Takes one request with a body of a known size, and answers."""

    def __init__(self, size_bytes: int) -> None:
        self.body = b""
        self._size_bytes = size_bytes

    def __call__(self, connection: socket.socket) -> None:
        data = bytearray()
        while b"\r\n\r\n" not in data:
            data += connection.recv(1000)
        head, _, rest = bytes(data).partition(b"\r\n\r\n")
        assert f"Content-Length: {self._size_bytes}".encode() in head
        body = bytearray(rest)
        while len(body) < self._size_bytes:
            body += connection.recv(1 << 20) or b"?" * self._size_bytes
        self.body = bytes(body)
        connection.sendall(OK)


def put(client: Client, url: str, part: FilePart) -> Answer:
    return client.send("PUT", url, {}, lambda: [part], part.size_bytes)


@pytest.fixture(params=["sent alone", "hashed, too"])
def part(request: pytest.FixtureRequest, file: Path) -> Iterator[FilePart]:
    """A part of the file; at the end, its hash is right if there is one."""
    sha = hashlib.sha256() if request.param == "hashed, too" else None
    yield FilePart(str(file), START, SIZE_BYTES, sha)
    if sha is not None:
        assert sha.digest() == hashlib.sha256(content(file)).digest()


def content(file: Path) -> bytes:
    return file.read_bytes()[START : START + SIZE_BYTES]


def test_the_bytes_of_the_part_arrive(file: Path, part: FilePart) -> None:
    taken = Taken(SIZE_BYTES)
    client = Client()
    with taking(taken) as url:
        assert put(client, url, part).read(10) == b"ok"
    client.close()

    assert taken.body == content(file)


def test_they_arrive_where_the_system_gives_up_in_the_middle(
    file: Path, part: FilePart, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems cannot do it."""
    calls = 0

    def sometimes(out: int, source: int, offset: int, count: int) -> int:
        nonlocal calls
        calls += 1
        if calls >= 3:
            raise OSError(22, "Invalid argument")
        return sendfile(out, source, offset, min(count, 100_000))

    sendfile = os.sendfile
    monkeypatch.setattr(os, "sendfile", sometimes)
    taken = Taken(SIZE_BYTES)
    client = Client()
    with taking(taken) as url:
        assert put(client, url, part).read(10) == b"ok"
    client.close()

    assert calls >= 3
    assert taken.body == content(file)


def test_they_arrive_over_tls(
    file: Path, part: FilePart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate: Certificate = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain_file, certificate.key_file)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.authority_file))
    taken = Taken(SIZE_BYTES)
    client = Client()
    with taking(taken, context) as url:
        assert put(client, url, part).read(10) == b"ok"
    client.close()

    assert taken.body == content(file)


def test_an_empty_part_is_sent(file: Path) -> None:
    taken = Taken(0)
    client = Client()
    with taking(taken) as url:
        assert put(client, url, FilePart(str(file), START, 0)).status == 200
    client.close()


def test_a_file_that_became_shorter_is_told_of(file: Path) -> None:
    client = Client()
    with taking(Taken(SIZE_BYTES + 100)) as url:
        with pytest.raises(OSError, match="became shorter"):
            put(client, url, FilePart(str(file), START, SIZE_BYTES + 100))
        client.close()


def test_a_server_that_answers_in_the_middle_is_heard(file: Path) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Too large\r\nContent-Length: 0\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):
            pass

    client = Client()
    with taking(refuse) as url:
        assert put(client, url, FilePart(str(file), START, SIZE_BYTES)).status == 413
        client.close()


def test_a_server_that_takes_no_more_is_given_up(file: Path) -> None:
    over = threading.Event()
    client = Client(silence_s=1.5)
    with taking(lambda connection: _wait(over)) as url:
        with pytest.raises(WireError, match="said nothing"):
            put(client, url, FilePart(str(file), START, SIZE_BYTES))
        over.set()
    client.close()


def test_a_cancel_comes_while_the_server_takes_nothing(file: Path) -> None:
    class Stopped(Exception):
        pass

    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise Stopped

    over = threading.Event()
    client = Client(check)
    with taking(lambda connection: _wait(over)) as url:
        with pytest.raises(Stopped):
            put(client, url, FilePart(str(file), START, SIZE_BYTES))
        over.set()
    client.close()


def _wait(over: threading.Event) -> None:
    over.wait(20)
