"""The compute port: what an author writes to connect one way of running a command elsewhere.

`compute/client.py` stands over it and adds, once for all adapters: retries with growing pauses,
limits, error discipline, batching. `deepforge.testing.compute` is the exam.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

from deepforge.settings import Choices

State = Literal["queued", "running", "exited", "cancelled", "missing"]
Reason = Literal["normal", "signal", "walltime", "out_of_memory", "preempted", "node_failure"]

Reach = Literal["loopback", "public", "either", "no"]
"""`loopback`: its jobs run on this machine. `public`: only the public address, which there must be.
`either`: the public one, and loopback of a server that no other machine reaches, as whoever runs jobs
there has reached us already. `no`: none."""

JOB_KEY = re.compile(r"[a-z0-9-]{1,63}")

PYTHON = "{python}"
"""The first word of a command: the adapter puts the Python interpreter of its machine there."""


@dataclass(frozen=True)
class Capabilities:
    """What an adapter can do, readable without credentials. The exam picks its tests by it."""

    log: Literal["live", "after", "none"] = "none"
    cancel_running: bool = True
    walltime: bool = False
    """The adapter itself ends a job that runs past `Resources.walltime_s`."""
    gpus: bool = False
    max_poll_batch: int = 1000
    poll_every_s: float = 1.0
    """The smallest polite pause between two polls."""
    choices: bool = False
    """The service knows values for some of the settings."""


@dataclass(frozen=True)
class Resources:
    """What a job asks for. None means: the compute's default."""

    cpus: int | None = None
    memory_bytes: int | None = None
    gpus: int | None = None
    walltime_s: float | None = None


@dataclass(frozen=True)
class NeededPath:
    """A file or folder the job must see: `space` as in `StorageAdapter.file_space`."""

    space: str
    path: str
    writable: bool = False


@dataclass(frozen=True)
class JobRequest:
    """One job. The command is always our runner; user code never appears in a request.

    `key` matches `JOB_KEY` and is compared exactly. `files` are small; each is put, by its relative
    name, in the folder the command starts in.
    """

    key: str
    command: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    resources: Resources = Resources()
    labels: Mapping[str, str] = field(default_factory=dict)
    paths: tuple[NeededPath, ...] = ()


JobHandle = Mapping[str, Any]
"""JSON values, opaque to everybody but the adapter, valid tomorrow in another process."""


@dataclass(frozen=True)
class JobReport:
    """What the adapter saw, never what it means: there is no "succeeded" from a queue.

    `exit_code` and `reason` are given with `exited`; a job ended by a signal has the code
    `-signal`. `message` is the platform's own words, if it said any. With `cancelled` the reason
    `normal` says that only people cancel there, so that it is not tried again; with `walltime` a
    message says that the limit is the platform's own.
    """

    state: State
    exit_code: int | None = None
    reason: Reason | None = None
    message: str | None = None


@dataclass(frozen=True)
class Refusal:
    """One reason why a request could never run here. `part` names the field at fault."""

    part: str
    message: str
    hint: str | None = None


class Record(Protocol):
    """A small document that is kept. `revision` grows by one with each replace."""

    @property
    def id(self) -> str: ...
    @property
    def revision(self) -> int: ...
    @property
    def body(self) -> dict[str, Any]: ...
    @property
    def data(self) -> bytes | None: ...


class Records(Protocol):
    """What an adapter may remember beyond this process: collections declared by those who open it.

    Every promise and error is that of `documents.port.DocumentStore`, which satisfies this.
    """

    async def get(self, collection: str, id: str) -> Record: ...
    async def get_many(self, collection: str, ids: Sequence[str]) -> Sequence[Record]: ...
    async def insert(
        self, collection: str, id: str, body: Mapping[str, Any], data: bytes | None = None
    ) -> Record: ...
    async def replace(
        self,
        collection: str,
        id: str,
        body: Mapping[str, Any],
        *,
        if_revision: int,
        data: bytes | None = None,
    ) -> Record: ...
    async def delete(self, collection: str, id: str, *, if_revision: int | None = None) -> None: ...
    async def find(
        self,
        collection: str,
        equal: Mapping[str, str | int | float | bool | None] | None = None,
        *,
        sort: str = "id",
        descending: bool = False,
        after: Any = None,  # a record of an earlier page
        limit: int | None = None,
    ) -> Sequence[Record]: ...


