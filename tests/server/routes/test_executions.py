from __future__ import annotations

from typing import Any

import httpx
import pytest

from server_client import ended, error_code, record, start

HELLO = {
    "operations/greet.py": b"""\
class Greet:
    def __init__(self, greeting: str = "Hello"):
        self.greeting = greeting

    def execute(self, name=None):
        print(self.greeting, "\xc3\xbc")
        text = f"{self.greeting}, {name}"
        return text
""",
    "operations/count.py": b"""\
class Count:
    def execute(self, text):
        number = len(text)
        return number
""",
    "pipelines/hello.py": b"""\
from operations.count import Count
from operations.greet import Greet


def hello(greeting: str = "Hello", name=None):
    text = Greet(greeting=greeting).execute(name)
    number = Count().execute(text)
    return text, number
""",
}
FAILING = {
    "operations/fail.py": b"""\
class Fail:
    def execute(self, part):
        if part is not None:
            raise ValueError("on purpose")
        return part
""",
    "operations/one.py": b"""\
class One:
    def execute(self):
        return 1
""",
    "pipelines/failing.py": b"""\
from operations.fail import Fail
from operations.one import One


def failing():
    first = One().execute()
    second = Fail().execute(first)
    third = Fail().execute(second)
    return first, third
""",
}
ENDLESS = {
    "operations/wait.py": b"""\
import time


class Wait:
    def execute(self):
        print("waiting", flush=True)
        time.sleep(600)
        return 1
""",
    "pipelines/endless.py": b"""\
from operations.wait import Wait


def endless():
    one = Wait().execute()
    return one
""",
}


def statuses(view: dict[str, Any]) -> dict[str, str]:
    return {job["name"]: job["status"] for job in view["jobs"]}


async def test_pressing_play_leaves_named_verified_artifacts(live: httpx.AsyncClient) -> None:
    made = await record(live, "hello", HELLO)
    begun = await start(live, "hello", attributes={"greeting": "Good day"})
    view = await ended(live, begun["id"])
    shown = (await live.get(f"/executions/{begun['id']}")).json()
    artifacts = {one["name"]: one for one in view["artifacts"]}
    data = await live.get(f"/artifacts/{artifacts['text']['id']}/data")

    assert begun["status"] == "running"
    assert statuses(begun) == {"text": "waiting", "number": "waiting"}
    assert view["status"] == "succeeded"
    assert (view["project"], view["pipeline"], view["commit"]) == ("hello", "hello", made["commit"])
    assert view["attributes"] == {"greeting": "'Good day'"}
    assert view["ended_at"] > view["created_at"]
    assert shown == view
    assert [job["needs"] for job in view["jobs"]] == [[], ["text"]]
    assert all(job["attempts"] == 1 and job["seconds"] >= 0 for job in view["jobs"])
    assert artifacts.keys() == {"text", "number"}
    assert artifacts["text"]["provenance"]["execution"] == begun["id"]
    assert data.headers["x-digest"] == artifacts["text"]["digest"]
    assert b"Good day, None" in data.content


async def test_an_earlier_artifact_can_be_an_input(live: httpx.AsyncClient) -> None:
    await record(live, "hello", HELLO)
    first = await ended(live, (await start(live, "hello"))["id"])
    again = await start(live, "hello", inputs={"name": "text@1"})
    view = await ended(live, again["id"])

    number = next(one for one in view["artifacts"] if one["name"] == "text")
    assert first["status"] == view["status"] == "succeeded"
    assert view["inputs"] == {"name": "text@1"}
    assert number["version"] == 2


async def test_executions_are_listed_newest_first_without_their_jobs(
    live: httpx.AsyncClient,
) -> None:
    await record(live, "hello", HELLO)
    ids = [(await start(live, "hello"))["id"] for _ in range(3)]
    for id in ids:
        await ended(live, id)

    first = (await live.get("/executions?project=hello&limit=2")).json()
    rest = (await live.get(f"/executions?project=hello&limit=2&after={first['next']}")).json()
    done = (await live.get("/executions?status=succeeded")).json()
    running = (await live.get("/executions?status=running")).json()
    unknown = await live.get("/executions?project=nope")

    found = [one["id"] for one in (*first["items"], *rest["items"])]
    assert found == [one["id"] for one in done["items"]] == ids[::-1]
    assert running["items"] == []
    assert (unknown.status_code, error_code(unknown)) == (404, "not_found")
    assert "jobs" not in first["items"][0]


