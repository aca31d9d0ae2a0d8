from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

import httpx
import pytest
from fastapi import FastAPI

from deepforge.accounts.throttle import FREE_TRIES
from deepforge.server.services import Services
from deepforge.settings import Secret
from server_client import error_code

PASSWORD = "correct horse"


@pytest.fixture
async def forge(app: FastAPI, services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a token, of a server with the users ada, an administrator, and bob."""
    for name in ("ada", "bob"):
        await services.users.add(name, Secret(PASSWORD))
    app.state.wants_login = True
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://forge.example/api/v1"
    ) as client:
        yield client


async def login(forge: httpx.AsyncClient, user: str = "ada", **more: object) -> str:
    answer = await forge.post("/login", json={"user": user, "password": PASSWORD, **more})
    assert answer.status_code == 201, answer.text
    token: str = answer.json()["token"]
    return token


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_a_password_gives_a_token_that_opens_the_api(forge: httpx.AsyncClient) -> None:
    token = await login(forge, "bob", name="laptop", days=7)
    (listed,) = (await forge.get("/tokens", headers=bearer(token))).json()["items"]

    assert (listed["user"], listed["name"], listed["scopes"]) == ("bob", "laptop", ["api"])
    assert listed["last_used_at"] is not None
    made, ends = (datetime.fromisoformat(listed[key]) for key in ("created_at", "expires_at"))
    assert (ends - made).days == 7
    assert token not in str(listed)


async def test_logins_without_a_name_each_get_one(forge: httpx.AsyncClient) -> None:
    tokens = [await login(forge) for _ in range(2)]
    listed = (await forge.get("/tokens", headers=bearer(tokens[1]))).json()["items"]

    assert len({one["name"] for one in listed}) == 2
    assert all(one["name"].startswith("login-") for one in listed)


async def test_who_keeps_guessing_is_told_how_long_to_wait(forge: httpx.AsyncClient) -> None:
    wrong = {"user": "ada", "password": "wrong horse"}
    answers = [await forge.post("/login", json=wrong) for _ in range(FREE_TRIES + 1)]

    assert [one.status_code for one in answers] == [401] * FREE_TRIES + [429]
    assert answers[-1].headers["retry-after"] == "1"
    assert len({one.text for one in answers[:-1]}) == 1
    await login(forge, "bob")


async def test_an_unknown_user_gets_the_same_answer_as_a_wrong_password(
    forge: httpx.AsyncClient,
) -> None:
    answers = [
        await forge.post("/login", json={"user": user, "password": "wrong horse"})
        for user in ("ada", "nobody", "", "../../etc", "\0", "x" * 10_000)
    ]

    assert {one.status_code for one in answers} == {401}
    assert len({one.text for one in answers}) == 1


async def test_tokens_are_made_listed_and_revoked(forge: httpx.AsyncClient) -> None:
    mine = bearer(await login(forge, "bob", name="first"))
    body = {"name": "gpu", "scopes": ["worker"], "days": 1}
    made = await forge.post("/tokens", json=body, headers=mine)
    worker = {"x-api-token": made.json()["token"]}
    used = await forge.get("http://forge.example/rest/executor", headers=worker)
    gone = await forge.delete("/tokens/gpu", headers=mine)
    refused = await forge.get("http://forge.example/rest/executor", headers=worker)
    left = (await forge.get("/tokens", headers=mine)).json()["items"]

    assert (made.status_code, used.status_code, gone.status_code) == (201, 200, 204)
    assert refused.status_code == 401
    assert [one["name"] for one in left] == ["first"]


async def test_an_administrator_deals_with_the_tokens_of_others(forge: httpx.AsyncClient) -> None:
    ada, bob = bearer(await login(forge)), bearer(await login(forge, "bob", name="theirs"))
    his = {"user": "bob"}
    made = await forge.post("/tokens", params=his, json={"name": "gpu"}, headers=ada)
    listed = (await forge.get("/tokens", params=his, headers=ada)).json()["items"]
    await forge.delete("/tokens/theirs", params=his, headers=ada)
    refused = await forge.get("/projects", headers=bob)
    new = await forge.get("/tokens", headers=bearer(made.json()["token"]))

    assert [one["name"] for one in listed] == ["gpu", "theirs"]
    assert refused.status_code == 401
    assert [one["user"] for one in new.json()["items"]] == ["bob"]


async def test_others_do_not(forge: httpx.AsyncClient) -> None:
    bob, hers = bearer(await login(forge, "bob")), {"user": "ada"}
    answers = [
        await forge.get("/tokens", params=hers, headers=bob),
        await forge.post("/tokens", params=hers, json={"name": "x"}, headers=bob),
        await forge.delete("/tokens/x", params=hers, headers=bob),
        await forge.get("/tokens", params={"user": "nobody"}, headers=bob),
    ]

    assert {one.status_code for one in answers} == {403}


async def test_a_foreign_page_cannot_try_passwords_on_a_local_server(
    http: httpx.AsyncClient,
) -> None:
    await http.post("/users", json={"name": "ada", "password": PASSWORD})
    body = {"user": "ada", "password": PASSWORD}
    foreign = await http.post("/login", json=body, headers={"host": "evil.example"})
    own = await http.post("/login", json=body)

    assert (foreign.status_code, own.status_code) == (403, 201)


@pytest.mark.parametrize(
    "body",
    [{}, {"name": "a b"}, {"name": "x", "scopes": []}, {"name": "x", "scopes": ["root"]},
     {"name": "x", "days": 0}, {"name": "x", "days": 3651}, {"name": "x", "days": 1.5},
     {"name": "x", "user": "ada"}],
    ids=str,
)  # fmt: skip
async def test_wrong_requests_are_told(forge: httpx.AsyncClient, body: object) -> None:
    mine = bearer(await login(forge))
    answer = await forge.post("/tokens", json=body, headers=mine)

    assert (answer.status_code, error_code(answer)) == (422, "invalid_request")


async def test_on_ones_own_machine_an_administrator_needs_no_token(http: httpx.AsyncClient) -> None:
    nobody = await http.post("/tokens", json={"name": "gpu"})
    await http.post("/users", json={"name": "ada", "password": PASSWORD})
    made = await http.post("/tokens", params={"user": "ada"}, json={"name": "gpu"})
    known = await http.get("/tokens", headers=bearer(made.json()["token"]))
    unknown = await http.get("/tokens", headers=bearer("df_unknown"))

    assert (nobody.status_code, made.status_code) == (404, 201)
    assert "--user" in nobody.json()["error"]["hint"]
    assert [one["user"] for one in known.json()["items"]] == ["ada"]
    assert unknown.status_code == 401
