from __future__ import annotations

import subprocess
import sys
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from deepforge.server.app import PREFIX, build_app, build_channel_app
from deepforge.server.routes.attempts import AttemptRoute
from deepforge.server.services import Services
from deepforge.settings import Secret
from route_table import all_routes, asks_who_calls

PUBLIC = {
    f"{PREFIX}/health",
    f"{PREFIX}/openapi.json",
    f"{PREFIX}/login",
    "/worker",
    "/worker.pyz",
}
"""Routes that anybody may call."""


def test_every_route_asks_who_calls_or_is_public(app: FastAPI) -> None:
    unguarded = []
    for path, route in all_routes(app.routes):
        if isinstance(route, AttemptRoute):
            continue  # its handler cannot be reached without the token of an attempt
        if asks_who_calls(route) == (path in PUBLIC):
            unguarded.append(path)

    assert unguarded == []


def concrete(path: str) -> str:
    values = {"port": "storage", "key": "x", "sha": "0" * 40}
    for name in ("port", "key", "sha"):
        path = path.replace("{" + name + "}", values[name])
    return path.replace("{name:path}", "log").replace("{", "").replace("}", "")


async def test_without_a_token_no_route_answers_anything_but_401(services: Services) -> None:
    await services.users.add("ada", Secret("correct horse"))
    _, token = await services.tokens.create("ada", "laptop", ["api"])
    app = build_app(services, wants_login=True)
    paths = app.openapi()["paths"]
    assert len(paths) > 20
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://anywhere") as http:
        for path, methods in paths.items():
            for method in methods:
                for headers in (
                    {},
                    {"authorization": f"Bearer {token.reveal()[:-1]}"},
                    {"x-api-token": "df_another"},
                ):
                    response = await http.request(method, concrete(path), headers=headers)
                    expected = {200} if path in PUBLIC and method == "get" else {401}
                    # a wrong shape may be told first: it says nothing about what is there
                    assert response.status_code in expected | {422}, (method, path)
        allowed = await http.get(
            f"{PREFIX}/projects", headers={"authorization": f"Bearer {token.reveal()}"}
        )
    assert allowed.status_code == 200


async def test_a_workers_token_opens_nothing_of_the_api(services: Services) -> None:
    await services.users.add("ada", Secret("correct horse"))
    _, token = await services.tokens.create("ada", "gpu", ["worker"])
    app = build_app(services, wants_login=True)
    headers = {"x-api-token": token.reveal()}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://anywhere", headers=headers
    ) as http:
        for path, methods in app.openapi()["paths"].items():
            for method in methods:
                response = await http.request(method, concrete(path))
                assert path in PUBLIC or response.status_code in (403, 422), (method, path)
        allowed = await http.get("/rest/executor")
    assert allowed.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"host": "evil.example"}, {"host": "localhost", "origin": "https://evil.example"}],
    ids=["host", "origin"],
)
async def test_a_foreign_page_gets_403_from_every_route(
    app: FastAPI, headers: dict[str, str]
) -> None:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://localhost"
    ) as http:
        for path, methods in app.openapi()["paths"].items():
            for method in methods:
                response = await http.request(method, concrete(path), headers=headers)
                is_open = path in PUBLIC and method == "get"
                assert is_open or response.status_code in (403, 422), (method, path)


async def test_the_channel_of_runners_answers_nothing_else(services: Services) -> None:
    channel = build_channel_app(services)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(channel), base_url="http://localhost"
    ) as http:
        health = await http.get(f"{PREFIX}/health")
        projects = await http.get(f"{PREFIX}/projects")
        openapi = await http.get(f"{PREFIX}/openapi.json")
        attempt = await http.post(f"{PREFIX}/attempts/x/heartbeat")

    assert {health.status_code, projects.status_code, openapi.status_code} == {404}
    assert attempt.status_code == 401


def operations(app: FastAPI) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method} {path}", operation)
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]


def test_the_api_is_described_whole(app: FastAPI) -> None:
    lacking = []
    for place, operation in operations(app):
        replies = operation["responses"]
        done = next(reply for status, reply in replies.items() if status.startswith("2"))
        has_model = bool(done.get("content")) or "204" in replies
        has_errors = all(
            replies[status]["content"]["application/json"]["schema"]["$ref"].endswith("ErrorReply")
            for status in ("4XX", "5XX")
        )
        if not operation.get("summary") or not has_model or not has_errors:
            lacking.append(place)

    assert lacking == []
    assert len({operation["operationId"] for _, operation in operations(app)}) == len(
        operations(app)
    )


def test_no_reply_has_a_shape_that_says_nothing(app: FastAPI) -> None:
    empty = []
    for place, operation in operations(app):
        for status, reply in operation["responses"].items():
            content = reply.get("content", {}).get("application/json")
            if content is not None and content["schema"] == {}:
                empty.append((place, status))

    assert empty == []


def test_starting_loads_nothing_that_is_not_needed() -> None:
    code = (
        "import sys, deepforge.server.start;"
        "print([n for n in ('obstore','pymongo','httpx','cryptography','numpy',"
        "'pytest','opentelemetry.sdk') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.strip() == "[]"
