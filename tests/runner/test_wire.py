"""The small HTTP client, against answers that a proper server would not send."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deepforge.runner.wire import Client, WireError, split_url


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


def test_an_untrusted_certificate_is_refused_for_good(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    import ssl

    x509 = pytest.importorskip("cryptography.x509")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_self_signed(x509, tmp_path_factory.mktemp("tls") / "pem"))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            try:
                context.wrap_socket(connection, server_side=True).close()
            except (ssl.SSLError, OSError):
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(WireError, match="not trusted") as caught:
            Client().send("GET", f"https://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join()

    assert not caught.value.transient


def test_https_works_with_a_trusted_certificate(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ssl

    x509 = pytest.importorskip("cryptography.x509")
    pem = _self_signed(x509, tmp_path_factory.mktemp("tls") / "pem")
    monkeypatch.setenv("SSL_CERT_FILE", pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    body = b"x" * 3_000_000
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with context.wrap_socket(connection, server_side=True) as secured:
                for _ in range(2):
                    secured.recv(65536)
                    secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + body)

        thread = threading.Thread(target=serve)
        thread.start()
        client = Client()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        for _ in range(2):
            assert body == client.send("GET", url).read(10**7)
        client.close()
        thread.join()


def _self_signed(x509: object, path: object) -> str:
    import datetime
    import ipaddress
    from pathlib import Path

    from cryptography import x509 as made
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = made.Name([made.NameAttribute(NameOID.COMMON_NAME, "here")])
    now = datetime.datetime.now(datetime.UTC)
    place = made.SubjectAlternativeName([made.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        made.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(made.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(place, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    target = Path(str(path))
    target.write_bytes(pem)
    return str(target)
