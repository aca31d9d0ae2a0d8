from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from deepforge.events import Event
from deepforge.execution.access import Address
from deepforge.execution.model import (
    Attempt,
    Execution,
    ExecutionState,
    ExecutionView,
    Job,
    JobState,
    PlannedJob,
    StartRequest,
)
from deepforge.execution.store import ExecutionStore
from deepforge.server import stream
from deepforge.server.app import build_channel_app
from deepforge.server.home import Home
from deepforge.server.listen import base_url, bind, serving
from deepforge.server.services import Services, open_services
from deepforge.settings import Secret
from server_client import ended, events, record, start

TALKING = {
    "operations/talk.py": b"""\
import time


class Talk:
    def __init__(self, lines: int, pause: float = 0.0):
        self.lines, self.pause = lines, pause

    def execute(self):
        for number in range(self.lines):
            print(f"line {number} \xc3\xbc\xf0\x9f\x98\x80", flush=True)
            time.sleep(self.pause)
        return self.lines
""",
    "pipelines/talking.py": b"""\
from operations.talk import Talk


def talking(lines: int, pause: float = 0.0):
    first = Talk(lines, pause).execute()
    second = Talk(lines).execute()
    return first, second
""",
}
ORDER = ["waiting", "ready", "submitting", "queued", "running", "collecting", "succeeded"]


async def nobody_left() -> None:
    """Everybody who was admitted still is."""


def spoken(lines: int) -> str:
    return "".join(f"line {number} ü😀\n" for number in range(lines))


def joined(heard: list[tuple[str, dict[str, Any]]]) -> dict[str, str]:
    """The logs as a reader puts them together; each piece must follow on the one before."""
    texts: dict[str, str] = {}
    for kind, data in heard:
        if kind == "log":
            text = texts.get(data["job"], "")
            assert data["start"] == len(text.encode())
            texts[data["job"]] = text + data["text"]
    return texts


def check_order(heard: list[tuple[str, dict[str, Any]]]) -> None:
    kinds = [kind for kind, _ in heard]
    assert (kinds[0], kinds[-1]) == ("execution", "end")
    assert kinds.count("end") == 1
    assert "jobs" in heard[0][1]
    assert "artifacts" in heard[-1][1]
    seen: dict[str, list[int]] = {}
    for kind, data in heard:
        if kind == "job":
            seen.setdefault(data["id"], []).append(ORDER.index(data["status"]))
    for steps in seen.values():
        assert steps == sorted(steps)


async def test_a_reader_hears_everything_once_and_in_order(live: httpx.AsyncClient) -> None:
    await record(live, "talking", TALKING)
    begun = await start(live, "talking", attributes={"lines": 300, "pause": 0.002})
    heard = [one async for one in events(live, begun["id"])]

    check_order(heard)
    assert joined(heard) == {"first": spoken(300), "second": spoken(300)}
    assert heard[-1][1]["status"] == "succeeded"
    assert len([1 for kind, data in heard if kind == "log" and data["job"] == "first"]) > 1


async def test_a_reader_who_comes_late_gets_the_whole_view_and_the_logs(
    live: httpx.AsyncClient,
) -> None:
    await record(live, "talking", TALKING)
    begun = await start(live, "talking", attributes={"lines": 3})
    last = await ended(live, begun["id"])
    heard = [one async for one in events(live, begun["id"])]
    silent = [one async for one in events(live, begun["id"], "?logs=false")]

    assert [kind for kind, _ in heard] == ["execution", "log", "log", "end"]
    assert heard[0][1] == heard[-1][1] == last
    assert joined(heard) == {"first": spoken(3), "second": spoken(3)}
    assert [kind for kind, _ in silent] == ["execution", "end"]


async def test_two_readers_do_not_disturb_each_other(live: httpx.AsyncClient) -> None:
    await record(live, "talking", TALKING)
    begun = await start(live, "talking", attributes={"lines": 20, "pause": 0.01})

    async def read() -> list[tuple[str, dict[str, Any]]]:
        return [one async for one in events(live, begun["id"])]

    for heard in await asyncio.gather(read(), read()):
        check_order(heard)
        assert joined(heard)["first"] == spoken(20)


