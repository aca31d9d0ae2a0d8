from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from deepforge.server.home import Home

SECRET = "the-very-secret-key"
S3 = {
    "name": "lab",
    "adapter": "s3",
    "settings": {
        "bucket": "data",
        "endpoint_url": "http://127.0.0.1:9",
        "access_key_id": "AKIA",
        "secret_access_key": SECRET,
    },
}


def code(response: httpx.Response) -> str:
    return str(response.json()["error"]["code"])


async def test_the_defaults_are_there_from_the_start(http: httpx.AsyncClient) -> None:
    storages = (await http.get("/connections/storage")).json()["items"]
    computes = (await http.get("/connections/compute")).json()["items"]

    assert [(one["name"], one["builtin"]) for one in storages] == [("local", True)]
    assert [(one["name"], one["builtin"]) for one in computes] == [("server", True)]


async def test_a_secret_goes_in_and_never_comes_out(http: httpx.AsyncClient, home: Home) -> None:
    made = await http.post("/connections/storage", json=S3)
    shown = await http.get("/connections/storage/lab")
    listed = await http.get("/connections/storage")

    assert made.status_code == 201
    assert made.json() == shown.json()
    assert shown.json()["secrets"] == ["secret_access_key"]
    assert shown.json()["settings"]["bucket"] == "data"
    assert not shown.json()["builtin"]
    assert all(SECRET not in one.text for one in (made, shown, listed))
    for file in Path(home.folder).rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file


async def test_wrong_settings_are_all_named_and_not_repeated(http: httpx.AsyncClient) -> None:
    settings = {"buket": "data", "secret_access_key": SECRET}
    response = await http.post("/connections/storage", json={**S3, "settings": settings})

    assert (response.status_code, code(response)) == (422, "config_error")
    assert {"bucket", "buket"} <= response.json()["error"]["details"]["fields"].keys()
    assert SECRET not in response.text


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"adapter": "none"}, 404),
        ({"name": "local"}, 409),
        ({"name": "../x"}, 422),
        ({"name": "a\nb"}, 422),
        ({"name": ""}, 422),
        ({"name": 7}, 422),
        ({"settings": []}, 422),
        ({"owner": "me"}, 422),
    ],
)
async def test_what_cannot_be_kept_is_refused(
    http: httpx.AsyncClient, change: dict[str, Any], status: int
) -> None:
    response = await http.post("/connections/storage", json={**S3, **change})

    assert response.status_code == status
    assert SECRET not in response.text


async def test_a_name_is_taken_once_and_free_after_it_is_forgotten(http: httpx.AsyncClient) -> None:
    await http.post("/connections/storage", json=S3)
    twice = await http.post("/connections/storage", json=S3)
    removed = await http.delete("/connections/storage/lab")
    gone = await http.get("/connections/storage/lab")
    again = await http.post("/connections/storage", json=S3)

    assert (twice.status_code, code(twice)) == (409, "already_exists")
    assert (removed.status_code, removed.content) == (204, b"")
    assert gone.status_code == 404
    assert again.status_code == 201


@pytest.mark.parametrize("path", ["storage/local", "compute/server"])
async def test_a_default_cannot_be_removed(http: httpx.AsyncClient, path: str) -> None:
    response = await http.delete(f"/connections/{path}")

    assert (response.status_code, code(response)) == (422, "invalid_request")


@pytest.mark.parametrize("deep", [False, True])
async def test_the_local_storage_passes_its_check_and_keeps_nothing(
    http: httpx.AsyncClient, home: Home, deep: bool
) -> None:
    response = await http.post("/connections/storage/local/check", json={"deep": deep})

    assert response.json()["ok"], response.text
    assert len(response.json()["checks"]) == (10 if deep else 2)
    assert [one for one in home.storage.iterdir() if one.name != ".deepforge"] == []


async def test_a_storage_nobody_answers_for_fails_its_check_with_a_reason(
    http: httpx.AsyncClient,
) -> None:
    await http.post("/connections/storage", json=S3)
    response = await http.post("/connections/storage/lab/check", json={"deep": True})

    last = response.json()["checks"][-1]
    assert response.status_code == 200
    assert not response.json()["ok"]
    assert not last["ok"]
    assert last["message"]
    assert SECRET not in response.text


async def test_checking_what_is_not_there_is_not_found(http: httpx.AsyncClient) -> None:
    response = await http.post("/connections/compute/none/check", json={})

    assert (response.status_code, code(response)) == (404, "not_found")


async def test_a_new_secret_takes_the_place_of_the_former(
    http: httpx.AsyncClient, home: Home
) -> None:
    made = await http.post("/connections/storage", json=S3)

    changed = await http.patch(
        "/connections/storage/lab", json={"secrets": {"secret_access_key": "one-more-secret"}}
    )

    assert changed.status_code == 200
    assert changed.json() == made.json()
    for file in Path(home.folder).rglob("*"):
        assert not file.is_file() or b"one-more-secret" not in file.read_bytes(), file
