"""The jobs of one execution as this process knows them. Every change of a job goes through here.

Events are folded in memory at once and stored when it matters (`save`), so that several changes cost
one write. A write that comes too late (another process changed the job) folds the same events over
the newer version instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from deepforge.errors import Conflict
from deepforge.execution.machine import Event, Instruction, Policy, step
from deepforge.execution.model import Job
from deepforge.execution.store import ExecutionStore, Saved
from deepforge.ids import utc_now


@dataclass
class _Page:
    saved: Job
    revision: int
    current: Job
    pending: list[tuple[Event, tuple[Instruction, ...]]] = field(default_factory=list)
    """What was told since it was stored."""
    due: list[Instruction] = field(default_factory=list)
    """What is to be done about what is stored."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Book:
    """Not thread-safe; one event loop. `changed` hears every job that was stored differently."""

    def __init__(
        self,
        store: ExecutionStore,
        jobs: Sequence[Saved[Job]],
        *,
        policy: Policy,
        changed: Callable[[Job], None],
        now: Callable[[], str] = utc_now,
    ) -> None:
        self.open = sum(not one.value.state.is_final for one in jobs)
        """How many jobs have not ended."""
        self._store = store
        self._policy = policy
        self._changed = changed
        self._now = now
        self._pages = {one.value.id: _Page(one.value, one.revision, one.value) for one in jobs}

    def __getitem__(self, id: str) -> Job:
        """The job with every event folded in, stored or not."""
        return self._pages[id].current

    def __contains__(self, id: str) -> bool:
        return id in self._pages

    def __iter__(self) -> Iterator[Job]:
        return (page.current for page in self._pages.values())

    @property
    def policy(self) -> Policy:
        return self._policy

    def is_stored(self, id: str) -> bool:
        """Whether everything told of the job is stored."""
        return self._pages[id].current is self._pages[id].saved

    def tell(self, id: str, event: Event) -> Job:
        """Fold an event in. Its instructions come out of the next `save`."""
        page = self._pages[id]
        job, instructions = step(page.current, event, now=self._now(), policy=self._policy)
        if job is not page.current:
            self._put(page, job)
            page.pending.append((event, instructions))
        return job

    async def save(self, ids: Iterable[str]) -> list[tuple[Job, Instruction]]:
        """Store these jobs and return what is to be done now, each instruction once.

        When this returns, everything told before is stored, by this call or by another.
        """
        pages = [self._pages[id] for id in dict.fromkeys(ids)]
        if len(pages) == 1:  # as most often; no task is needed
            return await self._save(pages[0])
        found = await asyncio.gather(*map(self._save, pages))
        return [one for part in found for one in part]

    async def read_again(self, ids: Sequence[str]) -> None:
        """Take over what other processes stored of these jobs."""
        if not ids:
            return
        execution = self._pages[ids[0]].saved.execution
        for newer in await self._store.jobs(execution, ids):
            page = self._pages[newer.value.id]
            async with page.lock:
                if newer.revision > page.revision:
                    self._fold_again(page, newer)

    async def _save(self, page: _Page) -> list[tuple[Job, Instruction]]:
        async with page.lock:
            while page.current is not page.saved:
                job = page.current
                told = len(page.pending)
                try:
                    page.revision = await self._store.save_job(job, if_revision=page.revision)
                except Conflict:
                    self._fold_again(page, await self._store.job(job.execution, job.id))
                    continue
                page.saved = job
                page.due += [one for _, some in page.pending[:told] for one in some]
                del page.pending[:told]
                self._changed(job)
            due, page.due = page.due, []
            return [(page.current, one) for one in due]

    def _fold_again(self, page: _Page, newer: Saved[Job]) -> None:
        page.saved = newer.value
        page.revision = newer.revision
        self._put(page, newer.value)
        pending, page.pending = page.pending, []
        for event, _ in pending:
            self.tell(newer.value.id, event)
        self._changed(newer.value)

    def _put(self, page: _Page, job: Job) -> None:
        self.open += page.current.state.is_final - job.state.is_final
        page.current = job
