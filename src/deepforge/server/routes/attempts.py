"""The job channel: what runners call, with a token that is good for one attempt alone.

`runner/protocol.py` describes it. Every job makes a dozen of these calls, so they are plain Starlette
routes: half the cost of a route with declared models.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deepforge.errors import InvalidRequest
from deepforge.execution.attempts import Attempts
from deepforge.server.auth import bearer_token
from deepforge.server.body import (
    begun,
    content_length,
    range_start,
    ranged_stream,
    read_limited,
    uploaded,
)
from deepforge.server.services import Services

MAX_JSON_BYTES = 1024 * 1024
MAX_LOG_BYTES = 8 * 1024 * 1024


class Call:
    """One call of a runner: for which attempt, and with which token. Not checked yet."""

    def __init__(self, request: Request) -> None:
        services: Services = request.app.state.services
        self.request = request
        self.attempts: Attempts = services.attempts
        self.key: str = request.path_params["key"]
        self.token = bearer_token(request)

    @property
    def name(self) -> str:
        """The output's or object's name."""
        return str(self.request.path_params["name"])


class AttemptRoute(Route):
    """A route that only the runner of an attempt may use; its handler checks the token."""

    def __init__(
        self, path: str, method: str, handle: Callable[[Call], Awaitable[Response]]
    ) -> None:
        async def endpoint(request: Request) -> Response:
            return await handle(Call(request))

        super().__init__(path, endpoint, methods=[method], name=handle.__name__.strip("_"))


def routes(prefix: str) -> list[AttemptRoute]:
    """All routes of the channel, under `<prefix>/attempts/<key>`."""
    base = f"{prefix}/attempts/{{key}}"
    return [
        AttemptRoute(f"{base}/start", "POST", _start),
        AttemptRoute(f"{base}/heartbeat", "POST", _heartbeat),
        AttemptRoute(f"{base}/log", "POST", _append_log),
        AttemptRoute(f"{base}/grants", "POST", _renew_grants),
        AttemptRoute(f"{base}/finished", "POST", _finished),
        AttemptRoute(f"{base}/outputs/{{name}}/parts", "POST", _begin_output),
        AttemptRoute(f"{base}/outputs/{{name}}/complete", "POST", _complete_output),
        AttemptRoute(f"{base}/outputs/{{name}}/abort", "POST", _abort_output),
        AttemptRoute(f"{base}/objects/{{name:path}}", "GET", _read_object),
        AttemptRoute(f"{base}/objects/{{name:path}}", "PUT", _write_object),
    ]


async def _start(call: Call) -> Response:
    asked = await _read_json(call)
    job = await call.attempts.start(call.key, call.token, _text(asked, "runner"))
    return Response(job, media_type="application/json")


async def _heartbeat(call: Call) -> Response:
    return JSONResponse({"cancel": await call.attempts.heartbeat(call.key, call.token)})


async def _append_log(call: Call) -> Response:
    start = call.request.query_params.get("start", "0")
    if not (start.isascii() and start.isdigit() and len(start) < 16):
        raise InvalidRequest(f"start is a number of bytes, not {start[:40]!r}", part="start")
    data = await read_limited(call.request, MAX_LOG_BYTES)
    cancel = await call.attempts.log(call.key, call.token, int(start), data)
    return JSONResponse({"cancel": cancel})


async def _renew_grants(call: Call) -> Response:
    asked = await _read_json(call)
    granted = await call.attempts.grants(call.key, call.token, _texts(asked, "names"))
    return JSONResponse({"grants": {name: asdict(grant) for name, grant in granted.items()}})


async def _finished(call: Call) -> Response:
    await call.attempts.finished(call.key, call.token)
    return JSONResponse({})


async def _begin_output(call: Call) -> Response:
    size_bytes = (await _read_json(call)).get("size_bytes")
    if not isinstance(size_bytes, int) or isinstance(size_bytes, bool) or size_bytes < 0:
        raise InvalidRequest("size_bytes is not a number of bytes", part="size_bytes")
    return JSONResponse(
        await call.attempts.begin_output(call.key, call.token, call.name, size_bytes)
    )


async def _complete_output(call: Call) -> Response:
    asked = await _read_json(call)
    upload, etags = _text(asked, "upload"), _texts(asked, "etags")
    await call.attempts.complete_output(call.key, call.token, call.name, upload, etags)
    return JSONResponse({})


async def _abort_output(call: Call) -> Response:
    asked = await _read_json(call)
    await call.attempts.abort_output(call.key, call.token, call.name, _text(asked, "upload"))
    return JSONResponse({})


async def _read_object(call: Call) -> Response:
    """The bytes of an input or of the code, from the start of a `Range: bytes=N-` if one is asked."""
    start = range_start(call.request)
    size_bytes, chunks = await call.attempts.read_object(
        call.key, call.token, call.name, start=start
    )
    return ranged_stream(await begun(chunks), start, size_bytes)


async def _write_object(call: Call) -> Response:
    await call.attempts.write_object(
        call.key, call.token, call.name, uploaded(call.request), content_length(call.request)
    )
    return Response(status_code=204)


async def _read_json(call: Call) -> Mapping[str, Any]:
    data = await read_limited(call.request, MAX_JSON_BYTES)
    try:
        value = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("the body is not JSON", part="body") from error
    if not isinstance(value, dict):
        raise InvalidRequest("the body is not a JSON object", part="body")
    return value


def _text(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str) or not found or len(found) > 10_000:
        raise InvalidRequest(f"{name} is missing or not text", part=name)
    return found


def _texts(value: Mapping[str, Any], name: str) -> list[str]:
    found = value.get(name)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise InvalidRequest(f"{name} is missing or not a list of texts", part=name)
    return found