class Seal(Protocol):
    """Hides texts that are kept: `open` with the same purpose, on a server with the same key, reads
    what `seal` made. `connections.secrets.SecretBox` satisfies this, with its promises and errors."""

    def seal(self, text: str, purpose: str) -> str: ...
    def open(self, sealed: str, purpose: str) -> str: ...


@dataclass(frozen=True)
class Host:
    """What an adapter may keep: a folder on the server's machine, and records in its database.

    Both last. `owner` is the user whose connection it is. What is secret goes through `seal` before
    it is kept.
    """

    folder: Path
    records: Records | None = None
    owner: str = "local"
    seal: Seal | None = None


class ComputeAdapter(ABC):
    """One open connection to a compute. An async context manager; safe for many tasks at once.

    Raises errors of `deepforge.errors` only. Jobs go on when the adapter is closed.
    """

    capabilities: ClassVar[Capabilities]

    def __init__(self, settings: Any, host: Host) -> None:  # settings: the adapter's dataclass
        self.settings = settings
        self.host = host

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        return None

    @property
    def file_spaces(self) -> Mapping[str, str]:
        """Spaces a job sees as files, each with where it is mounted there (`/` for the same paths)."""
        return {}

    @property
    def endpoints(self) -> Mapping[str, str]:
        """The URLs of the services that are called for it, each by the setting it comes from.

        Checked before the adapter is opened, as those of a storage are.
        """
        return {}

    @property
    def machine(self) -> str | None:
        """`host:<machine>` when only a server on that machine can open this compute, else None."""
        return None

    @property
    def reaches_server(self) -> Reach:
        """Which address of our server a job can call."""
        return "public"

    async def choices(self) -> Mapping[str, Choices]:
        """What the service offers for settings, by the setting's name, the other settings being as
        they are. Values that are wrong are no errors. Errors as of `check`. Capability `choices`."""
        return {}

    @abstractmethod
    async def check(self) -> None:
        """Reach the service with these credentials and leave nothing behind.

        Raises `AuthError`, `ConfigError(fields)`, `Unavailable`.
        """

    async def why_not(self, request: JobRequest) -> Sequence[Refusal]:
        """Reasons why this request could never run here, before anything is submitted.

        A service that cannot be asked is no reason: submitting will tell.
        """
        return ()

    @abstractmethod
    async def submit(self, request: JobRequest) -> JobHandle:
        """Hand the job over, at most once per `request.key`.

        A key that is known already gives the same handle and starts nothing. After return the
        backend has accepted the job. `InvalidRequest` means the same request will always fail,
        `NoCapacity` that later may work, `OutcomeUnknown` that it may or may not have been
        accepted: the client submits the same key again.
        """

    @abstractmethod
    async def poll(self, handles: Sequence[JobHandle]) -> list[JobReport]:
        """One report per handle, in order, at once. A job nobody knows any more is `missing`.

        States only move forward: queued, running, then one of the others for good.
        """

    @abstractmethod
    async def cancel(self, handles: Sequence[JobHandle]) -> None:
        """Ask for the end of these jobs and all their descendants. A request, not a fact.

        Finished and unknown jobs are fine; safe to repeat.
        """

    @abstractmethod
    def log(self, handle: JobHandle, *, start: int = 0) -> AsyncIterator[bytes]:
        """The platform's own output of the job from byte `start` to what exists now.

        It only grows. However the job ends, all of it is there until `release`.
        """

    @abstractmethod
    async def release(self, handle: JobHandle) -> None:
        """The backend may forget the job: its folder, its record. Safe to repeat.

        Afterwards `poll` may say `missing`. A job that still runs is not touched.
        """
