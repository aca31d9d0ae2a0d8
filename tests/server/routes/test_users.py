from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from deepforge.server.services import Services
from deepforge.settings import Secret
from server_client import error_code

PASSWORD = "correct horse"


@pytest.fixture
async def bob(app: FastAPI, services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """A user without rights, on a server that wants a login."""
    for name in ("ada", "bob"):
        await services.users.add(name, Secret(PASSWORD))
    _, token = await services.tokens.create("bob", "laptop", ["api"])
    app.state.wants_login = True
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://forge.example/api/v1",
        headers={"authorization": f"Bearer {token.reveal()}"},
    ) as client:
        yield client


async def test_accounts_are_made_listed_and_changed(http: httpx.AsyncClient) -> None:
    ada = await http.post("/users", json={"name": "ada", "password": PASSWORD})
    bob = await http.post("/users", json={"name": "bob", "password": PASSWORD})
    changed = await http.patch("/users/bob", json={"server_compute": True, "is_disabled": True})
    listed = (await http.get("/users")).json()["items"]

    assert (ada.status_code, bob.status_code, changed.status_code) == (201, 201, 200)
    assert ada.json()["is_admin"]
    assert ada.json()["server_compute"]
    assert not bob.json()["server_compute"]
    assert listed == [ada.json(), changed.json()]
    assert (listed[1]["server_compute"], listed[1]["is_disabled"]) == (True, True)
    assert "password" not in str(listed)


async def test_a_password_comes_back_in_no_answer(http: httpx.AsyncClient) -> None:
    answers = [
        await http.post("/users", json={"name": "No Name", "password": PASSWORD}),
        await http.post("/users", json={"name": "ada", "password": [PASSWORD]}),
        await http.post("/users", json={"name": "ada", "password": "hush"}),
        await http.post("/login", json={"user": "ada", "password": PASSWORD}),
    ]

    assert [one.status_code for one in answers] == [422, 422, 422, 401]
    for one in answers:
        assert PASSWORD not in one.text
        assert "hush" not in one.text


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/users", {"name": "ada", "password": PASSWORD}, 409, "already_exists"),
        ("POST", "/users", {"name": "A", "password": PASSWORD}, 422, "invalid_request"),
        ("PATCH", "/users/nobody", {"is_admin": True}, 404, "not_found"),
        ("PATCH", "/users/ada", {"name": "eve"}, 422, "invalid_request"),
        ("PATCH", "/users/ada", {"is_admin": "yes"}, 422, "invalid_request"),
        ("POST", "/users/nobody/password", {"password": PASSWORD}, 404, "not_found"),
        ("POST", "/users/ada/password", {"password": "short"}, 422, "invalid_request"),
    ],
)
async def test_wrong_requests_are_told(
    http: httpx.AsyncClient, method: str, path: str, body: object, status: int, code: str
) -> None:
    await http.post("/users", json={"name": "ada", "password": PASSWORD})
    answer = await http.request(method, path, json=body)

    assert (answer.status_code, error_code(answer)) == (status, code)


async def test_only_administrators_deal_with_accounts(bob: httpx.AsyncClient) -> None:
    answers = [
        await bob.get("/users"),
        await bob.post("/users", json={"name": "eve", "password": PASSWORD, "is_admin": True}),
        await bob.patch("/users/bob", json={"is_admin": True}),
        await bob.post("/users/ada/password", json={"password": "another horse"}),
        await bob.post("/users/bob/password", json={"password": "another horse"}),
    ]

    assert {one.status_code for one in answers} == {403}


async def test_ones_own_password_is_changed_with_the_present_one(bob: httpx.AsyncClient) -> None:
    new = "another horse"
    wrong = await bob.post("/password", json={"current": "wrong horse", "password": new})
    done = await bob.post("/password", json={"current": PASSWORD, "password": new})
    old = await bob.post("/login", json={"user": "bob", "password": PASSWORD})
    login = await bob.post("/login", json={"user": "bob", "password": new})

    assert (wrong.status_code, done.status_code) == (401, 204)
    assert (old.status_code, login.status_code) == (401, 201)
    assert (await bob.get("/projects")).status_code == 200  # the token goes on


async def test_a_disabled_user_is_out_at_the_next_request(
    bob: httpx.AsyncClient, services: Services
) -> None:
    before = await bob.get("/projects")
    await services.users.change("bob", is_disabled=True)
    after = await bob.get("/projects")
    login = await bob.post("/login", json={"user": "bob", "password": PASSWORD})

    assert (before.status_code, after.status_code, login.status_code) == (200, 401, 403)
    assert "disabled" in after.json()["error"]["message"]
