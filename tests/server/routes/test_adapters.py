from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from typing import Any

import httpx
import pytest

from deepforge import plugins
from deepforge.testing.sciserver import SciServer, running

PORTS = ("storage", "compute")


async def test_installed_adapters_come_with_the_form_that_connects_them(
    http: httpx.AsyncClient,
) -> None:
    storages = {one["id"]: one for one in (await http.get("/adapters/storage")).json()["items"]}
    computes = {one["id"]: one for one in (await http.get("/adapters/compute")).json()["items"]}

    assert {"local", "memory", "s3"} <= storages.keys()
    assert {"memory", "server"} <= computes.keys()
    secret = storages["s3"]["schema"]["properties"]["secret_access_key"]
    assert secret["writeOnly"]
    assert secret["format"] == "password"
    assert storages["s3"]["broken"] is None


async def test_a_broken_adapter_is_listed_with_its_reason(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = metadata.EntryPoint("odd", "no.such.module:ADAPTER", "deepforge.storage")
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: [entry])
    plugins._read_all.cache_clear()
    try:
        found = (await http.get("/adapters/storage")).json()["items"]
    finally:
        plugins._read_all.cache_clear()

    assert [(one["id"], one["schema"]) for one in found] == [("odd", None)]
    assert "no.such.module" in found[0]["broken"] or "No module" in found[0]["broken"]


@pytest.mark.parametrize("port", ["documents", "Storage", "..", "%00"])
async def test_there_are_no_other_ports(http: httpx.AsyncClient, port: str) -> None:
    assert (await http.get(f"/adapters/{port}")).status_code in (404, 422)


@pytest.fixture
def site() -> Iterator[SciServer]:
    with running() as site:
        site.users.add_user("alice", "wonderland")
        yield site


async def choices(
    http: httpx.AsyncClient, port: str, settings: dict[str, Any], adapter: str = "sciserver"
) -> httpx.Response:
    return await http.post(f"/adapters/{port}/{adapter}/choices", json={"settings": settings})


async def test_a_form_gets_its_choices_from_the_service(
    http: httpx.AsyncClient, site: SciServer
) -> None:
    account = {"username": "alice", "site": site.url, "token": site.users.add_token("alice")}
    compute = (await choices(http, "compute", account | {"domain": "Large Jobs Domain"})).json()
    storage = (await choices(http, "storage", account | {"pool": "data"})).json()
    kept = [(await http.get(f"/connections/{port}")).json()["items"] for port in PORTS]

    found = {one["setting"]: one for one in compute["items"]}
    assert compute["problem"] is None
    assert [each["value"] for each in found["domain"]["offered"]] == [
        "Small Jobs Domain", "Large Jobs Domain",
    ]  # fmt: skip
    assert found["data_volumes"] == {
        "setting": "data_volumes", "several": True, "others": False, "problem": None,
        "offered": [{"value": "sdss", "note": ""}],
    }  # fmt: skip
    assert [one["setting"] for one in storage["items"]] == ["pool", "volume"]
    assert storage["items"][1]["offered"] == [{"value": "sdss", "note": "SDSS"}]
    assert [len(one) for one in kept] == [1, 1]
    assert account["token"] not in str(compute) + str(storage)


async def test_a_form_uses_the_login_of_the_same_account(
    http: httpx.AsyncClient, site: SciServer
) -> None:
    account = {"username": "alice", "site": site.url}
    before = (await choices(http, "compute", account)).json()
    body = {
        "name": "sky", "adapter": "sciserver",
        "settings": account | {"token": site.users.add_token("alice")},
    }  # fmt: skip
    await http.post("/connections/storage", json=body)
    after = (await choices(http, "compute", account)).json()

    assert before["items"] == []
    assert before["problem"]["code"] == "auth_error"
    assert before["problem"]["details"] == {"expired": True}
    assert "deepforge sciserver link" in before["problem"]["hint"]
    assert after["problem"] is None
    assert after["items"]


async def test_a_service_that_cannot_be_asked_is_a_part_of_the_answer(
    http: httpx.AsyncClient, site: SciServer
) -> None:
    account = {"username": "alice", "site": "http://127.0.0.1:9", "token": "gAAAAA-token"}
    away = await choices(http, "storage", account)
    site.faults.add("login_page", path="/fileservice/api/volumes")
    account = {"username": "alice", "site": site.url, "password": "wonderland"}
    page = await choices(http, "storage", account)
    wrong = await choices(http, "storage", account | {"password": "looking-glass"})

    assert [one.status_code for one in (away, page, wrong)] == [200] * 3
    assert away.json()["problem"]["transient"]
    assert page.json()["problem"]["code"] == "config_error"
    assert wrong.json()["problem"]["code"] == "auth_error"
    assert "does not accept this password" in wrong.json()["problem"]["message"]
    assert wrong.json()["problem"]["details"] == {"expired": True}  # a link helps
    assert "looking-glass" not in wrong.text


@pytest.mark.parametrize(
    ("port", "adapter", "settings", "status"),
    [
        ("storage", "sciserver", {}, 422),
        ("storage", "sciserver", {"username": "alice", "volum": "x"}, 422),
        ("storage", "sciserver", {"username": "../bob"}, 422),
        ("storage", "sciserver", {"username": ["alice"]}, 422),
        ("storage", "no-such", {}, 404),
        ("compute", "sciserver", {"username": "alice", "site": "file:///etc/passwd"}, 422),
        ("document", "sciserver", {}, 422),
    ],
)
async def test_drafts_that_no_adapter_takes_are_refused(
    http: httpx.AsyncClient, port: str, adapter: str, settings: dict[str, Any], status: int
) -> None:
    assert (await choices(http, port, settings, adapter)).status_code == status


async def test_adapters_without_choices_are_asked_nothing(http: httpx.AsyncClient) -> None:
    for port, adapter, settings in (
        ("storage", "memory", {}),
        ("storage", "s3", {"endpoint_url": "http://127.0.0.1:9", "bucket": "lab-data",
                           "access_key_id": "a", "secret_access_key": "s"}),
        ("compute", "server", {}),
    ):  # fmt: skip
        answer = await choices(http, port, settings, adapter)
        assert answer.status_code == 200, answer.text
        assert answer.json()["items"] == []


async def test_what_is_added_already_has_choices_too(
    http: httpx.AsyncClient, site: SciServer
) -> None:
    account = {"username": "alice", "site": site.url, "token": site.users.add_token("alice")}
    body = {"name": "sci", "adapter": "sciserver", "settings": account}
    await http.post("/connections/compute", json=body)

    found = (await http.get("/connections/compute/sci/choices")).json()
    site.users.revoke()
    ended = (await http.get("/connections/compute/sci/choices")).json()

    assert {one["setting"] for one in found["items"]} == {
        "domain", "image", "data_volumes", "job_volume",
    }  # fmt: skip
    assert ended["items"] == []
    assert "has ended" in ended["problem"]["message"]
    assert (await http.get("/connections/compute/none/choices")).status_code == 404
    assert (await http.get("/connections/compute/server/choices")).json()["items"] == []
