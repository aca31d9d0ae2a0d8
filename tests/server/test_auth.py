from __future__ import annotations

import pytest
from starlette.requests import HTTPConnection

from deepforge.errors import AuthError, Forbidden
from deepforge.server.auth import Access, Principal, is_loopback
from deepforge.settings import Secret

TOKEN = Secret("correct horse battery staple")


def connection(**headers: str) -> HTTPConnection:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return HTTPConnection({"type": "http", "headers": raw})


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:80", "127.9.9.9"]
)
def test_a_local_request_is_the_owners(host: str) -> None:
    assert Access().admit(connection(host=host)) == Principal("local")


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1:80",
     "[::1", "evil.example#127.0.0.1", "evil@127.0.0.1.x", "0.0.0.0", "\xe9\xe9"],
)  # fmt: skip
def test_a_foreign_host_header_is_refused(host: str) -> None:
    """A page of another site whose name was rebound to 127.0.0.1 sends its own name."""
    with pytest.raises(Forbidden, match="on its own machine only"):
        Access().admit(connection(host=host))


def test_a_request_without_a_host_header_is_refused() -> None:
    with pytest.raises(Forbidden):
        Access().admit(connection())


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8000", "", "x[",
     "http://[::1"],
)  # fmt: skip
def test_a_page_of_another_origin_is_refused(origin: str) -> None:
    with pytest.raises(Forbidden, match="pages of"):
        Access().admit(connection(host="127.0.0.1:8000", origin=origin))


def test_our_own_page_is_served() -> None:
    headers = {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}

    assert Access().admit(connection(**headers)).owner == "local"


def test_with_a_token_only_its_bearer_is_admitted_from_anywhere() -> None:
    access = Access(TOKEN)
    headers = {"host": "forge.example", "authorization": f"Bearer {TOKEN.reveal()}"}

    assert access.admit(connection(**headers)).owner == "local"


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic correct horse battery staple", "Bearer correct horse",
     "Bearer correct horse battery staple!", "Bearer \xe9", "correct horse battery staple"],
)  # fmt: skip
def test_a_wrong_token_is_refused_even_on_this_machine(header: str) -> None:
    with pytest.raises(AuthError):
        Access(TOKEN).admit(connection(host="127.0.0.1", authorization=header))


def test_loopback_addresses_are_known() -> None:
    assert all(map(is_loopback, ["localhost", "localhost.", "127.0.0.1", "::1", "[::1]"]))
    assert not any(map(is_loopback, ["", "0.0.0.0", "::", "192.168.1.1", "example.com"]))
