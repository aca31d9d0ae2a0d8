from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from deepforge.server.routes import sciserver
from deepforge.testing.sciserver import SciServer, running


@pytest.fixture
def site() -> Iterator[SciServer]:
    with running() as site:
        site.users.add_user("alice", "wonderland", quota_bytes=5000)
        yield site


async def add(http: httpx.AsyncClient, server: SciServer, name: str, **settings: str) -> None:
    values = {"username": "alice", "site": server.url, **settings}
    body = {"name": name, "adapter": "sciserver", "settings": values}
    made = await http.post("/connections/storage", json=body)
    assert made.status_code == 201, made.text


async def links(http: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    answer = await http.get("/sciserver")
    assert answer.status_code == 200
    return {one["name"]: one for one in answer.json()["items"]}


async def test_there_are_none_at_first(http: httpx.AsyncClient) -> None:
    assert await links(http) == {}


async def test_an_execution_that_is_not_there_needs_none(http: httpx.AsyncClient) -> None:
    answer = await http.get("/sciserver", params={"execution": "of-somebody-else"})

    assert answer.status_code == 404


async def test_each_tells_until_when_it_lasts_and_what_is_wrong(
    http: httpx.AsyncClient, site: SciServer
) -> None:
    token = site.users.add_token("alice")
    await add(http, site, "linked", token=token)
    await add(http, site, "known", password="wonderland", pool="Temporary")
    await add(http, site, "new", username="bob")
    await add(http, site, "away", site="http://127.0.0.1:9", token=token)

    found = await links(http)

    assert found["linked"]["ends_at"].endswith("Z")
    assert not found["linked"]["ends_soon"]
    assert found["linked"]["limit_bytes"] == 5000
    assert found["linked"]["volume"] == "Storage/alice/deepforge_data"
    assert not found["linked"]["renews_itself"]
    assert found["known"]["renews_itself"]
    assert found["known"]["ends_at"] is None
    assert found["known"]["limit_bytes"] is None
    assert found["known"]["problem"] is None
    assert "deepforge sciserver link" in found["new"]["hint"]
    assert "could not be reached" in found["away"]["problem"]
    assert token not in str(found)


async def test_a_site_that_is_silent_holds_up_nobody(
    http: httpx.AsyncClient, site: SciServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run asks before it begins."""
    monkeypatch.setattr(sciserver, "LOOK_WITHIN_S", 0.3)
    await add(http, site, "sky", token=site.users.add_token("alice"))
    site.faults.add("slow", path="/fileservice/", after_s=5.0)
    began_s = time.monotonic()

    found = await links(http)

    assert "did not answer within" in found["sky"]["problem"]
    assert time.monotonic() - began_s < 4


async def test_a_new_token_is_used_at_once(http: httpx.AsyncClient, site: SciServer) -> None:
    await add(http, site, "sky", token=site.users.add_token("alice"))
    assert (await http.post("/connections/storage/sky/check", json={})).json()["ok"]
    site.users.revoke()
    assert not (await http.post("/connections/storage/sky/check", json={})).json()["ok"]

    token = site.users.add_token("alice")
    await http.patch("/connections/storage/sky", json={"secrets": {"token": token}})

    checked = (await http.post("/connections/storage/sky/check", json={"deep": False})).json()
    assert checked["ok"], checked
