"""Projects: their files as git objects, their commits, the pipelines in them, and pressing play."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field

from deepforge.errors import Conflict, InvalidRequest
from deepforge.ids import utc_now
from deepforge.projects.model import Project
from deepforge.projects.objects import Commit, TreeEntry, blob_sha
from deepforge.server.auth import Caller
from deepforge.server.body import JsonRoute, read_limited
from deepforge.server.services import InUse, Services
from deepforge.server.wire import (
    After,
    Body,
    Limit,
    Page,
    page,
)

MAX_BLOBS_BYTES = 64 * 1024 * 1024
"""The largest file, or batch of files, of one request."""

_COMMIT_TRIES = 10


class ProjectRoute(JsonRoute):
    limit_bytes = 32 * 1024 * 1024  # a commit lists every file


router = APIRouter(route_class=ProjectRoute, prefix="/projects", tags=["projects"])

Sha = Annotated[str, Path(pattern="^[0-9a-f]{40}$", description="Git's id of the content.")]


class NewProject(Body):
    name: str


class ProjectReply(BaseModel):
    name: str
    id: str
    created_at: str


class BlobList(Body):
    blobs: list[str] = Field(max_length=200_000)


class MissingReply(BaseModel):
    missing: list[str]


class CommitFile(Body):
    blob: str
    executable: bool = False


class NewCommit(Body):
    files: dict[str, CommitFile] = Field(max_length=200_000)
    """Every file of the project, by its path."""
    message: str = ""


class CommittedReply(BaseModel):
    """`created` is false when the files are those of the newest commit already."""

    commit: str
    created: bool
    tree: str


class CommitReply(BaseModel):
    commit: str
    tree: str
    parents: list[str]
    author: str
    when: str
    message: str


@router.get("", summary="List projects, newest first")
async def list_projects(
    caller: Caller, use: InUse, after: After = None, limit: Limit = 100
) -> Page[ProjectReply]:
    found = await use.projects.list(caller.owner, after=after, limit=limit + 1)
    return page(found, limit, _project, lambda one: one.id)


@router.post("", summary="Make a project, or find it if it is there already")
async def make_project(
    body: NewProject, caller: Caller, use: InUse, response: Response
) -> ProjectReply:
    project = await use.projects.create_or_get(caller.owner, body.name)
    return _project(project)


@router.get("/{project}", summary="Show one project")
async def read_project(project: str, caller: Caller, use: InUse) -> ProjectReply:
    return _project(await use.projects.find(caller.owner, project))


@router.post("/{project}/missing", summary="Say which of these files the project does not have yet")
async def list_missing(project: str, body: BlobList, caller: Caller, use: InUse) -> MissingReply:
    found = await use.projects.find(caller.owner, project)
    return MissingReply(missing=await use.history.missing(found.id, body.blobs))


@router.put("/{project}/blobs/{sha}", status_code=204, summary="Put the content of one file")
async def put_blob(project: str, sha: Sha, request: Request, caller: Caller, use: InUse) -> None:
    """The body is the raw content; content that has another id is refused. Safe to repeat."""
    found = await use.projects.find(caller.owner, project)
    content = await read_limited(request, MAX_BLOBS_BYTES)
    await _put(use, found, {sha: content})


@router.post("/{project}/blobs", status_code=204, summary="Put the contents of many small files")
async def put_blobs(project: str, request: Request, caller: Caller, use: InUse) -> None:
    """The body is a sequence of: 40 ASCII digits of the id, the length as 8 bytes big-endian, the
    content. One that has another id is refused, and all with it. Safe to repeat."""
    found = await use.projects.find(caller.owner, project)
    await _put(use, found, _unpacked(await read_limited(request, MAX_BLOBS_BYTES)))


@router.post("/{project}/commits", summary="Record the files of the project as its next commit")
async def make_commit(project: str, body: NewCommit, caller: Caller, use: InUse) -> CommittedReply:
    """Nothing is recorded when the files are those of the newest commit."""
    found = await use.projects.find(caller.owner, project)
    files = {path: TreeEntry(one.blob, one.executable) for path, one in body.files.items()}
    for tries_left in reversed(range(_COMMIT_TRIES)):
        parent = await use.history.head(found.id)
        try:
            commit = await use.history.commit(
                found.id,
                files,
                message=body.message,
                author=caller.owner,
                when=utc_now(),
                parent=parent,
            )
        except Conflict:
            if tries_left == 0:
                raise
            continue  # the folder as it is now is the next commit, whoever was quicker
        break
    tree = await use.history.tree_digest(found.id, commit)
    return CommittedReply(commit=commit, created=commit != parent, tree=tree)


@router.get("/{project}/commits", summary="List commits, newest first")
async def list_commits(
    project: str, caller: Caller, use: InUse, after: After = None, limit: Limit = 100
) -> Page[CommitReply]:
    found = await use.projects.find(caller.owner, project)
    start = after if after is not None else await use.history.head(found.id)
    if start is None:
        return Page(items=[])
    commits = await use.history.log(found.id, start, limit=limit + 1 + (after is not None))
    if after is not None:
        commits = commits[1:]
    return page(commits, limit, _commit, lambda one: one.sha)


async def _put(use: Services, project: Project, blobs: dict[str, bytes]) -> None:
    for sha, content in blobs.items():
        found = blob_sha(content)
        if found != sha:
            raise InvalidRequest(
                f"the content sent as {sha} is {found}", part=sha, hint="send it again"
            )
    await use.history.put_blobs(project.id, blobs.values())


def _unpacked(body: bytes) -> dict[str, bytes]:
    blobs: dict[str, bytes] = {}
    at = 0
    while at < len(body):
        head = body[at : at + 48]
        sha, size_bytes = head[:40].decode("latin-1"), int.from_bytes(head[40:], "big")
        at += 48
        if len(head) < 48 or at + size_bytes > len(body):
            raise InvalidRequest("the last of the contents is cut short", part="body")
        blobs[sha] = body[at : at + size_bytes]
        at += size_bytes
    return blobs


def _project(project: Project) -> ProjectReply:
    return ProjectReply(name=project.name, id=project.id, created_at=project.created_at)


def _commit(commit: Commit) -> CommitReply:
    return CommitReply(
        commit=commit.sha,
        tree=commit.tree,
        parents=list(commit.parents),
        author=commit.author,
        when=commit.when,
        message=commit.message,
    )
