from __future__ import annotations

from importlib import metadata

import httpx
import pytest

from deepforge import plugins


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