async def test_a_log_is_read_from_any_byte(live: httpx.AsyncClient) -> None:
    await record(live, "hello", HELLO)
    id = (await start(live, "hello"))["id"]
    await ended(live, id)

    whole = await live.get(f"/executions/{id}/jobs/text/log")
    rest = await live.get(f"/executions/{id}/jobs/text/log?attempt=1&start=6")
    nothing = await live.get(f"/executions/{id}/jobs/number/log")
    behind = await live.get(f"/executions/{id}/jobs/text/log?start=1000")

    assert whole.content == "Hello ü\n".encode()
    assert (whole.headers["x-next-start"], whole.headers["x-ended"]) == ("9", "true")
    assert rest.content == "ü\n".encode()
    assert (nothing.content, nothing.headers["x-ended"]) == (b"", "true")
    assert behind.content == b""


@pytest.mark.parametrize(
    "query", ["attempt=0", "attempt=2", "attempt=x", "start=-1", "start=x", "start=1e3"]
)
async def test_a_log_that_cannot_be_is_refused(live: httpx.AsyncClient, query: str) -> None:
    await record(live, "hello", HELLO)
    id = (await start(live, "hello"))["id"]
    await ended(live, id)

    assert (await live.get(f"/executions/{id}/jobs/text/log?{query}")).status_code in (404, 422)


async def test_a_failed_job_shows_its_traceback_and_skips_what_needs_it(
    live: httpx.AsyncClient,
) -> None:
    await record(live, "failing", FAILING)
    view = await ended(live, (await start(live, "failing"))["id"])

    failure = view["jobs"][1]["failure"]
    assert view["status"] == "failed"
    assert statuses(view) == {"first": "succeeded", "second": "failed", "third": "skipped"}
    assert (failure["file"], failure["line"]) == ("operations/fail.py", 4)
    assert "on purpose" in failure["traceback"]
    assert view["jobs"][2]["skipped_because"] == "second"
    assert [one["name"] for one in view["artifacts"]] == ["first"]


async def test_running_again_keeps_what_succeeded(live: httpx.AsyncClient) -> None:
    await record(live, "failing", FAILING)
    first = await ended(live, (await start(live, "failing"))["id"])
    response = await live.post(f"/executions/{first['id']}/rerun")
    view = await ended(live, response.json()["id"])

    assert response.status_code == 202
    assert view["rerun_of"] == first["id"]
    assert [job["cached"] for job in view["jobs"]] == [True, False, False]
    assert view["artifacts"] == first["artifacts"]


async def test_what_succeeded_or_still_runs_is_not_run_again(live: httpx.AsyncClient) -> None:
    await record(live, "hello", HELLO)
    await record(live, "endless", ENDLESS)
    done = await ended(live, (await start(live, "hello"))["id"])
    running = await start(live, "endless")

    succeeded = await live.post(f"/executions/{done['id']}/rerun")
    conflict = await live.post(f"/executions/{running['id']}/rerun")
    await live.post(f"/executions/{running['id']}/cancel")
    await ended(live, running["id"])

    assert (succeeded.status_code, error_code(succeeded)) == (422, "invalid_request")
    assert (conflict.status_code, error_code(conflict)) == (409, "conflict")


async def test_cancelling_ends_it_and_may_be_repeated(live: httpx.AsyncClient) -> None:
    await record(live, "endless", ENDLESS)
    id = (await start(live, "endless"))["id"]
    first = await live.post(f"/executions/{id}/cancel")
    second = await live.post(f"/executions/{id}/cancel")
    view = await ended(live, id)
    third = await live.post(f"/executions/{id}/cancel")

    assert [one.status_code for one in (first, second, third)] == [202, 202, 202]
    assert first.json()["cancel_requested_at"] == second.json()["cancel_requested_at"]
    assert view["status"] == third.json()["status"] == "cancelled"
    assert statuses(view) == {"one": "cancelled"}


