"""Our side of the job channel: what a runner may ask with the token of its attempt.

Any server process may answer: what it must know is in the documents, and the one that drives the
execution is told at once when it is this one.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from deepforge.connections.open import Opener
from deepforge.errors import (
    AttemptOver,
    AuthError,
    Conflict,
    InvalidRequest,
    NotFound,
)
from deepforge.events import Event, Events
from deepforge.execution import machine
from deepforge.execution.book import Book
from deepforge.execution.driver import Driver
from deepforge.execution.handover import Handover, Place, objects
from deepforge.execution.logs import LiveLogs
from deepforge.execution.model import Execution, Job
from deepforge.execution.store import ExecutionStore
from deepforge.runner import protocol
from deepforge.storage.client import StorageClient

SMALLEST_PART_BYTES = 64 * 1024 * 1024
MOST_PARTS = 9000  # S3 allows 10,000

_KEY = re.compile(r"([0-9a-z]{20})-([a-z0-9-]+)-([1-9][0-9]*)")


@dataclass(frozen=True)
class _Open:
    """A current attempt whose token was right."""

    execution: Execution
    job: Job
    number: int


class Attempts:
    """Every method raises `AuthError` for a wrong token and `AttemptOver` when the attempt has ended."""

    def __init__(
        self,
        store: ExecutionStore,
        opener: Opener,
        handover: Handover,
        driver: Driver,
        logs: LiveLogs,
        events: Events,
        *,
        policy: machine.Policy | None = None,
    ) -> None:
        self._store = store
        self._opener = opener
        self._handover = handover
        self._driver = driver
        self._logs = logs
        self._events = events
        self._policy = policy or machine.Policy()

    async def start(self, key: str, token: str, runner: str) -> bytes:
        """Give `job.json` to the first runner that asks, with fresh grants; it may ask again.

        Raises `Conflict` for any other runner: it must run nothing.
        """
        found = await self._open(key, token)
        job, document = await asyncio.gather(  # most of the second is done while the first waits
            self._tell(found, machine.Started(found.number, runner)),
            self._handover.job(found.execution, found.job),
        )
        attempt = job.attempts[-1]
        if attempt.number != found.number or job.state.is_final:
            raise AttemptOver(f"attempt {key} has ended")
        if attempt.runner != runner:
            raise Conflict(f"attempt {key} is run by another runner")
        return protocol.to_json(document)

    async def heartbeat(self, key: str, token: str) -> bool:
        """Whether somebody asked for the end of the attempt."""
        found = await self._open(key, token)
        return _cancel_asked(found)

    async def log(self, key: str, token: str, start: int, data: bytes) -> bool:
        """Keep a piece of the log and show it to whoever looks; answer as `heartbeat`."""
        found = await self._open(key, token)
        job = found.job
        new = self._logs.append(job.execution, job.id, found.number, start, data)
        if new:
            piece = {
                "job": job.id,
                "attempt": found.number,
                "start": start + len(data) - len(new),
                "data": new,
            }
            self._events.publish(Event(job.execution, "log", piece))
        return _cancel_asked(found)

    async def finished(self, key: str, token: str) -> None:
        """A hint that the result is there. Returns before it was looked at."""
        found = await self._open(key, token)
        conductor = self._driver.conductor(found.job.execution)
        if conductor is not None:
            conductor.finished(found.job.id, found.number)
        else:
            await self._tell_documents(found, machine.Finished(found.number))

    async def grants(self, key: str, token: str, names: Sequence[str]) -> dict[str, protocol.Grant]:
        """Fresh grants for objects of the attempt. Raises `NotFound` for any other name."""
        found = await self._open(key, token)
        for name in names:
            await self._place(found, name)
        return await self._handover.grants(found.execution, found.job, list(names))

    async def begin_output(
        self, key: str, token: str, name: str, size_bytes: int
    ) -> dict[str, Any]:
        """How an output of that size is written: `{"upload", "part_bytes", "parts"}`."""
        found = await self._open(key, token)
        place, storage = await self._output(found, name)
        part_bytes = max(SMALLEST_PART_BYTES, -(-size_bytes // MOST_PARTS))
        count = max(1, -(-size_bytes // part_bytes))
        upload = await storage.begin_parts(place.key)
        return {
            "upload": upload,
            "part_bytes": part_bytes,
            "parts": await self._parts(storage, place, upload, range(1, count + 1)),
        }

    async def complete_output(
        self, key: str, token: str, name: str, upload: str, etags: Sequence[str]
    ) -> None:
        """Make the object of its parts. Safe to repeat."""
        found = await self._open(key, token)
        place, storage = await self._output(found, name)
        await storage.complete_parts(place.key, upload, etags)

    async def abort_output(self, key: str, token: str, name: str, upload: str) -> None:
        """Free what was written of it."""
        found = await self._open(key, token)
        place, storage = await self._output(found, name)
        await storage.abort_parts(place.key, upload)

    async def read_object(
        self, key: str, token: str, name: str, *, start: int = 0
    ) -> tuple[int, AsyncGenerator[bytes, None]]:
        """The size of an input (or the code) and its bytes from `start`, passed on as they come."""
        found = await self._open(key, token)
        place = await self._place(found, name, "GET")
        one = await self._handover.source(found.execution.owner, place.storage, place.key)
        info = await one.storage.stat(one.key)
        return info.size_bytes, one.storage.get_range(one.key, start=start)

    async def write_object(
        self,
        key: str,
        token: str,
        name: str,
        chunks: AsyncIterator[bytes],
        size_bytes: int | None,
    ) -> None:
        """Store an output, the log, the events or the result, passed on as it comes."""
        found = await self._open(key, token)
        place = await self._place(found, name, "PUT")
        storage = await self._opener.storage(place.storage, owner=found.execution.owner)
        await storage.put_stream(place.key, chunks, size_bytes=size_bytes)

    async def _open(self, key: str, token: str) -> _Open:
        if not hmac.compare_digest(self._handover.token(key).encode(), token.encode()):
            raise AuthError("this is not the token of the attempt")
        parts = _KEY.fullmatch(key)
        if parts is None:
            raise NotFound(f"{key!r} is not the key of an attempt")
        execution, id, number = parts.group(1), parts.group(2), int(parts.group(3))
        conductor = self._driver.conductor(execution)
        if conductor is not None and id in conductor.book:
            found = _Open(conductor.execution, conductor.book[id], number)
        else:
            saved = await self._store.execution(execution)
            found = _Open(saved.value, (await self._store.job(execution, id)).value, number)
        attempt = found.job.attempt
        if attempt is None or attempt.number != number or found.job.state.is_final:
            raise AttemptOver(f"attempt {key} has ended")
        return found

    async def _tell(self, found: _Open, event: machine.Event) -> Job:
        conductor = self._driver.conductor(found.job.execution)
        if conductor is not None:
            return await conductor.tell(found.job.id, event)
        return await self._tell_documents(found, event)

    async def _tell_documents(self, found: _Open, event: machine.Event) -> Job:
        """Another process drives, or nobody does: change the document alone.

        What the machine says is to be done is left to the driver, who finds it in the document.
        """
        saved = await self._store.job(found.job.execution, found.job.id)
        book = Book(
            self._store, [saved], policy=self._policy, changed=lambda job: self._driver.look()
        )
        book.tell(found.job.id, event)
        await book.save([found.job.id])
        return book[found.job.id]

    async def _place(self, found: _Open, name: str, method: str | None = None) -> Place:
        bundle = await self._handover.bundle(found.execution)
        place = objects(found.execution, found.job, bundle).get(name)
        if place is None or (method is not None and place.method != method):
            raise NotFound(f"attempt {found.job.key()} has no object {name!r} to {method or 'use'}")
        return place

    async def _output(self, found: _Open, name: str) -> tuple[Place, StorageClient]:
        place = await self._place(found, f"outputs/{name}", "PUT")
        storage = await self._opener.storage(place.storage, owner=found.execution.owner)
        if not storage.capabilities.part_grants:
            raise InvalidRequest(
                f"storage {place.storage!r} takes each output in one piece", part=name
            )
        return place, storage

    async def _parts(
        self, storage: StorageClient, place: Place, upload: str, numbers: range
    ) -> list[dict[str, Any]]:
        granted = []
        for number in numbers:
            grant = await storage.grant_part(place.key, upload, number, expires_s=PART_GRANT_S)
            granted.append({"kind": grant.kind, "method": grant.method, "url": grant.url,
                            "headers": dict(grant.headers)})  # fmt: skip
        return granted


PART_GRANT_S = 12 * 3600.0


def _cancel_asked(found: _Open) -> bool:
    return found.job.cancel_requested or found.execution.cancel_requested_at is not None
