from __future__ import annotations

import io
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, JsonValue

from deepforge import errors
from deepforge.server import faults
from deepforge.server.body import JsonRoute, Stream
from deepforge.server.logs import configure_logging
from deepforge.server.wire import STATUS, error_response


class Shape(BaseModel):
    secret_access_key: int
    other: str


def app_that_raises(error: Exception) -> FastAPI:
    app = FastAPI()
    faults.install(app)

    @app.get("/raise")
    async def raising() -> None:
        raise error

    @app.get("/broken")
    async def broken() -> Stream:
        async def chunks() -> AsyncGenerator[bytes, None]:
            yield b"first"
            raise error

        return Stream(chunks())

    class SmallRoute(JsonRoute):
        limit_bytes = 1000

    router = APIRouter(route_class=SmallRoute)

    @router.post("/shape")
    async def shape(body: Shape) -> None: ...

    @app.post("/nested")
    async def nested(body: dict[str, JsonValue]) -> None: ...

    app.include_router(router)

    return app


def client(error: Exception | None = None) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app_that_raises(error or RuntimeError("unused")))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    import structlog

    stream = io.StringIO()
    configure_logging(stream)
    yield stream
    structlog.reset_defaults()


def every_error() -> list[errors.DeepForgeError]:
    return [
        errors.ConfigError("wrong", fields={"bucket": "is required"}),
        errors.AuthError("who?"),
        errors.Forbidden("no"),
        errors.NotFound("none", hint="look elsewhere"),
        errors.AlreadyExists("twice"),
        errors.Conflict("changed"),
        errors.AttemptOver("over"),
        errors.InvalidRequest("bad", part="name"),
        errors.InvalidProject("bad", findings=[{"file": "x.py", "line": 1, "message": "m"}]),
        errors.NotSupported("grants", "not here"),
        errors.StorageFull("full"),
        errors.NoCapacity("busy", retry_after_s=1.2),
        errors.RateLimited("slower", retry_after_s=3),
        errors.Unavailable("down"),
        errors.OutcomeUnknown("maybe"),
        errors.Corrupt("bad bytes", expected="a", found="b"),
        errors.AdapterBug("odd"),
    ]


def all_kinds(kind: type[errors.DeepForgeError]) -> set[type[errors.DeepForgeError]]:
    return {kind}.union(*(all_kinds(one) for one in kind.__subclasses__()))


def test_every_error_of_the_tree_has_a_status() -> None:
    codes = {
        one.code for one in all_kinds(errors.DeepForgeError) if one.__module__.endswith("errors")
    }

    assert codes - {"error"} <= STATUS.keys()
    assert codes - {"error"} == {one.code for one in every_error()}


@pytest.mark.parametrize("error", every_error(), ids=lambda error: error.code)
async def test_an_error_leaves_with_its_code_and_status(
    error: errors.DeepForgeError, log: io.StringIO
) -> None:
    async with client(error) as http:
        response = await http.get("/raise")

    assert response.status_code == STATUS[error.code]
    assert response.json() == {
        "error": {
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
            "transient": error.transient,
            "details": error.details(),
        }
    }


async def test_a_limited_caller_is_told_when_to_come_back(log: io.StringIO) -> None:
    async with client(errors.RateLimited("slower", retry_after_s=0.4)) as http:
        assert (await http.get("/raise")).headers["retry-after"] == "1"
    async with client(errors.AuthError("who?")) as http:
        assert (await http.get("/raise")).headers["www-authenticate"] == "Bearer"


async def test_what_nobody_expected_says_only_an_id_that_the_log_has(log: io.StringIO) -> None:
    async with client(ValueError("password=hunter2")) as http:
        response = await http.get("/raise")

    error = response.json()["error"]
    logged = json.loads(log.getvalue().splitlines()[0])
    assert response.status_code == 500
    assert error["code"] == "error"
    assert "hunter2" not in response.text
    assert "Traceback" not in response.text
    assert logged["fault"] in error["message"]
    assert "ValueError" in logged["exception"]


@pytest.mark.parametrize("error", [errors.Corrupt("cut", expected="a", found="b"), OSError("gone")])
async def test_a_reply_that_fails_on_the_way_is_cut_and_never_looks_whole(
    error: Exception, log: io.StringIO
) -> None:
    async with client(error) as http:
        with pytest.raises(Exception, match=r"cut|gone|already started"):
            await http.get("/broken")

    assert json.loads(log.getvalue().splitlines()[0])["event"] == "reply_cut"


async def test_a_wrong_shape_names_the_parts_and_repeats_no_value() -> None:
    async with client() as http:
        response = await http.post(
            "/shape", json={"secret_access_key": "hunter2", "other": {"hunter3": 1}}
        )

    error = response.json()["error"]
    assert response.status_code == 422
    assert error["code"] == "invalid_request"
    assert error["details"] == {"part": "body.secret_access_key"}
    assert "body.other" in error["message"]
    assert "hunter" not in response.text


async def test_a_place_deep_in_nested_json_is_told_in_a_few_words() -> None:
    nested = '{"a":' * 900 + "1" + "}" * 900
    async with client() as http:
        response = await http.post(
            "/nested", content=nested, headers={"content-type": "application/json"}
        )

    assert response.status_code in (400, 422)
    assert len(response.text) < 3000


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1,2", b"nul", b"\xff\xfe", b'{"a": ' * 300, b"\0"],
    ids=["empty", "open", "cut", "word", "not utf-8", "deep", "nul"],
)
async def test_a_body_that_is_no_json_is_an_invalid_request(body: bytes) -> None:
    async with client() as http:
        response = await http.post(
            "/shape", content=body, headers={"content-type": "application/json"}
        )

    assert response.status_code in (400, 413, 422)
    assert response.json()["error"]["code"] == "invalid_request"


async def test_a_body_beyond_the_limit_is_refused_announced_or_not() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 100

    headers = {"content-type": "application/json"}
    async with client() as http:
        announced = await http.post("/shape", content=b" " * 2000, headers=headers)
        streamed = await http.post("/shape", content=chunks(), headers=headers)

    for response in (announced, streamed):
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("POST", "/raise", 405)]
)
async def test_unknown_places_and_methods_answer_in_the_same_shape(
    method: str, path: str, status: int
) -> None:
    async with client() as http:
        response = await http.request(method, path)

    assert response.status_code == status
    assert response.json()["error"]["code"] in ("not_found", "invalid_request")


@pytest.mark.parametrize("value", [float("nan"), object(), {1: {2}}, b"bytes"])
def test_details_of_a_broken_adapter_are_still_an_answer(value: Any) -> None:
    class Odd(errors.DeepForgeError):
        def details(self) -> dict[str, Any]:
            return {"odd": value}

    assert json.loads(bytes(error_response(Odd("odd")).body))["error"]["message"] == "odd"
