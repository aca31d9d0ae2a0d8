"""Execution, Job, Attempt: plain frozen values, and how they are spelled as documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from deepforge.runner.protocol import Failure
from deepforge.storage.port import ObjectRef


class JobState(StrEnum):
    """Where a job is. The last four are final."""

    WAITING = "waiting"
    """An input is not there yet."""
    READY = "ready"
    """Every input is there; it is submitted next, or after a pause when it is tried again."""
    SUBMITTING = "submitting"
    """An attempt has its number and may or may not have reached the compute."""
    QUEUED = "queued"
    """The compute has accepted the attempt."""
    RUNNING = "running"
    """The runner has begun."""
    COLLECTING = "collecting"
    """The attempt has ended; its result is looked for."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    """A job it needs did not succeed."""

    @property
    def is_final(self) -> bool:
        return self in _FINAL

    @property
    def is_active(self) -> bool:
        """An attempt is under way somewhere."""
        return self in _ACTIVE


_FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.SKIPPED})
_ACTIVE = frozenset(
    {JobState.SUBMITTING, JobState.QUEUED, JobState.RUNNING, JobState.COLLECTING}
)  # fmt: skip


class ExecutionState(StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class StoredValue:
    """A value that lies in a storage, with what is needed to read it back."""

    ref: ObjectRef
    type: str
    format: str


@dataclass(frozen=True)
class PlannedInput:
    """One input of an operation: the output of a job, an artifact's value, or None.

    `position` is the place among the variadic parts of `execute(self, *parts)`.
    """

    name: str
    position: int | None = None
    job: str | None = None
    output: str | None = None
    artifact: str | None = None
    """The artifact's id; its value is in `value`."""
    value: StoredValue | None = None

    @property
    def object_name(self) -> str:
        """Its name among the objects of an attempt, as in `runner.protocol`."""
        return f"inputs/{self.name}" + ("" if self.position is None else f".{self.position}")


@dataclass(frozen=True)
class PlannedArgument:
    """One attribute: Python literal text, or a resource function with its own arguments."""

    name: str
    literal: str | None = None
    resource_module: str | None = None
    resource_name: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Needs:
    """What an operation asks of a compute. None: the compute's default."""

    cpus: int | None = None
    memory_bytes: int | None = None
    gpus: int | None = None
    time_s: float | None = None


@dataclass(frozen=True)
class PlannedJob:
    """The part of a job that never changes."""

    id: str
    """`[a-z0-9-]`, unique in the execution; part of keys and paths."""
    name: str
    """The node's name in the pipeline, e.g. `outer/model`."""
    index: int
    module: str
    operation: str
    """The class."""
    file: str
    arguments: tuple[PlannedArgument, ...]
    inputs: tuple[PlannedInput, ...]
    outputs: tuple[str, ...]
    publishes: tuple[tuple[str, str], ...]
    """Outputs that become artifacts: (output, artifact's name)."""
    compute: str
    needs: Needs = Needs()

    @property
    def upstream(self) -> tuple[str, ...]:
        """Ids of the jobs whose outputs this one reads, each once."""
        return tuple(dict.fromkeys(one.job for one in self.inputs if one.job is not None))


@dataclass(frozen=True)
class Attempt:
    """One try of a job. `counts` is False when the try was not the job's fault or a fault at all
    (grants that ended too early): it does not use up a retry."""

    number: int
    submitted_at: str
    handle: Mapping[str, Any] | None = None
    runner: str | None = None
    """The random name of the runner that got the job over the channel."""
    started_at: str | None = None
    ended_at: str | None = None
    outcome: str | None = None
    """`succeeded`, `failed`, `cancelled`, or `lost` when no result was found."""
    failure: Failure | None = None
    seconds: float | None = None
    """How long the operation itself ran."""
    log_bytes: int | None = None
    """Size of `log.txt` in the storage; None while it is not there."""
    cancel_sent_at: str | None = None
    missing_since: str | None = None
    said: str | None = None
    """What its compute says of it while it is not over, such as its place in a queue."""
    counts: bool = True


@dataclass(frozen=True)
class Job:
    """One operation in an execution. Every change makes a new value (`machine.step`)."""

    execution: str
    plan: PlannedJob
    state: JobState = JobState.WAITING
    attempts: tuple[Attempt, ...] = ()
    retry_at: str | None = None
    values: Mapping[str, StoredValue] = field(default_factory=dict)
    """What its upstream jobs left for it: the input's `object_name` to the value."""
    outputs: Mapping[str, StoredValue] = field(default_factory=dict)
    failure: Failure | None = None
    skipped_because: str | None = None
    """Name of the job that did not succeed."""
    cancel_requested: bool = False
    published: tuple[str, ...] = ()
    """Ids of the artifacts that its outputs became."""
    cached: bool = False
    """Its outputs were taken from an earlier execution."""

    @property
    def id(self) -> str:
        return self.plan.id

    def value_of(self, one: PlannedInput) -> StoredValue | None:
        """The value of an input; None for an unconnected one (Python's None)."""
        return one.value or self.values.get(one.object_name)

    @property
    def attempt(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None

    def key(self, number: int | None = None) -> str:
        """The attempt's key at the compute: `<execution>-<job>-<number>`, at most 63 characters."""
        if number is None:
            number = self.attempts[-1].number
        return f"{self.execution}-{self.id}-{number}"

    def folder(self, number: int | None = None) -> str:
        """Where the attempt leaves everything, as a key prefix without a closing slash."""
        if number is None:
            number = self.attempts[-1].number
        return f"executions/{self.execution}/{self.id}/{number}"


@dataclass(frozen=True)
class Lease:
    """Who drives an execution, and until when. `holder` names a process of a machine."""

    holder: str
    until: str


@dataclass(frozen=True)
class Execution:
    """One run of a pipeline at a commit."""

    id: str
    owner: str
    project: str
    """The project's id."""
    project_name: str
    pipeline: str
    commit: str
    storage: str
    state: ExecutionState
    created_at: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """As chosen at launch: parameter to Python literal text."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """As chosen at launch: parameter to artifact, with its version."""
    computes: Mapping[str, str] = field(default_factory=dict)
    """As chosen at launch: node or class to compute; `` (empty) is the default."""
    machine: str | None = None
    """When set, only a server on this machine can drive it."""
    ended_at: str | None = None
    cancel_requested_at: str | None = None
    paused_by: str | None = None
    rerun_of: str | None = None
    lease: Lease | None = None


@dataclass(frozen=True)
class ExecutionView:
    """An execution with its jobs in pipeline order."""

    execution: Execution
    jobs: Sequence[Job]


@dataclass(frozen=True)
class StartRequest:
    """What a user chose when pressing play."""

    owner: str
    project: str
    """The project's name."""
    commit: str | None = None
    pipeline: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    storage: str | None = None
    compute: str | None = None
    computes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LogPart:
    """A piece of an attempt's log: `data` begins at byte `start`. `ended`: nothing will follow."""

    attempt: int
    data: bytes
    start: int
    ended: bool
