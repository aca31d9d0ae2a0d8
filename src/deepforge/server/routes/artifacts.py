"""Artifacts: list, find, read, store, refer to."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response

from deepforge.connections.store import DEFAULT_STORAGE
from deepforge.errors import DeepForgeError, NotFound
from deepforge.ids import new_id
from deepforge.projects.model import Artifact, checked_name
from deepforge.server.auth import Caller
from deepforge.server.body import BYTES, JsonRoute, begun, content_length, ranged_stream, uploaded
from deepforge.server.services import InUse, Services
from deepforge.server.views import artifact_replies
from deepforge.server.wire import After, ArtifactReply, Body, Limit, Page
from deepforge.storage.client import StorageClient
from deepforge.storage.port import ObjectRef
from deepforge.storage.streams import Digest

router = APIRouter(route_class=JsonRoute, prefix="/artifacts", tags=["artifacts"])
uploads = APIRouter(prefix="/artifacts", tags=["artifacts"])  # bodies of any size

Label = Annotated[str, Query(min_length=1, max_length=200)]


class NewReference(Body):
    """An object that lies in a storage already."""

    name: str
    storage: str
    key: str
    type: str = "file"
    format: str = "file"
    project: str | None = None


@router.get("", summary="List artifacts, newest first")
async def list_artifacts(
    caller: Caller,
    use: InUse,
    project: str | None = None,
    name: str | None = None,
    after: After = None,
    limit: Limit = 100,
) -> Page[ArtifactReply]:
    found = await use.artifacts.list(
        project=await _project_id(use, caller.owner, project),
        name=name,
        owner=caller.owner,
        after=after,
        limit=limit + 1,
    )
    shown = found[:limit]
    return Page(
        items=await artifact_replies(use, shown),
        next=shown[-1].id if len(found) > limit else None,
    )


@router.get("/resolve", summary="Find what `NAME`, `NAME@version` or `PROJECT/NAME` means")
async def resolve_artifact(
    name: str, caller: Caller, use: InUse, project: str | None = None
) -> ArtifactReply:
    near = await _project_id(use, caller.owner, project)
    return await _reply(use, await use.artifacts.resolve(name, owner=caller.owner, project=near))


@router.get("/{artifact}", summary="Show an artifact and what it came from")
async def read_artifact(artifact: str, caller: Caller, use: InUse) -> ArtifactReply:
    return await _reply(use, _own(await use.artifacts.get(artifact), caller.owner))


@router.get(
    "/{artifact}/data",
    summary="Read the data of an artifact",
    response_class=Response,
    responses={200: {"content": {BYTES: {}}, "description": "The bytes as they were stored."}},
)
async def read_data(artifact: str, caller: Caller, use: InUse) -> Response:
    """What arrives whole was verified: when the data are not what was stored, the connection is cut
    before the last byte. `X-Digest` is the digest, where it is known."""
    found = _own(await use.artifacts.get(artifact), caller.owner)
    storage = await _storage(use, found.ref.storage, caller.owner)
    stream = storage.get_stream(found.ref)
    if found.ref.digest is None:
        stream = _learnt(use, found, stream)
    chunks = await begun(_held_back(stream))
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(found.name, safe='')}",
        **({} if found.ref.digest is None else {"X-Digest": found.ref.digest}),
    }
    return ranged_stream(chunks, 0, found.ref.size_bytes, headers)


@uploads.put("", status_code=201, summary="Store data as an artifact")
async def store_artifact(
    request: Request,
    name: str,
    caller: Caller,
    use: InUse,
    type: Label = "file",
    format: Label = "file",
    project: str | None = None,
    storage: str = DEFAULT_STORAGE,
) -> ArtifactReply:
    """The body is the raw data, of any size. A name in use gets a new version. An upload that ends
    early leaves nothing."""
    checked_name(name, "an artifact")
    project_id = await _project_id(use, caller.owner, project)
    target = await _storage(use, storage, caller.owner)
    ref = await target.put_stream(
        f"artifacts/{new_id()}", uploaded(request), size_bytes=content_length(request)
    )
    try:
        artifact = await use.artifacts.add(
            project=project_id,
            name=name,
            type=type,
            format=format,
            ref=ref,
            owner=caller.owner,
            provenance={"source": "upload"},
        )
    except DeepForgeError:
        with suppress(DeepForgeError):  # what went wrong first is what matters
            await target.delete([ref.key])
        raise
    return await _reply(use, artifact)


@router.post("/import", status_code=201, summary="Name an object that lies in a storage already")
async def import_artifact(body: NewReference, caller: Caller, use: InUse) -> ArtifactReply:
    """It is not copied, and its digest is not known before it is read."""
    project_id = await _project_id(use, caller.owner, body.project)
    storage = await _storage(use, body.storage, caller.owner)
    info = await storage.stat(body.key)
    artifact = await use.artifacts.add(
        project=project_id,
        name=body.name,
        type=body.type,
        format=body.format,
        ref=ObjectRef(storage.name, info.key, info.size_bytes),
        owner=caller.owner,
        provenance={"source": "import"},
    )
    return await _reply(use, artifact)


async def _project_id(use: Services, owner: str, name: str | None) -> str | None:
    return None if name is None else (await use.projects.find(owner, name)).id


async def _storage(use: Services, name: str, owner: str) -> StorageClient:
    await use.opener.allow("storage", name, owner=owner)
    return await use.opener.storage(name, owner=owner)


def _own(artifact: Artifact, owner: str) -> Artifact:
    if artifact.owner != owner:
        raise NotFound(f"there is no artifact with the id {artifact.id!r}")
    return artifact


async def _reply(use: Services, artifact: Artifact) -> ArtifactReply:
    return (await artifact_replies(use, [artifact]))[0]


async def _learnt(
    use: Services, artifact: Artifact, chunks: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """Pass chunks on; after the last, the artifact's digest is that of them all, or `Corrupt`."""
    digest = Digest()
    async with aclosing(chunks):
        async for chunk in chunks:
            await digest.feed(chunk)
            yield chunk
    await use.artifacts.learn(
        artifact.id, size_bytes=digest.size_bytes, digest=await digest.result()
    )


async def _held_back(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Pass chunks on one late, so that the last goes out only after all were verified."""
    held = b""
    async with aclosing(chunks):
        async for chunk in chunks:
            if held:
                yield held
            held = chunk
    yield held
