"""Whatever goes wrong in a request leaves as one shape of answer, and nothing of ours leaks out."""

from __future__ import annotations

import structlog
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deepforge.errors import (
    AuthError,
    DeepForgeError,
    Forbidden,
    InvalidRequest,
    NotFound,
)
from deepforge.ids import new_id
from deepforge.server.wire import STATUS, error_response

_LONGEST_PART = 200  # a place in deeply nested JSON has no end

_log = structlog.get_logger(__name__)


def install(app: Starlette) -> None:
    """Make `app` answer every error in the shape of `ErrorReply`."""
    app.add_exception_handler(DeepForgeError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_middleware(Barrier)


class Barrier:
    """Turns what nobody expected into a 500 with an id that the log has too.

    A reply that had begun is cut: the caller sees a broken transfer, never a short one that looks
    whole.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            return
        except Exception as error:
            if not begun:
                await _unexpected(scope, error)(scope, receive, send)
                return
            _log_cut(scope, error)
            raise  # the listener closes the connection, an embedded client hears the error


async def _known(request: Request, error: Exception) -> Response:
    assert isinstance(error, DeepForgeError)
    if STATUS.get(error.code, 500) >= 500:
        _log.warning(
            "request_failed",
            path=request.url.path,
            code=error.code,
            error=error.message,
            exc_info=error if error.code == "adapter_bug" else None,
        )
    return error_response(error)


async def _invalid(request: Request, error: Exception) -> Response:
    """Name every part at fault. The values themselves are not repeated: they may be secrets."""
    assert isinstance(error, RequestValidationError)
    problems = [
        (".".join(str(step) for step in one["loc"])[:_LONGEST_PART] or "body", str(one["msg"]))
        for one in error.errors()
    ]
    listing = "; ".join(f"{part}: {message}" for part, message in problems[:5])
    more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
    return error_response(
        InvalidRequest(f"the request is not as it should be: {listing}{more}", part=problems[0][0])
    )


async def _refused(request: Request, error: Exception) -> Response:
    """Answers of the framework itself: unknown paths and methods, bodies too large or no JSON."""
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path[:200]}"
    answers: dict[int, DeepForgeError] = {
        401: AuthError(f"{where} needs an access token"),
        403: Forbidden(f"{where} is not allowed"),
        404: NotFound(
            f"there is nothing at {where}", hint="the API is described at /api/v1/openapi.json"
        ),
        405: InvalidRequest(f"{where} is not something the API has", part="method"),
        413: InvalidRequest(f"the body of {where} is too large", part="body"),
    }
    known = answers.get(error.status_code, InvalidRequest(f"{where}: {error.detail}"))
    response = error_response(known, status=error.status_code)
    response.headers.update(error.headers or {})
    return response


def _unexpected(scope: Scope, error: Exception) -> Response:
    fault = new_id()
    _log.error("request_crashed", fault=fault, path=scope.get("path"), exc_info=error)
    return error_response(
        DeepForgeError(
            f"the server failed on this request (fault {fault})",
            hint="its log tells more under that id; please report it",
        ),
        status=500,
    )


def _log_cut(scope: Scope, error: Exception) -> None:
    # The framework wraps what was raised after the reply began.
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
    expected = isinstance(cause, DeepForgeError)
    report = _log.warning if expected else _log.error
    report(
        "reply_cut",
        path=scope.get("path"),
        error=str(cause),
        exc_info=None if expected else cause,
    )