async def test_an_execution_that_another_process_drives_is_followed_all_the_same(
    wire: httpx.AsyncClient, home: Home, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No hint ever comes: the documents are read again and again."""
    monkeypatch.setattr(stream, "READ_AGAIN_S", 0.05)
    await record(wire, "talking", TALKING)
    with bind("127.0.0.1", 0) as listener:
        address = Address(loopback_url=base_url(listener), file=str(home.address))
        async with (
            open_services(home, drive=True, address=address, environ=environ) as other,
            serving(build_channel_app(other), listener),
        ):
            choices = {"lines": "30", "pause": "0.01"}
            view = await other.executions.start(
                StartRequest("local", "talking", attributes=choices)
            )
            heard = [one async for one in events(wire, view.execution.id)]

    check_order(heard)
    assert joined(heard) == {"first": spoken(30), "second": spoken(30)}


async def test_a_silent_stream_says_now_and_then_that_it_is_there(
    live: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "READ_AGAIN_S", 0.02)
    monkeypatch.setattr(stream, "KEEP_ALIVE_S", 0.05)
    await record(live, "talking", TALKING)
    begun = await start(live, "talking", attributes={"lines": 1, "pause": 600})
    async with live.stream("GET", f"/executions/{begun['id']}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        async for line in response.aiter_lines():
            if line == ": keep-alive":
                break
    await live.post(f"/executions/{begun['id']}/cancel")

    assert (await ended(live, begun["id"]))["status"] == "cancelled"


async def test_a_reader_who_leaves_is_forgotten_at_once(
    wire: httpx.AsyncClient, services: Services
) -> None:
    view = await stored(services)
    async with wire.stream("GET", f"/executions/{view.execution.id}/events") as response:
        async for _ in response.aiter_lines():
            break
        assert services.events._listeners.keys() == {view.execution.id}

    async with asyncio.timeout(5):
        while services.events._listeners:  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.01)


async def test_a_server_that_stops_ends_its_streams_without_an_end(services: Services) -> None:
    view = await stored(services)
    stopping = asyncio.Event()
    following = stream.follow(
        services,
        view.execution.id,
        "local",
        logs=True,
        stopping=stopping,
        still_admitted=nobody_left,
    )
    first = await anext(following)
    stopping.set()

    assert first.startswith(b"event: execution\n")
    assert [piece async for piece in following] == []


@pytest.mark.parametrize("end", ["revoked", "disabled", "expired"])
async def test_a_stream_breaks_off_soon_after_its_token_ended(
    app: FastAPI, wire: httpx.AsyncClient, services: Services, end: str
) -> None:
    await services.users.add("ada", Secret("correct horse"))
    days = 2 / 86400 if end == "expired" else 1
    _, token = await services.tokens.create("ada", "laptop", ["api"], days=days)
    view = await stored(services, owner="ada")
    app.state.wants_login = True
    headers = {"authorization": f"Bearer {token.reveal()}"}
    events = f"/executions/{view.execution.id}/events"
    async with (
        asyncio.timeout(10),
        wire.stream("GET", events, headers=headers) as response,
    ):
        assert response.status_code == 200
        lines = response.aiter_lines()
        assert await anext(lines) == "event: execution"
        if end == "revoked":
            await services.tokens.revoke("ada", "laptop")
        elif end == "disabled":
            await services.users.change("ada", is_disabled=True)
        rest = [line async for line in lines]
    again = await wire.get(events, headers=headers)

    assert "event: end" not in rest
    assert again.status_code == 401


async def test_an_older_version_of_a_job_is_not_news(services: Services) -> None:
    """The documents may be behind what the bus has said already."""
    view = await stored(services)
    job = view.jobs[0]
    attempt = Attempt(1, "2026-11-23T00:00:00.000000Z")
    running = replace(job, state=JobState.RUNNING, attempts=(attempt,))
    told = stream._Told(view.execution.id)
    told.begin(view)

    def news(version: Job) -> int:
        return len(list(told.job(version)))

    again = replace(running, attempts=(attempt, replace(attempt, number=2)))
    assert news(running) == 1
    assert news(running) == 0
    assert news(replace(running, state=JobState.QUEUED)) == 0
    assert news(job) == 0
    assert news(replace(running, cancel_requested=True)) == 0  # nothing a reader could see
    assert news(replace(running, state=JobState.READY)) == 1  # waits for its next attempt
    assert news(replace(again, state=JobState.SUBMITTING)) == 1
    assert news(replace(running, state=JobState.FAILED)) == 0
    assert news(replace(again, state=JobState.SUCCEEDED)) == 1


def test_pieces_of_a_log_are_joined_whatever_their_cuts() -> None:
    text = "ü😀 and so on\n" * 3
    raw = text.encode()
    told = stream._Told("execution")

    def hear(start: int, end: int) -> list[bytes]:
        piece = {"job": "one", "attempt": 1, "start": start, "data": raw[start:end]}
        return list(stream._log_heard(Event("execution", "log", piece), told))

    first = hear(0, 4)  # half a character is held back
    repeated = hear(0, 4)
    behind_a_gap = hear(8, 12)
    overlapping = hear(2, 20)
    rest = hear(20, len(raw))

    assert (len(first), repeated, behind_a_gap, len(rest)) == (1, [], [], 1)
    heard = [json.loads(one.split(b"data: ")[1]) for one in (*first, *overlapping, *rest)]
    assert "".join(one["text"] for one in heard) == text
    assert [one["start"] for one in heard] == [
        len("".join(one["text"] for one in heard[:number]).encode()) for number in range(3)
    ]


async def stored(services: Services, owner: str = "local") -> ExecutionView:
    """An execution that nobody drives."""
    execution = Execution(
        id="0" * 20,
        owner=owner,
        project="p",
        project_name="p",
        pipeline="p",
        commit="0" * 40,
        storage="local",
        state=ExecutionState.RUNNING,
        created_at="2026-11-23T00:00:00.000000Z",
    )
    planned = PlannedJob(
        id="one",
        name="one",
        index=0,
        module="operations.one",
        operation="One",
        file="operations/one.py",
        arguments=(),
        inputs=(),
        outputs=("one",),
        publishes=(),
        compute="server",
    )
    jobs = [Job(execution.id, planned)]
    await ExecutionStore(services.documents).create(execution, jobs)
    return ExecutionView(execution, jobs)


@pytest.mark.parametrize(("query", "is_whole"), [("", False), ("?whole_logs=true", True)])
async def test_a_long_log_that_is_stored_comes_whole_for_who_asks(
    live: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, query: str, is_whole: bool
) -> None:
    monkeypatch.setattr(stream, "CATCH_UP_BYTES", 100)
    await record(live, "talking", TALKING)
    begun = await start(live, "talking", attributes={"lines": 300})
    await ended(live, begun["id"])

    heard = [data async for kind, data in events(live, begun["id"], query) if kind == "log"]

    first = [one for one in heard if one["job"] == "first"]
    assert "".join(one["text"] for one in first).endswith("line 299 ü😀\n")
    assert (first[0]["start"] == 0) == is_whole
    assert first[-1]["end"] == len(spoken(300).encode())
