"""What goes over the wire: the shapes of replies, and errors as HTTP answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from starlette.responses import JSONResponse

from deepforge.errors import DeepForgeError, NoCapacity, RateLimited
from deepforge.execution import model
from deepforge.projects.model import Artifact as KeptArtifact

T = TypeVar("T")
V = TypeVar("V")

STATUS = {
    "config_error": 422,
    "auth_error": 401,
    "forbidden": 403,
    "not_found": 404,
    "already_exists": 409,
    "conflict": 409,
    "attempt_over": 410,
    "invalid_request": 422,
    "invalid_project": 422,
    "not_supported": 422,
    "storage_full": 507,
    "no_capacity": 503,
    "rate_limited": 429,
    "unavailable": 503,
    "outcome_unknown": 503,
    "corrupt": 502,
    "adapter_bug": 500,
}
"""The HTTP status of each error code."""

After = Annotated[str | None, Query(max_length=256, description="`next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="The most items of one page.")]


class Body(BaseModel):
    """The shape of a request's body: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Page(BaseModel, Generic[T]):
    """One page of a list. With `next` there is more: pass it as `after`."""

    items: list[T]
    next: str | None = None


def page(
    found: Sequence[V], limit: int, reply: Callable[[V], T], cursor: Callable[[V], str]
) -> Page[T]:
    """Make a page of the first `limit` of what was found with one more than that."""
    shown = found[:limit]
    return Page(
        items=[reply(one) for one in shown],
        next=cursor(shown[-1]) if len(found) > limit else None,
    )


class ErrorInfo(BaseModel):
    code: str
    """One word for programs; see the table of errors."""
    message: str
    """What happened to which thing."""
    hint: str | None = None
    """The next step."""
    transient: bool = False
    """Whether the same request may succeed later without anybody changing anything."""
    details: dict[str, Any] = Field(default_factory=dict)


class ErrorReply(BaseModel):
    error: ErrorInfo


class FailureReply(BaseModel):
    """Why a job failed. `kind` is one of the kinds of the runner protocol."""

    kind: str
    message: str
    type: str | None = None
    traceback: str | None = None
    file: str | None = None
    line: int | None = None
    exit_code: int | None = None
    hint: str | None = None


class OutputReply(BaseModel):
    name: str
    type: str
    size_bytes: int
    digest: str | None


class JobReply(BaseModel):
    """One operation in an execution. `seconds` is how long its last attempt ran."""

    id: str
    name: str
    operation: str
    status: model.JobState
    cached: bool
    attempts: int
    seconds: float | None
    compute: str
    started_at: str | None
    ended_at: str | None
    needs: list[str]
    failure: FailureReply | None
    outputs: list[OutputReply]
    skipped_because: str | None
    retry_at: str | None
    message: str | None
    """What its compute says of it while it is not over, such as its place in a queue."""


class ArtifactReply(BaseModel):
    """A named, versioned, immutable reference to stored data."""

    id: str
    project: str | None
    name: str
    version: int
    type: str
    format: str
    storage: str
    key: str
    size_bytes: int
    digest: str | None
    created_at: str
    provenance: dict[str, Any]


class ExecutionSummary(BaseModel):
    """One run of a pipeline at a commit."""

    id: str
    project: str
    pipeline: str
    commit: str
    status: model.ExecutionState
    created_at: str
    ended_at: str | None
    cancel_requested_at: str | None
    rerun_of: str | None
    paused_by: str | None
    storage: str
    attributes: dict[str, JsonValue]
    inputs: dict[str, str]


class ExecutionReply(ExecutionSummary):
    """An execution with its jobs in pipeline order and the artifacts it left."""

    jobs: list[JobReply]
    artifacts: list[ArtifactReply]


class LogEvent(BaseModel):
    """A piece of an attempt's log: its bytes from `start` to `end`."""

    job: str
    attempt: int
    start: int
    end: int
    text: str


def job_reply(job: model.Job) -> JobReply:
    attempt = job.attempt
    failure = job.failure
    return JobReply(
        id=job.id,
        name=job.plan.name,
        operation=job.plan.operation,
        status=job.state,
        cached=job.cached,
        attempts=len(job.attempts),
        seconds=None if attempt is None else attempt.seconds,
        compute=job.plan.compute,
        started_at=None if attempt is None else attempt.started_at,
        ended_at=None if attempt is None else attempt.ended_at,
        needs=list(job.plan.upstream),
        failure=None
        if failure is None
        else FailureReply(
            kind=failure.kind,
            message=failure.message,
            type=failure.type,
            traceback=failure.traceback,
            file=failure.file,
            line=failure.line,
            exit_code=failure.exit_code,
            hint=failure.hint,
        ),
        outputs=[
            OutputReply(
                name=name, type=one.type, size_bytes=one.ref.size_bytes, digest=one.ref.digest
            )
            for name, one in job.outputs.items()
        ],
        skipped_because=job.skipped_because,
        retry_at=job.retry_at,
        message=attempt.said if attempt is not None and job.state.is_active else None,
    )


def artifact_reply(artifact: KeptArtifact, project_name: str | None) -> ArtifactReply:
    return ArtifactReply(
        id=artifact.id,
        project=project_name,
        name=artifact.name,
        version=artifact.version,
        type=artifact.type,
        format=artifact.format,
        storage=artifact.ref.storage,
        key=artifact.ref.key,
        size_bytes=artifact.ref.size_bytes,
        digest=artifact.ref.digest,
        created_at=artifact.created_at,
        provenance=dict(artifact.provenance),
    )


def execution_summary(execution: model.Execution) -> ExecutionSummary:
    return ExecutionSummary(**_execution_fields(execution))


def execution_reply(
    view: model.ExecutionView, artifacts: Sequence[ArtifactReply]
) -> ExecutionReply:
    return ExecutionReply(
        **_execution_fields(view.execution),
        jobs=[job_reply(job) for job in view.jobs],
        artifacts=list(artifacts),
    )


def _execution_fields(execution: model.Execution) -> dict[str, Any]:
    return {
        "id": execution.id,
        "project": execution.project_name,
        "pipeline": execution.pipeline,
        "commit": execution.commit,
        "status": execution.state,
        "created_at": execution.created_at,
        "ended_at": execution.ended_at,
        "cancel_requested_at": execution.cancel_requested_at,
        "rerun_of": execution.rerun_of,
        "paused_by": execution.paused_by,
        "storage": execution.storage,
        "attributes": dict(execution.attributes),
        "inputs": dict(execution.inputs),
    }


def error_info(error: DeepForgeError) -> ErrorInfo:
    """Spell an error as a part of an answer."""
    return ErrorInfo(
        code=error.code,
        message=error.message,
        hint=error.hint,
        transient=error.transient,
        details=_printable(error.details()),
    )


def error_response(error: DeepForgeError, *, status: int | None = None) -> JSONResponse:
    """Spell an error of the tree as an answer. Causes stay here: they may hold anything."""
    return JSONResponse(
        {"error": error_info(error).model_dump()},
        status if status is not None else STATUS.get(error.code, 500),
        headers=_headers(error),
    )


def _headers(error: DeepForgeError) -> dict[str, str] | None:
    if error.code == "auth_error":
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, (RateLimited, NoCapacity)) and error.retry_after_s is not None:
        return {"Retry-After": str(math.ceil(error.retry_after_s))}
    return None


def _printable(value: Any) -> Any:
    """Details are JSON by promise; a broken adapter's must not turn its error into another one."""
    if isinstance(value, Mapping):
        return {str(key): _printable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(inner) for inner in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else str(value)
