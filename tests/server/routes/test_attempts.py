"""The channel of a runner, spoken by a stranger who holds the token of a running attempt."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from deepforge.connections.secrets import SecretBox
from deepforge.server.home import Home
from server_client import ended, error_code, events, record, start

WAIT = {
    "operations/wait.py": b"""\
import time


class Wait:
    def execute(self):
        time.sleep(600)
        return 1
""",
    "pipelines/wait.py": b"""\
from operations.wait import Wait


def wait():
    one = Wait().execute()
    return one
""",
}


@dataclass(frozen=True)
class Running:
    execution: str
    url: str
    token: str
    http: httpx.AsyncClient

    async def call(
        self,
        method: str,
        path: str,
        *,
        content: bytes | AsyncIterator[bytes] = b"",
        token: str | None = None,
        url: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        bearer = f"Bearer {token if token is not None else self.token}".strip().encode()
        return await self.http.request(
            method,
            (url or self.url) + path,
            content=content,
            headers=[(b"authorization", bearer), *httpx.Headers(headers).raw],
        )


@pytest.fixture
async def running(
    live: httpx.AsyncClient, home: Home, environ: dict[str, str]
) -> AsyncIterator[Running]:
    await record(live, "wait", WAIT)
    execution = (await start(live, "wait"))["id"]
    async for kind, data in events(live, execution):
        if kind == "job" and data["status"] == "running":
            break
    key = f"{execution}-one-1"
    token = SecretBox(home.secret_key, environ).token(f"attempt:{key}")
    yield Running(execution, f"{live.base_url}attempts/{key}", token, live)
    await live.post(f"/executions/{execution}/cancel")
    await ended(live, execution)


async def test_a_runner_asks_only_for_its_own_attempt(running: Running) -> None:
    heartbeat = await running.call("POST", "/heartbeat")
    code = await running.call("GET", "/objects/code")
    rest = await running.call("GET", "/objects/code", headers={"range": "bytes=10-"})
    behind = await running.call("GET", "/objects/code", headers={"range": "bytes=999999-"})
    grants = await running.call("POST", "/grants", content=b'{"names": ["result", "code"]}')

    assert heartbeat.json() == {"cancel": False}
    assert sorted(zipfile.ZipFile(io.BytesIO(code.content)).namelist()) == sorted(WAIT)
    assert int(code.headers["content-length"]) == len(code.content)
    assert (rest.status_code, rest.content) == (206, code.content[10:])
    assert rest.headers["content-range"] == f"bytes 10-{len(code.content) - 1}/{len(code.content)}"
    assert behind.status_code == 416
    assert grants.json()["grants"].keys() == {"result", "code"}
    assert grants.json()["grants"]["result"]["method"] == "PUT"


async def test_a_second_runner_of_the_same_attempt_runs_nothing(running: Running) -> None:
    response = await running.call("POST", "/start", content=b'{"runner": "another"}')

    assert (response.status_code, error_code(response)) == (409, "conflict")


async def test_the_log_arrives_once_however_often_it_is_sent(running: Running) -> None:
    first = await running.call("POST", "/log?start=0", content=b"one\n")
    again = await running.call("POST", "/log?start=0", content=b"one\ntwo\n")
    gap = await running.call("POST", "/log?start=100", content=b"lost")
    log = await running.http.get(f"/executions/{running.execution}/jobs/one/log")

    assert {one.json()["cancel"] for one in (first, again, gap)} == {False}
    assert (log.content, log.headers["x-ended"]) == (b"one\ntwo\n", "false")


async def test_an_object_is_written_as_a_stream_or_not_at_all(running: Running, home: Home) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"x" * 65536

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ConnectionError("the runner died")

    whole = await running.call("PUT", "/objects/outputs/result", content=chunks())
    with pytest.raises(ConnectionError):
        await running.call("PUT", "/objects/log", content=broken())

    files = [one.read_bytes() for one in home.storage.rglob("*") if one.is_file()]
    assert whole.status_code == 204
    assert b"x" * 2**22 in files
    assert b"x" not in files


async def test_a_wrong_token_gets_401_everywhere(running: Running) -> None:
    other = running.url.rsplit("-", 1)[0] + "-2"
    for token, url in itertools.product(("wrong", "", "é"), (running.url, other)):
        for method, path in (
            ("POST", "/start"),
            ("POST", "/heartbeat"),
            ("POST", "/log?start=0"),
            ("POST", "/grants"),
            ("POST", "/finished"),
            ("POST", "/outputs/result/parts"),
            ("POST", "/outputs/result/complete"),
            ("POST", "/outputs/result/abort"),
            ("GET", "/objects/code"),
            ("PUT", "/objects/result"),
        ):
            response = await running.call(method, path, token=token, url=url, content=b"{}")
            assert response.status_code in (401, 422), (method, path)
            assert response.status_code == 401 or path.startswith(("/start", "/grants", "/outputs"))
    right_token_of_another = await running.call("POST", "/heartbeat", url=other)
    assert right_token_of_another.status_code == 401


STRANGE = [
    ("GET", "/objects/none", b""),
    ("GET", "/objects/result", b""),
    ("GET", "/objects/../../../secret.key", b""),
    ("GET", "/objects/outputs%2f..%2fcode", b""),
    ("PUT", "/objects/code", b"x"),
    ("PUT", "/objects/inputs/one", b"x"),
    ("PUT", "/objects/outputs/two", b"x"),
    ("POST", "/grants", b'{"names": ["secret.key"]}'),
    ("POST", "/grants", b'{"names": "code"}'),
    ("POST", "/grants", b"[]"),
    ("POST", "/grants", b"{" * 100_000),
    ("POST", "/grants", b"\xff"),
    ("POST", "/start", b"{}"),
    ("POST", "/start", b'{"runner": 7}'),
    ("POST", "/log?start=x", b"x"),
    ("POST", "/log?start=-1", b"x"),
    ("POST", "/log?start=" + "9" * 30, b"x"),
    ("POST", "/outputs/result/parts", b'{"size_bytes": 1}'),
    ("POST", "/outputs/result/parts", b'{"size_bytes": -1}'),
    ("POST", "/outputs/result/parts", b'{"size_bytes": true}'),
    ("POST", "/outputs/result/complete", b'{"upload": "x"}'),
    ("POST", "/outputs/result/complete", b'{"upload": "x", "etags": [1]}'),
    ("POST", "/log?start=0", b"\0" * (8 * 1024 * 1024 + 1)),
    ("POST", "/grants", b" " * (1024 * 1024 + 1)),
]


async def test_strange_requests_are_refused_and_harm_nobody(running: Running) -> None:
    for method, path, content in STRANGE:
        response = await running.call(method, path, content=content)
        place = (method, path, response.text[:200])
        assert response.status_code in (400, 404, 413, 422), place
        assert error_code(response) in ("not_found", "invalid_request", "not_supported"), place

    assert (await running.call("POST", "/heartbeat")).json() == {"cancel": False}


async def test_an_attempt_that_has_ended_answers_410(running: Running) -> None:
    await running.http.post(f"/executions/{running.execution}/cancel")
    told = await running.call("POST", "/heartbeat")
    await ended(running.http, running.execution)
    over = await running.call("POST", "/heartbeat")
    late = await running.call("PUT", "/objects/result", content=b"{}")

    assert told.status_code == 410 or told.json() == {"cancel": True}
    assert (over.status_code, error_code(over)) == (410, "attempt_over")
    assert late.status_code == 410
