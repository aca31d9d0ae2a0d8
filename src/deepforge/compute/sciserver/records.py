"""What SciServer says of jobs and domains: read from its JSON, without surprises."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from deepforge.compute.port import State
from deepforge.errors import Unavailable

FINISHED, SUCCESS, ERROR, CANCELED = 16, 32, 64, 128
_STARTED = 8

Phase = Literal["queued", "running", "over", "unknown"]


@dataclass(frozen=True)
class Message:
    """What the service noted about a job; `label` is its kind, such as ERROR or TIMEOUT."""

    label: str
    content: str


@dataclass(frozen=True)
class Job:
    """A job, as much as we use of it. Lists give no messages and no time limit."""

    id: int
    label: str
    status: int
    results_folder: str | None = None
    timeout_s: float | None = None
    messages: tuple[Message, ...] = ()

    @property
    def phase(self) -> Phase:
        """Status values are bits, and may be combined: 48 is finished and successful."""
        if self.status & (CANCELED | ERROR | SUCCESS):
            return "over"
        if self.status & (FINISHED | _STARTED):
            return "running"  # finished: its container ended, and it is being cleaned up
        return "queued" if self.status > 0 else "unknown"

    @property
    def was_cancelled(self) -> bool:
        return bool(self.status & CANCELED)

    @property
    def failed(self) -> bool:
        return bool(self.status & ERROR)

    @property
    def timed_out(self) -> bool:
        return any(one.label == "TIMEOUT" for one in self.messages)

    @property
    def said(self) -> str | None:
        """The service's own words about its end; None if there are none."""
        told = [
            one.content.strip()
            for one in self.messages
            if one.label in ("ERROR", "TIMEOUT", "CANCEL")
        ]
        return "; ".join(one for one in told if one) or None


@dataclass(frozen=True)
class MountableVolume:
    """A user volume that a domain can mount. `id` is what a submission names."""

    id: int
    root: str
    owner: str
    name: str
    actions: frozenset[str]

    @property
    def path(self) -> str:
        return f"{self.root}/{self.owner}/{self.name}"


@dataclass(frozen=True)
class Domain:
    """Where jobs run, and what this user may use there."""

    name: str
    endpoint: str
    images: tuple[str, ...]
    data_volumes: tuple[str, ...]
    volumes: tuple[MountableVolume, ...]

    def volume(self, path: str) -> MountableVolume | None:
        """The volume in which a path of the file service lies, such as `Storage/alice/lab/a.txt`."""
        inside = f"{path.strip('/')}/"
        return next((one for one in self.volumes if inside.startswith(f"{one.path}/")), None)

    def data_volume(self, path: str) -> str | None:
        first = path.strip("/").partition("/")[0]
        return first if first in self.data_volumes else None


def forward(before: State | None, phase: Phase) -> State:
    """The state to report for a job that is not over: never one that lies behind what was reported."""
    if phase == "running" or before == "running":
        return "running"
    return "queued"


def read_job(value: Any) -> Job:
    """Raises `Unavailable` for what is no record of a job."""
    try:
        return Job(
            id=int(value["id"]),
            label=str(value.get("submitterDID") or ""),
            status=int(value.get("status") or 0),
            results_folder=value.get("resultsFolderURI") or None,
            timeout_s=None if value.get("timeout") is None else float(value["timeout"]),
            messages=tuple(
                Message(str(one.get("label") or ""), str(one.get("content") or ""))
                for one in value.get("messages") or ()
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unavailable("SciServer answered with a job that cannot be read") from error


def read_domain(value: Any) -> Domain:
    """Raises `Unavailable` for what is no record of a domain."""
    try:
        return Domain(
            name=str(value["name"]),
            endpoint=str(value["apiEndpoint"]),
            images=tuple(str(one["name"]) for one in value.get("images") or ()),
            data_volumes=tuple(str(one["name"]) for one in value.get("volumes") or ()),
            volumes=tuple(
                MountableVolume(
                    int(one["id"]),
                    str(one["rootVolumeName"]),
                    str(one["owner"]),
                    str(one["name"]),
                    frozenset(one.get("allowedActions") or ()),
                )
                for one in value.get("userVolumes") or ()
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unavailable("SciServer answered with a domain that cannot be read") from error


def places(table: Any, username: str) -> list[int]:
    """Which places in the queues of the domains this user's waiting jobs have, from 1.

    The table names no jobs, and its form is not documented: what is not understood is no place.
    """
    waiting: dict[str, list[tuple[float, str]]] = {}
    for row in _rows(table):
        try:
            ranking, status = float(row["ranking"]), int(row["status"])
        except (KeyError, TypeError, ValueError):
            continue
        if 0 < status < _STARTED and ranking >= 0:  # what runs has negative ones
            queue = waiting.setdefault(str(row.get("domainName")), [])
            queue.append((ranking, str(row.get("username"))))
    return [
        place
        for queue in waiting.values()
        for place, (_, name) in enumerate(sorted(queue, key=lambda one: one[0]), 1)
        if name == username
    ]


def _rows(table: Any) -> Iterable[Mapping[str, Any]]:
    if not isinstance(table, Mapping):
        return
    columns, rows = table.get("columns"), table.get("rows")
    if not isinstance(columns, list) or not isinstance(rows, list):
        return
    names = [one.get("name") if isinstance(one, Mapping) else one for one in columns]
    for row in rows:
        if isinstance(row, list) and len(row) == len(names):
            yield {str(name): value for name, value in zip(names, row, strict=True)}
