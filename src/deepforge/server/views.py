"""What a view shows besides the thing itself: an execution's artifacts, the names of projects."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from deepforge.errors import NotFound
from deepforge.execution.model import ExecutionView
from deepforge.projects.model import Artifact
from deepforge.server.services import Services
from deepforge.server.wire import ArtifactReply, ExecutionReply, artifact_reply, execution_reply


async def whole_view(use: Services, view: ExecutionView) -> ExecutionReply:
    """The execution with its jobs and the artifacts they published, in pipeline order."""
    published = [id for job in view.jobs for id in job.published]
    found = await asyncio.gather(*(use.artifacts.get(id) for id in published))
    return execution_reply(view, await artifact_replies(use, found))


async def artifact_replies(use: Services, artifacts: Sequence[Artifact]) -> list[ArtifactReply]:
    names = await _project_names(use, {one.project for one in artifacts if one.project is not None})
    return [
        artifact_reply(one, None if one.project is None else names[one.project])
        for one in artifacts
    ]


async def _project_names(use: Services, ids: Iterable[str]) -> dict[str, str]:
    async def name(id: str) -> str:
        try:
            return (await use.projects.get(id)).name
        except NotFound:  # its artifacts outlive a project
            return id

    known = list(ids)
    return dict(zip(known, await asyncio.gather(*map(name, known)), strict=True))
