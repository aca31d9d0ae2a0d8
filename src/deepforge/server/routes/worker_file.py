"""The worker program as one file, and the line that gets it running on somebody's machine.

Anybody may have both: they hold nothing but our published code.
"""

from __future__ import annotations

import hashlib
import shlex

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from deepforge.worker.build import worker_archive

WORKER_FILE = "worker.pyz"

router = APIRouter(tags=["workers"], include_in_schema=False)  # for people, not for programs


@router.get(f"/{WORKER_FILE}", summary="The worker program: python3 worker.pyz --url URL --token -")
def read_worker_file(request: Request) -> Response:
    data = worker_archive()
    tag = f'"{hashlib.sha256(data).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    headers["Content-Disposition"] = f'attachment; filename="{WORKER_FILE}"'
    return Response(data, media_type="application/octet-stream", headers=headers)


@router.get("/worker", summary="How to get a worker running on a machine, as text")
def read_worker_install(request: Request) -> PlainTextResponse:
    url = str(request.base_url).rstrip("/")
    return PlainTextResponse(
        "# On the machine that shall do the work. It asks for an access token; make one with:\n"
        "#   deepforge tokens create NAME --scope worker\n"
        f"{install_line(url)}\n"
        "# To have it run always: the same line with --service, which prints a systemd unit.\n"
    )


def install_line(url: str) -> str:
    """The line for a shell that gets a worker of the server at `url` running."""
    where = shlex.quote(url)
    return (
        f"curl -fsSLO {shlex.quote(f'{url}/{WORKER_FILE}')} && "
        f"python3 {WORKER_FILE} --url {where} --token -"
    )
