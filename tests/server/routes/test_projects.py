from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from server_client import error_code as code
from server_client import packed, record, sha

UGLY = ["../x", "a/b", ".", "..", "", " ", "a\nb", "a\0b", "x" * 101, " padded ", "a@b", "a:b"]
FINE = ["hello", 'it\'s "quoted"', "ünïcödé", "emoji 😀", "a.b-c_d", "'; drop table projects; --"]


@pytest.mark.parametrize("name", FINE)
async def test_a_project_is_made_once_and_found_by_its_name(
    http: httpx.AsyncClient, name: str
) -> None:
    first = await http.post("/projects", json={"name": name})
    again = await http.post("/projects", json={"name": name})
    shown = await http.get(f"/projects/{httpx.URL(path='/' + name).raw_path.decode()[1:]}")

    assert first.status_code == again.status_code == 200
    assert first.json() == again.json() == shown.json()
    assert shown.json()["name"] == name


@pytest.mark.parametrize("name", UGLY)
async def test_a_name_that_could_mean_something_else_is_refused(
    http: httpx.AsyncClient, name: str
) -> None:
    response = await http.post("/projects", json={"name": name})

    assert response.status_code == 422
    assert code(response) == "invalid_request"


@pytest.mark.parametrize(
    "body", [{}, {"name": 1}, {"name": None}, {"name": ["x"]}, {"name": "x", "owner": "me"}, [], 1]
)
async def test_a_body_of_another_shape_is_refused(http: httpx.AsyncClient, body: Any) -> None:
    response = await http.post("/projects", json=body)

    assert response.status_code == 422
    assert "part" in response.json()["error"]["details"]


async def test_a_name_with_half_a_character_is_refused(http: httpx.AsyncClient) -> None:
    response = await http.post(
        "/projects", content=b'{"name": "a\\ud800b"}', headers={"content-type": "application/json"}
    )

    assert response.status_code == 422


async def test_projects_are_listed_page_by_page(http: httpx.AsyncClient) -> None:
    for number in range(5):
        await http.post("/projects", json={"name": f"p{number}"})

    names: list[str] = []
    after: str | None = None
    for _ in range(3):
        query = {"limit": 2} | ({} if after is None else {"after": after})
        page = (await http.get("/projects", params=query)).json()
        names += [one["name"] for one in page["items"]]
        after = page["next"]

    assert names == ["p4", "p3", "p2", "p1", "p0"]
    assert after is None


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "1.5", ""])
async def test_a_page_of_no_sensible_size_is_refused(http: httpx.AsyncClient, limit: str) -> None:
    assert (await http.get("/projects", params={"limit": limit})).status_code == 422


@pytest.mark.parametrize("after", ["nothing", "\0", "x" * 300, "'; --", "😀"])
async def test_a_strange_cursor_is_no_fault_of_the_server(
    http: httpx.AsyncClient, after: str
) -> None:
    assert (await http.get("/projects", params={"after": after})).status_code in (200, 422)


async def test_an_unknown_project_is_not_found_everywhere(http: httpx.AsyncClient) -> None:
    for path in ("", "/commits", "/pipelines"):
        response = await http.get(f"/projects/none{path}")
        assert (response.status_code, code(response)) == (404, "not_found")
    for method, path, body in (
        ("POST", "/missing", b'{"blobs": []}'),
        ("POST", "/blobs", b""),
        ("PUT", f"/blobs/{sha(b'')}", b""),
        ("POST", "/commits", b'{"files": {}}'),
    ):
        response = await http.request(
            method,
            f"/projects/none{path}",
            content=body,
            headers={"content-type": "application/json"},
        )
        assert (response.status_code, code(response)) == (404, "not_found"), path


async def test_only_what_is_missing_must_be_sent(http: httpx.AsyncClient) -> None:
    await http.post("/projects", json={"name": "p"})
    put = await http.put(f"/projects/p/blobs/{sha(b'one')}", content=b"one")
    asked = {"blobs": [sha(b"one"), sha(b"two")]}
    missing = await http.post("/projects/p/missing", json=asked)

    assert (put.status_code, put.content) == (204, b"")
    assert missing.json() == {"missing": [sha(b"two")]}


async def test_content_under_a_wrong_id_is_refused_and_all_that_came_with_it(
    http: httpx.AsyncClient,
) -> None:
    await http.post("/projects", json={"name": "p"})
    single = await http.put(f"/projects/p/blobs/{sha(b'one')}", content=b"other")
    body = packed(b"good") + sha(b"one").encode() + (5).to_bytes(8, "big") + b"other"
    many = await http.post("/projects/p/blobs", content=body)

    assert (single.status_code, many.status_code) == (422, 422)
    asked = {"blobs": [sha(b"one"), sha(b"good")]}
    assert (await http.post("/projects/p/missing", json=asked)).json()["missing"] == asked["blobs"]


