"""The pipelines of a project, read from its text. Nothing of a project is ever imported here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from deepforge.errors import InvalidProject
from deepforge.pipelines.graph import Parameter, Role
from deepforge.pipelines.project import list_pipelines as pipeline_names
from deepforge.pipelines.project import read_pipeline
from deepforge.server.auth import Caller
from deepforge.server.services import InUse
from deepforge.server.wire import Page

router = APIRouter(prefix="/projects", tags=["projects"])


class ParameterReply(BaseModel):
    """A parameter of a pipeline: an `input` takes an artifact, an `attribute` a value."""

    name: str
    role: Role
    type: str | None
    default: str | None
    """Python literal text."""
    artifact: str | None
    """The default artifact."""
    required: bool


class FindingReply(BaseModel):
    """A broken rule in the text of the project."""

    file: str
    line: int
    message: str
    hint: str | None = None


class PipelineReply(BaseModel):
    """A pipeline; one with findings cannot run, and shows nothing else."""

    name: str
    doc: str
    parameters: list[ParameterReply]
    findings: list[FindingReply]


@router.get("/{project}/pipelines", summary="List the pipelines of a project at a commit")
async def list_pipelines(
    project: str, caller: Caller, use: InUse, commit: str | None = None
) -> Page[PipelineReply]:
    """Without a commit, the newest one."""
    found = await use.projects.find(caller.owner, project)
    at = commit if commit is not None else await use.history.head(found.id)
    if at is None:
        return Page(items=[])
    tree = await use.history.read_tree(found.id, at)
    texts = [path for path in tree.files if path.endswith((".py", ".toml"))]
    files = await use.history.read_files(found.id, at, texts)
    return Page(items=await asyncio.to_thread(_read_all, files))


def _read_all(files: Mapping[str, bytes]) -> list[PipelineReply]:
    return [_read(files, name) for name in pipeline_names(files)]


def _read(files: Mapping[str, bytes], name: str) -> PipelineReply:
    try:
        graph = read_pipeline(files, name)
    except InvalidProject as error:
        findings = [_finding(one) for one in error.findings]
        return PipelineReply(name=name, doc="", parameters=[], findings=findings)
    return PipelineReply(
        name=name,
        doc=graph.docstring,
        parameters=[_parameter(one) for one in graph.parameters],
        findings=[],
    )


def _finding(one: Mapping[str, Any]) -> FindingReply:
    return FindingReply(
        file=one["file"], line=one["line"], message=one["message"], hint=one.get("hint")
    )


def _parameter(one: Parameter) -> ParameterReply:
    return ParameterReply(
        name=one.name,
        role=one.role,
        type=one.type,
        default=one.default,
        artifact=one.artifact,
        required=one.required,
    )
