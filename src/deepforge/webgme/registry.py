"""The workers there are: what each said last, when, and which process speaks under its id.

Kept in the database, but not at every question: that a worker was heard of is written at most every
`SAVE_EVERY_S`. What a process heard itself it knows better than the database.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from deepforge.compute.port import Record, Records
from deepforge.errors import AlreadyExists, Conflict, NotFound
from deepforge.ids import epoch_s, utc_now
from deepforge.webgme.workers import SILENT_AFTER_S, Need, Offer, Poll, Room

SAVE_EVERY_S = 10.0

_TRIES = 50


@dataclass(eq=False)
class Known:
    """A worker this process has heard of. `seen_s` is a reading of `time.monotonic`."""

    owner: str
    client_id: str
    revision: int
    body: Mapping[str, Any]
    saved_s: float
    seen_s: float
    seen_at: str
    instance: str | None
    questions: int = 0
    """How many it has asked this process: only the newest is given jobs."""
    hung_up: bool = False
    """Its last question was cut off before it was answered: it is gone, or will ask again."""
    is_new: bool = False
    """Another process speaks under this id than before, and has not said yet which jobs it has."""
    unlisted: dict[str, float] = field(default_factory=dict)
    """Jobs it should have and did not name, and since when (`time.monotonic`)."""
    told_again: Counter[str] = field(default_factory=Counter)
    """How often it was told again of such a job."""
    claiming: dict[str, Need] = field(default_factory=dict)
    """Jobs that are being made its own just now."""
    rival: asyncio.Event | None = None
    """Set when this worker asks, while another process claims its id."""


@dataclass(frozen=True)
class WorkerView:
    """A worker as its owner sees it. Of a worker that is not ours only labels are known."""

    id: str
    name: str
    is_ours: bool
    is_connected: bool
    labels: tuple[str, ...]
    version: str
    python: str
    platform: str
    slots: int | None
    """How many more jobs it would have taken when it last asked."""
    total: Room | None
    free: Room | None
    first_seen_at: str
    seen_at: str

    @property
    def offer(self) -> Offer:
        return Offer(frozenset(self.labels), 1, self.total)


class Registry:
    """Over records that were opened with `queue.COLLECTIONS`."""

    def __init__(self, records: Records, *, challenge_s: float = 3.0) -> None:
        self._records = records
        self._challenge_s = challenge_s
        self._known: dict[str, Known] = {}

    async def meet(self, owner: str, poll: Poll, *, nudge: Any) -> Known:
        """Note that a worker asks. `nudge(known)` ends a question of it that is being held.

        Raises `Conflict` when another process that is alive speaks under the same id: it is asked to
        show itself, and has `challenge_s` for it.
        """
        id = f"{owner} {poll.client_id}"
        known = self._known.get(id)
        if known is None:
            known = self._known.setdefault(id, await self._load(id, owner, poll))
        instance = None if poll.machine is None else poll.machine.instance
        if known.instance not in (None, instance) and instance is not None:
            await self._claim_id(known, nudge)
            known.is_new = True
        elif known.rival is not None:
            known.rival.set()
        known.instance = instance
        known.hung_up = False
        now_s = known.seen_s = time.monotonic()
        known.seen_at = utc_now()
        body = _body(owner, poll, known.body["first_seen_at"])
        if now_s - known.saved_s > SAVE_EVERY_S or _differs(known.body, body):
            await self._save(id, known, body)
        return known

    def heard_s(self, owner: str, client_id: str) -> float | None:
        """When this process heard of the worker, as `time.monotonic` has it."""
        known = self._known.get(f"{owner} {client_id}")
        return None if known is None else known.seen_s

    async def of_owner(self, owner: str) -> list[WorkerView]:
        """Every worker of the owner, by id."""
        return [self._view(one) for one in await self._records.find("workers", {"owner": owner})]

    async def get(self, owner: str, client_id: str) -> WorkerView:
        """Raises `NotFound`."""
        found = await self._records.get_many("workers", [f"{owner} {client_id}"])
        if not found:
            raise NotFound(
                f"there is no worker {client_id!r}", hint="list them: deepforge workers list"
            )
        return self._view(found[0])

    async def some(self, owner: str, client_ids: Sequence[str]) -> list[WorkerView]:
        """Those of these workers of the owner that are known."""
        ids = [f"{owner} {one}" for one in client_ids]
        return [self._view(one) for one in await self._records.get_many("workers", ids)]

    async def forget(self, owner: str, client_id: str) -> None:
        """It is there again when it asks again. Safe to repeat."""
        id = f"{owner} {client_id}"
        self._known.pop(id, None)
        await self._records.delete("workers", id)

    async def not_silent(self) -> Sequence[Record]:
        """Workers of all owners that were not found silent yet, the longest unheard first."""
        return await self._records.find("workers", {"silent": False}, sort="seen_at")

    async def mark_silent(self, record: Record) -> None:
        """Raises `Conflict` when the worker was heard of meanwhile."""
        body = {**record.body, "silent": True}
        await self._records.replace("workers", record.id, body, if_revision=record.revision)
        self._known.pop(record.id, None)

    async def _claim_id(self, known: Known, nudge: Any) -> None:
        if known.hung_up or time.monotonic() - known.seen_s > SILENT_AFTER_S:
            return
        known.rival = known.rival or asyncio.Event()
        nudge(known)
        try:
            await asyncio.wait_for(known.rival.wait(), self._challenge_s)
        except TimeoutError:
            return
        finally:
            known.rival = None
        raise Conflict(
            f"another worker that is alive speaks as {known.client_id!r}",
            hint="each worker needs a folder of its own; in one that was copied remove identity.json",
        )

    async def _load(self, id: str, owner: str, poll: Poll) -> Known:
        found = await self._records.get_many("workers", [id])
        now_s = time.monotonic()
        if found:
            record: Record = found[0]
            unheard_s = max(0.0, epoch_s(utc_now()) - epoch_s(record.body["seen_at"]))
        else:
            unheard_s = 0.0
            try:
                record = await self._records.insert("workers", id, _body(owner, poll, utc_now()))
            except AlreadyExists:
                record = await self._records.get("workers", id)
        return Known(
            owner=owner,
            client_id=poll.client_id,
            revision=record.revision,
            body=record.body,
            saved_s=now_s - unheard_s,
            seen_s=now_s - unheard_s,
            seen_at=record.body["seen_at"],
            instance=record.body["instance"],
        )

    async def _save(self, id: str, known: Known, body: Mapping[str, Any]) -> None:
        for _ in range(_TRIES):
            try:
                record = await self._records.replace(
                    "workers", id, body, if_revision=known.revision
                )
            except NotFound:  # forgotten meanwhile
                try:
                    record = await self._records.insert("workers", id, body)
                except AlreadyExists:
                    continue
            except Conflict:
                found = await self._records.get_many("workers", [id])
                known.revision = found[0].revision if found else 1
                continue
            known.revision, known.body, known.saved_s = record.revision, body, time.monotonic()
            return
        raise Conflict(f"worker {known.client_id!r} is written by others all the time")

    def _view(self, record: Record) -> WorkerView:
        body = record.body
        known = self._known.get(record.id)
        seen_at = body["seen_at"] if known is None else max(body["seen_at"], known.seen_at)
        silent_s = epoch_s(utc_now()) - epoch_s(seen_at)
        ours = body["instance"] is not None
        return WorkerView(
            id=body["client_id"],
            name=body["name"] or body["client_id"],
            is_ours=ours,
            is_connected=not body["silent"] and silent_s < SILENT_AFTER_S,
            labels=tuple(body["labels"]),
            version=body["version"],
            python=body["python"],
            platform=body["platform"],
            slots=body["slots"],
            total=Room(**body["total"]) if ours else None,
            free=Room(**body["free"]) if ours else None,
            first_seen_at=body["first_seen_at"],
            seen_at=seen_at,
        )


def _body(owner: str, poll: Poll, first_seen_at: str) -> dict[str, Any]:
    machine = poll.machine
    return {
        "owner": owner,
        "client_id": poll.client_id,
        "labels": list(poll.labels),
        "slots": poll.available,
        "instance": None if machine is None else machine.instance,
        "name": "" if machine is None else machine.name,
        "version": "" if machine is None else machine.version,
        "python": "" if machine is None else machine.python,
        "platform": "" if machine is None else machine.platform,
        "total": None if machine is None else asdict(machine.total),
        "free": None if machine is None else asdict(machine.free),
        "lease_s": poll.lease_s,
        "silent": False,
        "first_seen_at": first_seen_at,
        "seen_at": utc_now(),
    }


def _differs(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether something is new that others should soon know."""
    passing = ("seen_at", "slots", "free")
    return any(old.get(name) != value for name, value in new.items() if name not in passing)
