"""Executions and jobs kept as documents. Every change is a compare-and-set on one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from deepforge.documents.port import Collection, Document, DocumentStore, Draft
from deepforge.errors import Conflict, NotFound
from deepforge.execution.model import Execution, ExecutionState, Job

T = TypeVar("T")

COLLECTIONS = (
    Collection("executions", indexes=(("owner",), ("owner", "project_name"), ("state",))),
    Collection("jobs", indexes=(("execution",),)),
)

_EXECUTION = TypeAdapter(Execution)
_JOB = TypeAdapter(Job)


@dataclass(frozen=True)
class Saved(Generic[T]):
    """A value as it is stored, with the revision that a change must name."""

    value: T
    revision: int


class ExecutionStore:
    """Over any `DocumentStore` that was opened with `COLLECTIONS`."""

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents

    async def create(self, execution: Execution, jobs: Sequence[Job]) -> None:
        """Store a new execution whole.

        The jobs come first: an execution that can be seen has all its jobs, and a crash in between
        leaves nothing but jobs nobody refers to.
        """
        await self._documents.insert_missing(
            "jobs", [Draft(_job_id(job.execution, job.id), _job_body(job)) for job in jobs]
        )
        await self._documents.insert("executions", execution.id, _execution_body(execution))

    async def execution(self, id: str) -> Saved[Execution]:
        """Raises `NotFound`."""
        try:
            return _execution(await self._documents.get("executions", id))
        except NotFound as error:
            raise NotFound(
                f"there is no execution {id!r}", hint="list them: deepforge executions list"
            ) from error

    async def executions(
        self,
        owner: str,
        *,
        project: str | None = None,
        state: ExecutionState | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Execution]:
        """List executions of an owner, newest first; `after` is the id of the last one seen."""
        equal: dict[str, Any] = {"owner": owner}
        if project is not None:
            equal["project_name"] = project
        if state is not None:
            equal["state"] = str(state)
        behind = None if after is None else Document(after, 0, {})
        found = await self._documents.find(
            "executions", equal, descending=True, after=behind, limit=limit
        )
        return [_execution(document).value for document in found]

    async def running(self) -> list[Saved[Execution]]:
        """Every execution that has not ended, oldest first, of all owners."""
        found = await self._documents.find("executions", {"state": str(ExecutionState.RUNNING)})
        return [_execution(document) for document in found]

    async def change_execution(
        self, id: str, change: Callable[[Execution], Execution | None]
    ) -> Execution:
        """Apply `change` to the newest version until nobody came between. None changes nothing.

        Raises `NotFound`; what `change` raises comes out.
        """
        while True:
            saved = await self.execution(id)
            changed = change(saved.value)
            if changed is None:
                return saved.value
            try:
                await self._documents.replace(
                    "executions", id, _execution_body(changed), if_revision=saved.revision
                )
            except Conflict:
                continue
            return changed

    async def jobs(self, execution: str, ids: Sequence[str] | None = None) -> list[Saved[Job]]:
        """The jobs of an execution, or those of them with these ids, in pipeline order."""
        if ids is None:
            documents = await self._documents.find("jobs", {"execution": execution})
        else:
            wanted = [_job_id(execution, id) for id in ids]
            documents = await self._documents.get_many("jobs", wanted)
        return sorted(map(_job, documents), key=lambda saved: saved.value.plan.index)

    async def job(self, execution: str, id: str) -> Saved[Job]:
        """Raises `NotFound`."""
        try:
            return _job(await self._documents.get("jobs", _job_id(execution, id)))
        except NotFound as error:
            raise NotFound(
                f"execution {execution} has no job {id!r}",
                hint=f"list its jobs: deepforge executions show {execution}",
            ) from error

    async def save_job(self, job: Job, *, if_revision: int) -> int:
        """Store the job in place of that revision and return the new one. Raises `Conflict`."""
        document = await self._documents.replace(
            "jobs", _job_id(job.execution, job.id), _job_body(job), if_revision=if_revision
        )
        return document.revision


def _job_id(execution: str, job: str) -> str:
    return f"{execution}-{job}"


def _job_body(job: Job) -> dict[str, Any]:
    body: dict[str, Any] = _JOB.dump_python(job, mode="json")
    return body


def _execution_body(execution: Execution) -> dict[str, Any]:
    body: dict[str, Any] = _EXECUTION.dump_python(execution, mode="json")
    return body


def _job(document: Document) -> Saved[Job]:
    return Saved(_JOB.validate_python(document.body), document.revision)


def _execution(document: Document) -> Saved[Execution]:
    return Saved(_EXECUTION.validate_python(document.body), document.revision)
