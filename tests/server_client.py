"""How tests use the API as clients do: record a folder, start it, read its events."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx


def sha(content: bytes) -> str:
    """Git's id of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def packed(*contents: bytes) -> bytes:
    """Many contents in the form that one request puts them."""
    return b"".join(sha(one).encode() + len(one).to_bytes(8, "big") + one for one in contents)


def error_code(response: httpx.Response) -> str:
    return str(response.json()["error"]["code"])


async def record(
    http: httpx.AsyncClient, project: str, files: Mapping[str, bytes], message: str = ""
) -> dict[str, Any]:
    """Make files the next commit of a project."""
    await http.post("/projects", json={"name": project})
    await http.post(f"/projects/{project}/blobs", content=packed(*files.values()))
    body = {"files": {path: {"blob": sha(one)} for path, one in files.items()}, "message": message}
    response = await http.post(f"/projects/{project}/commits", json=body)
    assert response.status_code == 200, response.text
    made: dict[str, Any] = response.json()
    return made


async def start(http: httpx.AsyncClient, project: str, **choices: Any) -> dict[str, Any]:
    response = await http.post(f"/projects/{project}/executions", json=choices)
    assert response.status_code == 202, response.text
    view: dict[str, Any] = response.json()
    return view


async def events(
    http: httpx.AsyncClient, execution: str, query: str = ""
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The events of an execution until its stream ends."""
    async with http.stream("GET", f"/executions/{execution}/events{query}") as response:
        assert response.status_code == 200
        kind = ""
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield kind, json.loads(line.removeprefix("data: "))


async def ended(http: httpx.AsyncClient, execution: str) -> dict[str, Any]:
    """Wait for the end of an execution and return its last view."""
    async for kind, data in events(http, execution):
        if kind == "end":
            return data
    raise AssertionError("the stream ended without an end")
