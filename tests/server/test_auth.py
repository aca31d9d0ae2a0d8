from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request

from deepforge.accounts.model import Scope
from deepforge.errors import AuthError, Forbidden
from deepforge.server.auth import (
    LOCAL,
    Principal,
    admin_caller,
    admit,
    api_caller,
    is_loopback,
    worker_caller,
)
from deepforge.server.services import Services
from deepforge.settings import Secret

PASSWORD = Secret("correct horse battery staple")
Connect = Callable[..., HTTPConnection]


@pytest.fixture
def local(services: Services) -> Connect:
    """Makes a connection to a server that only this machine can reach."""
    return _connect(services, wants_login=False)


@pytest.fixture
def public(services: Services) -> Connect:
    """Makes a connection to a server that others can reach."""
    return _connect(services, wants_login=True)


def _connect(services: Services, *, wants_login: bool) -> Connect:
    app = Starlette()
    app.state.services = services
    app.state.wants_login = wants_login

    def connection(**headers: str) -> HTTPConnection:
        raw = [
            (name.replace("_", "-").encode(), value.encode("latin-1"))
            for name, value in headers.items()
        ]
        return Request({"type": "http", "headers": raw, "app": app})

    return connection


async def make_token(services: Services, user: str = "ada", *scopes: Scope) -> str:
    """A token of a user who is made for it; the first is an administrator."""
    await services.users.add(user, PASSWORD)
    _, text = await services.tokens.create(user, "test", scopes or ["api"])
    return text.reveal()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:80", "127.9.9.9"]
)
async def test_a_local_request_is_the_local_users(local: Connect, host: str) -> None:
    found = await admit(local(host=host))

    assert found == LOCAL == Principal("local", is_admin=True, scopes=frozenset({"api", "worker"}))


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1:80",
     "[::1", "evil.example#127.0.0.1", "evil@127.0.0.1.x", "0.0.0.0", "\xe9\xe9"],
)  # fmt: skip
async def test_a_foreign_host_header_is_refused(local: Connect, host: str) -> None:
    """A page of another site whose name was rebound to 127.0.0.1 sends its own name."""
    with pytest.raises(Forbidden, match="on its own machine only"):
        await admit(local(host=host))


async def test_a_request_without_a_host_header_is_refused(local: Connect) -> None:
    with pytest.raises(Forbidden):
        await admit(local())


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8000", "", "x[",
     "http://[::1"],
)  # fmt: skip
async def test_a_page_of_another_origin_is_refused(local: Connect, origin: str) -> None:
    with pytest.raises(Forbidden, match="pages of"):
        await admit(local(host="127.0.0.1:8000", origin=origin))


async def test_our_own_page_is_served(local: Connect) -> None:
    found = await admit(local(host="127.0.0.1:8000", origin="http://127.0.0.1:8000"))

    assert found == LOCAL


@pytest.mark.parametrize("header", ["authorization", "x_api_token"])
async def test_without_any_account_a_local_server_passes_over_tokens(
    local: Connect, header: str
) -> None:
    found = await admit(local(host="127.0.0.1", **{header: "Bearer df_nonsense"}))

    assert found == LOCAL


async def test_once_there_are_accounts_a_token_must_be_one_also_on_this_machine(
    local: Connect, services: Services
) -> None:
    token = await make_token(services)

    assert (await admit(local(host="127.0.0.1"))).owner == "local"
    assert (await admit(local(host="127.0.0.1", x_api_token=token))).owner == "ada"
    with pytest.raises(AuthError):
        await admit(local(host="127.0.0.1", x_api_token="df_nonsense"))


async def test_a_token_does_not_open_a_local_server_to_foreign_pages(
    local: Connect, services: Services
) -> None:
    token = await make_token(services)

    with pytest.raises(Forbidden):
        await admit(local(host="evil.example", x_api_token=token))


@pytest.mark.parametrize("spelled", ["Bearer {}", "bearer {}", "BEARER  {} "])
async def test_a_public_server_admits_a_bearer_from_anywhere(
    public: Connect, services: Services, spelled: str
) -> None:
    token = await make_token(services)
    found = await admit(public(host="forge.example", authorization=spelled.format(token)))

    assert found == Principal("ada", is_admin=True, scopes=frozenset({"api"}))


async def test_workers_may_send_the_same_token_in_their_own_header(
    public: Connect, services: Services
) -> None:
    token = await make_token(services)

    assert (await admit(public(x_api_token=f" {token} "))).owner == "ada"


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic {}", "Bearer {}x", "Bearer x{}", "Bearer \xe9", "{}",
     "Bearer df_", "Token {}"],
)  # fmt: skip
async def test_anything_but_a_token_is_refused_even_on_this_machine(
    public: Connect, services: Services, header: str
) -> None:
    token = await make_token(services)

    with pytest.raises(AuthError):
        await admit(public(host="127.0.0.1", authorization=header.format(token)))


async def test_no_header_at_all_says_how_to_get_a_token(public: Connect) -> None:
    with pytest.raises(AuthError, match="no access token") as caught:
        await admit(public(host="127.0.0.1"))

    assert "deepforge login" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("scope", "may"), [("api", {"api", "worker"}), ("worker", {"worker"})], ids=["api", "worker"]
)
async def test_what_a_token_is_good_for(
    public: Connect, services: Services, scope: Scope, may: set[str]
) -> None:
    token = await make_token(services, "ada", scope)
    doors: dict[str, Callable[[Request], Awaitable[Principal]]] = {
        "api": api_caller,
        "worker": worker_caller,
    }
    opened = set()
    for name, door in doors.items():
        request = public(x_api_token=token)
        assert isinstance(request, Request)
        try:
            await door(request)
            opened.add(name)
        except Forbidden:
            pass

    assert opened == may


async def test_only_administrators_pass_for_administrators(
    public: Connect, services: Services
) -> None:
    ada = public(x_api_token=await make_token(services, "ada"))
    bob = public(x_api_token=await make_token(services, "bob"))
    assert isinstance(ada, Request)
    assert isinstance(bob, Request)

    assert (await admin_caller(ada)).owner == "ada"
    with pytest.raises(Forbidden, match="administrators"):
        await admin_caller(bob)


def test_loopback_addresses_are_known() -> None:
    assert all(map(is_loopback, ["localhost", "localhost.", "127.0.0.1", "::1", "[::1]"]))
    assert not any(map(is_loopback, ["", "0.0.0.0", "::", "192.168.1.1", "example.com"]))