@pytest.mark.parametrize(
    ("choices", "status", "code"),
    [
        ({"pipeline": "none"}, 422, "invalid_request"),
        ({"pipeline": "../hello"}, 422, "invalid_request"),
        ({"commit": "0" * 40}, 404, "not_found"),
        ({"commit": "HEAD; rm -rf"}, 422, "invalid_request"),
        ({"attributes": {"nothing": "1"}}, 422, "invalid_request"),
        ({"attributes": {"greeting": {"a": [1]}}}, 422, "invalid_request"),
        ({"attributes": {"name": "x"}}, 422, "invalid_request"),
        ({"attributes": ["greeting"]}, 422, "invalid_request"),
        ({"inputs": {"name": "no-such-artifact"}}, 422, "invalid_request"),
        ({"inputs": {"name": "../../x"}}, 422, "invalid_request"),
        ({"inputs": {"name": 7}}, 422, "invalid_request"),
        ({"storage": "none"}, 404, "not_found"),
        ({"compute": "none"}, 404, "not_found"),
        ({"computes": {"text": "none"}}, 404, "not_found"),
        ({"owner": "somebody"}, 422, "invalid_request"),
    ],
)
async def test_choices_that_do_not_fit_begin_nothing(
    live: httpx.AsyncClient, choices: dict[str, Any], status: int, code: str
) -> None:
    await record(live, "hello", HELLO)
    response = await live.post("/projects/hello/executions", json=choices)

    assert (response.status_code, error_code(response)) == (status, code), response.text
    assert (await live.get("/executions")).json()["items"] == []


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
async def test_a_value_that_no_document_keeps_begins_nothing(
    live: httpx.AsyncClient, value: bytes
) -> None:
    await record(live, "hello", HELLO)
    response = await live.post(
        "/projects/hello/executions",
        content=b'{"attributes": {"greeting": ' + value + b"}}",
        headers={"content-type": "application/json"},
    )

    assert (response.status_code, error_code(response)) == (422, "invalid_request")


async def test_every_finding_in_the_project_is_told_at_once(live: httpx.AsyncClient) -> None:
    broken = {
        **HELLO,
        "pipelines/hello.py": b"from operations.count import Count\n\n\ndef hello():\n"
        b"    for x in []:\n        pass\n    number = Cuont().execute(text)\n    return number\n",
    }
    await record(live, "hello", broken)
    response = await live.post("/projects/hello/executions", json={})
    listed = (await live.get("/projects/hello/pipelines")).json()["items"]

    findings = response.json()["error"]["details"]["findings"]
    assert (response.status_code, error_code(response)) == (422, "invalid_project")
    assert {one["line"] for one in findings} >= {5, 7}
    assert all(one["file"] == "pipelines/hello.py" and one["message"] for one in findings)
    assert [one["line"] for one in listed[0]["findings"]] == [one["line"] for one in findings]


async def test_the_pipelines_of_a_project_are_listed_with_their_parameters(
    http: httpx.AsyncClient,
) -> None:
    made = await record(http, "hello", HELLO)
    await record(http, "hello", {"readme.md": b""})
    newest = (await http.get("/projects/hello/pipelines")).json()["items"]
    older = (await http.get(f"/projects/hello/pipelines?commit={made['commit']}")).json()["items"]

    assert newest == []
    assert [(one["name"], one["findings"]) for one in older] == [("hello", [])]
    assert older[0]["parameters"] == [
        {
            "name": "greeting",
            "role": "attribute",
            "type": "str",
            "default": "'Hello'",
            "artifact": None,
            "required": False,
        },
        {
            "name": "name",
            "role": "input",
            "type": None,
            "default": "None",
            "artifact": None,
            "required": False,
        },
    ]


@pytest.mark.parametrize("id", ["none", "..%2f..", "%00", "x" * 300, "'; --", "😀"])
async def test_an_unknown_execution_is_not_found_everywhere(
    http: httpx.AsyncClient, id: str
) -> None:
    for method, path in (
        ("GET", ""),
        ("GET", "/events"),
        ("POST", "/cancel"),
        ("POST", "/rerun"),
        ("GET", "/jobs/x/log"),
    ):
        response = await http.request(method, f"/executions/{id}{path}")
        assert response.status_code in (404, 405, 422), (method, path, response.text)
        assert error_code(response) in ("not_found", "invalid_request")


async def test_a_project_without_a_commit_cannot_run(http: httpx.AsyncClient) -> None:
    await http.post("/projects", json={"name": "empty"})
    response = await http.post("/projects/empty/executions", json={})

    assert (response.status_code, error_code(response)) == (422, "invalid_request")
