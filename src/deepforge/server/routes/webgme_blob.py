"""WebGME's blob API, for its workers and other clients of it: `/rest/blob/…`.

Paths, JSON and hashes are those of the original server. Better than there: sizes, ranges, 401 for an
unknown token, and an upload is stored whatever its content type says.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from deepforge.errors import InvalidRequest
from deepforge.ids import epoch_s
from deepforge.server.auth import WorkerCaller
from deepforge.server.body import (
    Stream,
    begun,
    content_length,
    range_start,
    ranged_stream,
    read_limited,
    uploaded,
)
from deepforge.server.services import InUse, Services
from deepforge.webgme import blobs
from deepforge.webgme.blob_store import Blob, Content

MAX_METADATA_BYTES = 4 * 1024 * 1024

router = APIRouter(prefix="/rest/blob", tags=["webgme"], include_in_schema=False)

_GUARDED = {
    # What users stored must not act as a page of ours in somebody's browser.
    "Content-Security-Policy": "sandbox",
    "X-Content-Type-Options": "nosniff",
}


@router.post("/createFile/{name:path}", summary="Store a file")
async def create_file(request: Request, caller: WorkerCaller, use: InUse) -> Response:
    blob = await use.blobs.add_file(
        caller.owner, _name(request), uploaded(request), size_bytes=content_length(request)
    )
    return _json({blob.hash: _metadata(blob)})


@router.post("/createMetadata", summary="Store an artifact, a link or a file whose content is here")
@router.post("/createMetadata/", include_in_schema=False)
async def create_metadata(request: Request, caller: WorkerCaller, use: InUse) -> Response:
    data = await read_limited(request, MAX_METADATA_BYTES)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("the metadata are not JSON", part="body") from error
    blob = await use.blobs.add_metadata(caller.owner, blobs.from_json(value))
    return _json({blob.hash: _metadata(blob)})


@router.api_route("/metadata/{hash}", methods=["GET", "HEAD"], summary="Show what a blob is")
@router.api_route("/metadata/{hash}/", methods=["GET", "HEAD"], include_in_schema=False)
async def read_metadata(hash: str, caller: WorkerCaller, use: InUse) -> Response:
    return _json(_metadata(await use.blobs.get(caller.owner, _checked(hash))))


@router.api_route("/view/{hash}", methods=["GET", "HEAD"], summary="Read a blob")
@router.api_route("/view/{hash}/{path:path}", methods=["GET", "HEAD"], include_in_schema=False)
async def view(
    hash: str, request: Request, caller: WorkerCaller, use: InUse, path: str = ""
) -> Response:
    return await _content(request, use, caller.owner, hash, path, download=False)


@router.api_route("/download/{hash}", methods=["GET", "HEAD"], summary="Save a blob as a file")
@router.api_route("/download/{hash}/{path:path}", methods=["GET", "HEAD"], include_in_schema=False)
async def download(
    hash: str, request: Request, caller: WorkerCaller, use: InUse, path: str = ""
) -> Response:
    return await _content(request, use, caller.owner, hash, path, download=True)


async def _content(
    request: Request, use: Services, owner: str, hash: str, path: str, *, download: bool
) -> Response:
    content = await use.blobs.open(owner, _checked(hash), path)
    mime = blobs.mime_of(content.name)
    headers = {**_GUARDED, "Content-Type": mime}
    if download or mime in (blobs.BYTES, blobs.ZIP):
        headers["Content-Disposition"] = _attachment(content.name)
    start = range_start(request) if content.size_bytes is not None else 0
    if request.method == "HEAD":
        return _head(content, headers)
    chunks = content.read(min(start, content.size_bytes or 0))
    if content.size_bytes is None:
        return Stream(await begun(chunks), headers=headers)
    return ranged_stream(await begun(chunks), start, content.size_bytes, headers)


def _head(content: Content, headers: dict[str, str]) -> Response:
    if content.size_bytes is not None:
        headers |= {"Content-Length": str(content.size_bytes), "Accept-Ranges": "bytes"}
    answer = Response(headers=headers)
    if content.size_bytes is None:
        del answer.headers["Content-Length"]
    return answer


def _checked(hash: str) -> str:
    if not blobs.is_hash(hash):
        raise HTTPException(404)
    return hash


def _name(request: Request) -> str:
    """The name as it was sent: one part of the path, in which `%2F` is a slash and `/` is not."""
    raw: bytes = request.scope["raw_path"]
    sent = raw.partition(b"?")[0].rpartition(b"/createFile/")[2]
    if not sent or b"/" in sent:
        raise HTTPException(404)
    try:
        return unquote_to_bytes(sent).decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest("the name of the file is not UTF-8", part="name") from error


def _json(value: dict[str, Any]) -> Response:
    text = json.dumps(value, ensure_ascii=False, indent=4)
    return Response(text, headers={"Content-Type": "application/json"})


def _metadata(blob: Blob) -> dict[str, Any]:
    modified_at = datetime.fromtimestamp(epoch_s(blob.modified_at), UTC)
    spelled = modified_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {**blobs.to_json(blob.metadata), "lastModified": spelled}


def _attachment(name: str) -> str:
    last = name.replace("\\", "/").rpartition("/")[2]
    plain = "".join(one if " " <= one <= "~" and one not in '"\\%' else "_" for one in last)
    if plain == last:
        return f'attachment; filename="{plain}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(last, safe='')}"
