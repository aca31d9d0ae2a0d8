"""The small HTTP client, against answers that a proper server would not send."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from certificates import Certificate, make_certificate
from deepforge.runner.addresses import WireError, split_url
from deepforge.runner.wire import Client


@contextmanager
def answering(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that sends each text to one request and closes only after the last."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                for answer in answers:
                    heard.append(connection.recv(65536))
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x", heard
        thread.join(10)
        assert not thread.is_alive()


def read(url: str, client: Client) -> tuple[int, bytes]:
    answer = client.send("GET", url)
    return answer.status, answer.read(10**6)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", (200, b"hi")),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", (200, b"until the end")),
        (b"HTTP/1.1 204 Nothing\r\n\r\n", (204, b"")),
        (b"HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 404 No\r\ncontent-length:0\r\n\r\n", (404, b"")),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2;x=y\r\nhi\r\n0\r\nT: 1\r\n\r\n",
            (200, b"hi"),
        ),
    ],
)
def test_answers_of_every_kind(answer: bytes, expected: tuple[int, bytes]) -> None:
    client = Client()
    with answering(answer) as (url, _):
        assert expected == read(url, client)
    client.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
    ],
)
def test_what_is_no_answer_is_an_error_and_never_data(answer: bytes) -> None:
    client = Client()
    with answering(answer) as (url, _), pytest.raises(WireError):
        read(url, client)
    client.close()


def test_a_connection_that_was_closed_while_idle_is_replaced() -> None:
    """The request goes out once more, on a new connection, and nobody notices."""
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    client = Client()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"

        def serve() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                connection.recv(1000)
                connection.sendall(ok)
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        assert [(200, b"hi")] * 2 == [read(url, client), read(url, client)]
        thread.join()
    client.close()


def test_an_answer_that_was_not_read_does_not_leak_into_the_next() -> None:
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst"
    client = Client()
    with answering(ok) as (one, _), answering(ok.replace(b"first", b"other")) as (other, _):
        assert 200 == client.send("GET", one).status
        assert (200, b"other") == read(other, client)
    client.close()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h/a?b=c%20d#e", (("http", "h", 80), "/a?b=c%20d")),
        ("HTTPS://h", (("https", "h", 443), "/")),
        ("http://[::1]:9/x", (("http", "::1", 9), "/x")),
        ("https://[::1]/x", (("https", "::1", 443), "/x")),
    ],
)
def test_addresses(url: str, expected: object) -> None:
    assert expected == split_url(url)


@pytest.mark.parametrize(
    "url", ["", "ftp://h/x", "h/x", "http:///x", "http://h:x/", "http://u@h/", "http://h/a b"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(WireError) as caught:
        split_url(url)

    assert not caught.value.transient


def test_a_header_cannot_smuggle_in_another() -> None:
    with pytest.raises(WireError, match="line break"):
        Client().send("GET", "http://127.0.0.1:1/", {"X": "y\r\nHost: evil"})


def test_an_untrusted_certificate_is_refused_for_good(certificate: Certificate) -> None:
    with (
        _secured(certificate, [b""]) as url,
        pytest.raises(WireError, match="not trusted") as caught,
    ):
        Client().send("GET", url)

    assert not caught.value.transient


def test_https_works_with_a_trusted_certificate(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.authority_file))
    body = b"x" * 3_000_000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + body
    client = Client()
    with _secured(certificate, [answer, answer]) as url:
        for _ in range(2):
            assert body == client.send("GET", url).read(10**7)
    client.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@contextmanager
def _secured(certificate: Certificate, answers: list[bytes]) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain_file, certificate.key_file)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
                for answer in answers:
                    secured.recv(65536)
                    secured.sendall(answer)
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/"
        thread.join()
