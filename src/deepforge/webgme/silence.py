"""Workers that are silent for longer than their lease lose what they have."""

from __future__ import annotations

import asyncio
import contextlib
import time

import structlog

from deepforge.compute.port import Record
from deepforge.errors import Conflict, DeepForgeError, NotFound
from deepforge.ids import epoch_s, utc_now
from deepforge.webgme.queue import Queue
from deepforge.webgme.registry import SAVE_EVERY_S, Registry

log = structlog.get_logger()


class Silence:
    """Judges by our own clock alone: what workers think the time is does not matter."""

    def __init__(self, queue: Queue, registry: Registry, *, every_s: float) -> None:
        self._queue = queue
        self._registry = registry
        self._every_s = every_s
        self._began_s = time.monotonic()
        self.originals = 0
        """How many workers that are not ours are not silent."""

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.sweep()
            except DeepForgeError as error:
                log.warning("workers_unreadable", error=error.message)
            except Exception:  # this loop must survive what nobody thought of
                log.exception("workers_unreadable")

    async def sweep(self) -> None:
        """Look once. Silence counts from our own start at the earliest: while no server ran, no
        worker could be heard."""
        records = await self._registry.not_silent()
        self.originals = sum(record.body["instance"] is None for record in records)
        for record in records:
            silent_s, lease_s = self._silent_s(record), record.body["lease_s"]
            if self._heard_s(record) is None:
                lease_s += SAVE_EVERY_S  # others may have heard of it, and not written it yet
            if silent_s > lease_s:
                with contextlib.suppress(Conflict, NotFound):
                    await self._lose(record, silent_s)

    async def _lose(self, record: Record, silent_s: float) -> None:
        owner, client_id = record.body["owner"], record.body["client_id"]
        await self._registry.mark_silent(record)
        log.warning("worker_silent", worker=client_id, silent_s=round(silent_s))
        for hash in await self._queue.held(owner, client_id):
            message = f"worker {client_id} was not heard of for {silent_s:.0f} s"
            await self._queue.lose(owner, hash, message)

    def _silent_s(self, record: Record) -> float:
        now_s = time.monotonic()
        heard_s = self._heard_s(record)
        if heard_s is None:
            heard_s = now_s - max(0.0, epoch_s(utc_now()) - epoch_s(record.body["seen_at"]))
        return now_s - max(heard_s, self._began_s)

    def _heard_s(self, record: Record) -> float | None:
        return self._registry.heard_s(record.body["owner"], record.body["client_id"])
