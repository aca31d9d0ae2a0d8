"""Workers: what one says when it asks for work, what is known of it, and which jobs it may get.

Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from deepforge.compute.port import Resources
from deepforge.errors import InvalidRequest
from deepforge.webgme.jobs import Job, labels_of

OUR_LEASE_S = 75 * 60.0
"""So long one of our workers may be silent: it works through an outage of an hour."""
ORIGINAL_LEASE_S = 25.0
"""As the original server has it: it polls every second, and forgets nothing when it is back."""
SILENT_AFTER_S = 60.0
"""A worker that waits for work is heard of more often than this."""

_MOST_RUNNING = 10_000


@dataclass(frozen=True)
class Room:
    """Processors, memory and GPUs: what a machine has, or has free."""

    cpus: float = 0.0
    memory_bytes: int = 0
    gpus: int = 0


@dataclass(frozen=True)
class Machine:
    """What a worker of ours tells of itself. `instance` is random for each start of the program."""

    instance: str
    name: str = ""
    version: str = ""
    python: str = ""
    platform: str = ""
    total: Room = Room()
    free: Room = Room()


@dataclass(frozen=True)
class Poll:
    """One question for work. `machine` is None for a worker that is not ours."""

    client_id: str
    available: int = 0
    labels: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    machine: Machine | None = None

    @property
    def lease_s(self) -> float:
        return ORIGINAL_LEASE_S if self.machine is None else OUR_LEASE_S


@dataclass(frozen=True)
class Need:
    """What a job needs of a worker. A job that asks for nothing counts as one processor."""

    labels: frozenset[str] = frozenset()
    cpus: int | None = None
    memory_bytes: int = 0
    gpus: int = 0
    runner: str | None = None


@dataclass(frozen=True)
class Offer:
    """What a worker has to give. Of a worker that is not ours nothing is known but its labels: it
    gets no job that asks for memory, GPUs or more than one processor."""

    labels: frozenset[str]
    slots: int
    free: Room | None
    total: Room | None = None
    runner: str | None = None
    """The one runner that all jobs of an answer share, once it is known."""

    def fits(self, need: Need) -> bool:
        if self.slots < 1 or not need.labels <= self.labels:
            return False
        if None not in (self.runner, need.runner) and self.runner != need.runner:
            return False
        if self.free is None:
            return (need.cpus or 1) <= 1 and not need.memory_bytes and not need.gpus
        return (
            (need.cpus or 1) <= self.free.cpus
            and need.memory_bytes <= self.free.memory_bytes
            and need.gpus <= self.free.gpus
        )

    def would_fit(self, need: Need) -> bool:
        """Whether the job would fit if the worker had nothing else to do."""
        return replace(self, slots=1, free=self.total, runner=None).fits(need)

    def without(self, need: Need) -> Offer:
        """What is left when a job with this need is taken on."""
        runner = self.runner or need.runner
        if self.free is None:
            return replace(self, slots=self.slots - 1, runner=runner)
        free = Room(
            self.free.cpus - (need.cpus or 1),
            self.free.memory_bytes - need.memory_bytes,
            self.free.gpus - need.gpus,
        )
        return replace(self, slots=self.slots - 1, free=free, runner=runner)


def need_of(job: Job) -> Need:
    asked: Resources = job.resources
    return Need(
        frozenset(job.labels), asked.cpus, asked.memory_bytes or 0, asked.gpus or 0, job.runner
    )


def offer_of(poll: Poll) -> Offer:
    labels = frozenset(poll.labels)
    if poll.machine is None:
        return Offer(labels, poll.available, None)
    return Offer(labels, poll.available, poll.machine.free, poll.machine.total)


def read_poll(value: Mapping[str, Any]) -> Poll:
    """Read the ClientRequest of the protocol, with or without our fields. Raises `InvalidRequest`."""
    client_id = value.get("clientId")
    if not _is_name(client_id):
        raise InvalidRequest("clientId is not a text of 1 to 128 characters", part="clientId")
    running = value.get("runningJobs") or []
    if (
        not isinstance(running, list)
        or len(running) > _MOST_RUNNING
        or not all(isinstance(one, str) for one in running)
    ):
        raise InvalidRequest("runningJobs is not a list of job ids", part="runningJobs")
    ours = value.get("deepforge")
    if ours is not None and not isinstance(ours, dict):
        raise InvalidRequest("deepforge is not an object", part="deepforge")
    return Poll(
        client_id=str(client_id),
        available=int(_number(value, "availableProcesses")),
        labels=labels_of(value.get("labels") or []),
        running=tuple(running),
        machine=None if ours is None else _machine(ours),
    )


def why_it_waits(need: Need, workers: Iterable[Offer]) -> str:
    """Say in plain words why a job with this need is not running. `workers`: those connected, with
    all they have, not only what is free."""
    left = list(workers)
    if not left:
        return "no worker is connected"
    labelled = [one for one in left if need.labels <= one.labels]
    if not labelled:
        return f"no connected worker has the labels {', '.join(sorted(need.labels))}"
    if not any(replace(one, slots=1).fits(need) for one in labelled):
        asked = [f"{need.cpus or 1} processors"]
        if need.memory_bytes:
            asked.append(f"{need.memory_bytes / 2**30:.1f} GiB of memory")
        if need.gpus:
            asked.append(f"{need.gpus} GPUs")
        return f"no connected worker has {', '.join(asked)}"
    return "every worker that could run it is busy"


def _machine(value: Mapping[str, Any]) -> Machine:
    texts = {
        name: str(value.get(name) or "")[:256]
        for name in ("instance", "name", "version", "python", "platform")
    }
    if not texts["instance"]:
        raise InvalidRequest("a worker of ours names its instance", part="deepforge.instance")
    total = _room(value, "deepforge")
    free = value.get("free")
    if free is not None and not isinstance(free, dict):
        raise InvalidRequest("free is not an object", part="deepforge.free")
    return Machine(**texts, total=total, free=total if free is None else _room(free, "free"))


def _room(value: Mapping[str, Any], part: str) -> Room:
    return Room(
        _number(value, "cpus", part),
        int(_number(value, "memoryBytes", part)),
        int(_number(value, "gpus", part)),
    )


def _number(value: Mapping[str, Any], name: str, part: str | None = None) -> float:
    """Not negative; absent is 0."""
    found = value.get(name)
    if found is None:
        return 0
    if not isinstance(found, int | float) or isinstance(found, bool) or not abs(found) < 2**53:
        where = name if part is None else f"{part}.{name}"
        raise InvalidRequest(f"{name} is not a number", part=where)
    return max(0, found)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 128 and value.isprintable()
