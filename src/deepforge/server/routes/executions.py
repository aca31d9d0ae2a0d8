"""Executions: press play, watch, cancel, run again, read logs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field, JsonValue

from deepforge.execution.model import ExecutionState, StartRequest
from deepforge.server.auth import Caller, admit
from deepforge.server.body import JsonRoute, Stream
from deepforge.server.services import InUse
from deepforge.server.stream import EVENT_STREAM, follow
from deepforge.server.views import whole_view
from deepforge.server.wire import (
    After,
    Body,
    ExecutionReply,
    ExecutionSummary,
    Limit,
    Page,
    execution_summary,
    page,
)

router = APIRouter(route_class=JsonRoute, tags=["executions"])


class NewExecution(Body):
    """What a user chose when pressing play. Left out: the newest commit, the only pipeline, the
    defaults of the pipeline, the storage `local`, the compute `server`."""

    commit: str | None = None
    pipeline: str | None = None
    attributes: dict[str, JsonValue] = Field(default_factory=dict)
    """Parameters of the pipeline that are values: text as typed, or JSON."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """Parameters that take an artifact: `NAME`, `NAME@version` or `PROJECT/NAME`."""
    storage: str | None = None
    compute: str | None = None
    computes: dict[str, str] = Field(default_factory=dict)
    """The compute of single nodes, by node or class."""


@router.post("/projects/{project}/executions", status_code=202, summary="Run a pipeline")
async def start_execution(
    project: str, body: NewExecution, caller: Caller, use: InUse
) -> ExecutionReply:
    """It is checked whole before anything begins: every finding is in the details of the error."""
    view = await use.executions.start(
        StartRequest(
            owner=caller.owner,
            project=project,
            commit=body.commit,
            pipeline=body.pipeline,
            attributes=body.attributes,
            inputs=body.inputs,
            storage=body.storage,
            compute=body.compute,
            computes=body.computes,
        )
    )
    return await whole_view(use, view)


@router.get("/executions", summary="List executions, newest first")
async def list_executions(
    caller: Caller,
    use: InUse,
    project: str | None = None,
    status: ExecutionState | None = None,
    after: After = None,
    limit: Limit = 100,
) -> Page[ExecutionSummary]:
    if project is not None:  # by its name or id; an unknown one is an error, not an empty list
        project = (await use.projects.find(caller.owner, project)).name
    found = await use.executions.list(
        caller.owner, project=project, state=status, after=after, limit=limit + 1
    )
    return page(found, limit, execution_summary, lambda one: one.id)


@router.get("/executions/{execution}", summary="Show an execution with its jobs and artifacts")
async def read_execution(execution: str, caller: Caller, use: InUse) -> ExecutionReply:
    return await whole_view(use, await use.executions.get(execution, caller.owner))


@router.get(
    "/executions/{execution}/events",
    summary="Follow an execution until it ends",
    response_class=Stream,
    responses={200: {"content": {EVENT_STREAM: {}}, "description": "Server-sent events."}},
)
async def follow_execution(
    execution: str,
    caller: Caller,
    use: InUse,
    request: Request,
    logs: bool = True,
    whole_logs: bool = False,
) -> Response:
    """First `execution` with the whole view, then `job`, `log` and `execution` (without jobs) as
    things change, last `end` with the whole view. Whoever reconnects gets the whole view again, and
    logs again: those stored already from their last MiB on, with `whole_logs` all from byte 0. It
    breaks off within seconds when the token is revoked or expires."""
    await use.executions.get(execution, caller.owner)  # an unknown one is an error, not a stream
    events = follow(
        use,
        execution,
        caller.owner,
        logs=logs,
        whole_logs=whole_logs,
        stopping=request.app.state.stopping,
        still_admitted=lambda: admit(request),
    )
    return Stream(events, media_type=EVENT_STREAM, headers={"Cache-Control": "no-store"})


@router.post("/executions/{execution}/cancel", status_code=202, summary="Cancel an execution")
async def cancel_execution(execution: str, caller: Caller, use: InUse) -> ExecutionReply:
    """A request: its jobs end soon after. One that has ended is left as it is."""
    return await whole_view(use, await use.executions.cancel(execution, caller.owner))


@router.post("/executions/{execution}/rerun", status_code=202, summary="Run what failed again")
async def rerun_execution(execution: str, caller: Caller, use: InUse) -> ExecutionReply:
    """A new execution at the same commit that takes over what succeeded."""
    return await whole_view(use, await use.executions.rerun(execution, caller.owner))


@router.get(
    "/executions/{execution}/jobs/{job}/log",
    summary="Read what a job printed",
    response_class=Response,
    responses={
        200: {
            "content": {"text/plain": {}},
            "description": "Bytes of the log from `start`. `X-Next-Start` is the byte to go on "
            "from, `X-Ended` is `true` when nothing follows.",
        }
    },
)
async def read_log(
    execution: str,
    job: str,
    caller: Caller,
    use: InUse,
    attempt: Annotated[int | None, Query(ge=1, description="Default: the last one.")] = None,
    start: Annotated[int, Query(ge=0, le=2**53)] = 0,
) -> Response:
    part = await use.executions.log(execution, job, caller.owner, attempt=attempt, start=start)
    return Response(
        part.data,
        media_type="text/plain; charset=utf-8",
        headers={
            "X-Attempt": str(part.attempt),
            "X-Next-Start": str(part.start + len(part.data)),
            "X-Ended": "true" if part.ended else "false",
            "X-Content-Type-Options": "nosniff",
        },
    )