@pytest.mark.parametrize(
    "body",
    [b"x", b"a" * 40, b"a" * 47, packed(b"whole") + b"z", packed(b"whole")[:-1],
     b"a" * 40 + b"\xff" * 8, b"\xff" * 40 + (0).to_bytes(8, "big")],
    ids=["short", "no length", "half a length", "tail", "cut", "endless", "no digits"],
)  # fmt: skip
async def test_a_batch_that_is_cut_short_is_refused(http: httpx.AsyncClient, body: bytes) -> None:
    await http.post("/projects", json={"name": "p"})
    response = await http.post("/projects/p/blobs", content=body)

    assert (response.status_code, code(response)) == (422, "invalid_request")


@pytest.mark.parametrize("wrong", ["x", "0" * 39, "0" * 41, "G" * 40, "0" * 39 + "\n"])
async def test_an_id_that_is_none_is_refused(http: httpx.AsyncClient, wrong: str) -> None:
    await http.post("/projects", json={"name": "p"})
    url = httpx.URL("http://localhost/api/v1").join(
        f"/api/v1/projects/p/blobs/{wrong.encode().hex()}"
    )
    put = await http.put(url, content=b"")
    missing = await http.post("/projects/p/missing", json={"blobs": [wrong]})

    assert put.status_code == missing.status_code == 422


async def test_equal_files_make_no_second_commit(http: httpx.AsyncClient) -> None:
    files = {"a.py": b"a = 1\n", "folder/b ü.py": b""}
    first = await record(http, "p", files, "first")
    same = await record(http, "p", files, "again")
    second = await record(http, "p", {**files, "c.py": b"c"}, "second")

    commits = (await http.get("/projects/p/commits")).json()
    assert (first["created"], same["created"], second["created"]) == (True, False, True)
    assert first["commit"] == same["commit"] != second["commit"]
    assert [one["commit"] for one in commits["items"]] == [second["commit"], first["commit"]]
    assert commits["items"][0]["parents"] == [first["commit"]]
    assert commits["items"][0]["tree"] == second["tree"]
    assert commits["items"][1]["message"].strip() == "first"
    assert commits["next"] is None


async def test_commits_are_listed_page_by_page(http: httpx.AsyncClient) -> None:
    made = [(await record(http, "p", {"x": b"%d" % one}))["commit"] for one in range(3)]

    first = (await http.get("/projects/p/commits?limit=2")).json()
    rest = (await http.get(f"/projects/p/commits?limit=2&after={first['next']}")).json()

    found = [one["commit"] for one in (*first["items"], *rest["items"])]
    assert found == made[::-1]
    assert rest["next"] is None


async def test_a_project_without_commits_has_an_empty_history(http: httpx.AsyncClient) -> None:
    await http.post("/projects", json={"name": "p"})

    for path in ("commits", "pipelines"):
        assert (await http.get(f"/projects/p/{path}")).json() == {"items": [], "next": None}


async def test_many_who_commit_at_once_all_get_a_commit(http: httpx.AsyncClient) -> None:
    await http.post("/projects", json={"name": "p"})
    made = await asyncio.gather(*(record(http, "p", {"x": b"%d" % number}) for number in range(5)))

    commits = (await http.get("/projects/p/commits")).json()["items"]
    assert {one["commit"] for one in made} == {one["commit"] for one in commits}
    assert len(commits) == 5


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a//b", "a/../b", ".git/config", "a\0b", "", ".", "a/.GIT/x"]
)
async def test_a_path_that_leaves_the_project_is_refused(
    http: httpx.AsyncClient, path: str
) -> None:
    await http.post("/projects", json={"name": "p"})
    await http.post("/projects/p/blobs", content=packed(b"x"))
    body = {"files": {path: {"blob": sha(b"x")}}}
    response = await http.post("/projects/p/commits", json=body)

    assert (response.status_code, code(response)) == (422, "invalid_request")


async def test_a_commit_of_contents_that_were_not_sent_is_refused(http: httpx.AsyncClient) -> None:
    await http.post("/projects", json={"name": "p"})
    response = await http.post(
        "/projects/p/commits", json={"files": {"x.py": {"blob": sha(b"never sent")}}}
    )

    assert (response.status_code, code(response)) == (404, "not_found")
    assert "x.py" in response.text


async def test_an_executable_file_stays_one(http: httpx.AsyncClient) -> None:
    plain = await record(http, "p", {"x": b"x"})
    response = await http.post(
        "/projects/p/commits", json={"files": {"x": {"blob": sha(b"x"), "executable": True}}}
    )

    assert response.json()["created"]
    assert response.json()["tree"] != plain["tree"]


@pytest.mark.slow  # only a body above the limit shows that one is kept out
async def test_a_file_above_the_limit_is_refused(http: httpx.AsyncClient) -> None:
    await http.post("/projects", json={"name": "p"})
    response = await http.put(
        f"/projects/p/blobs/{'0' * 40}", content=b"\0" * (64 * 1024 * 1024 + 1)
    )

    assert response.status_code == 413
