"""Drives one execution to its end: tells the machine what happened and does what it says.

It compares what should be with what is (every job, at the start and now and then), and reacts at once
to hints. A lost hint costs seconds: the compute is polled and the documents are read again. Runners
may talk to any server, so other processes write how jobs go, too; only we say what follows from it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import structlog

from deepforge.compute.port import JobReport
from deepforge.connections.open import Opener
from deepforge.errors import DeepForgeError, NotFound
from deepforge.events import Event, Events
from deepforge.execution import machine
from deepforge.execution.book import Book
from deepforge.execution.effects import Effects
from deepforge.execution.model import Execution, ExecutionState, Job, JobState, StoredValue
from deepforge.execution.store import ExecutionStore
from deepforge.ids import epoch_s, utc_now

log = structlog.get_logger()

READ_AGAIN_S = 2.0
"""How often the documents are read for what other processes wrote, and every job is looked at."""
READ_AT_ONCE = 200
"""So many jobs are read again at a time: thousands may run."""
POLL_S = 1.0
"""The shortest pause between two polls: what matters soon is told over the channel."""

_ENDS_SOON_S = (0.005, 0.02, 0.05, 0.1, 0.3, 1.0, 3.0)
"""A runner tells of its result shortly before it ends; then its attempt is released."""
_ENDS_LATE_S = (6.0, 12.0, 24.0, 48.0)
"""Batch systems take their time to notice that. Nobody waits for it any more."""


class Conductor:
    """One execution while this process holds its lease. Owns every task it starts."""

    def __init__(
        self,
        execution: Execution,
        book: Book,
        *,
        store: ExecutionStore,
        opener: Opener,
        effects: Effects,
        events: Events,
    ) -> None:
        self.execution = execution
        self.book = book
        self._store = store
        self._opener = opener
        self._effects = effects
        self._events = events
        self._downstream = _downstream(book)
        self._awaited = {job.id: set(job.plan.upstream) for job in book}  # what may hold a job up
        self._to_release = [
            (job, one.number) for job in book if job.state.is_final for one in job.attempts
        ]
        self._tasks: asyncio.TaskGroup
        self._ended = asyncio.Event()
        self._busy: set[tuple[str, str]] = set()  # (attempt's key, what is being done for it)
        self._pauses: dict[str, asyncio.TimerHandle] = {}
        self._troubles: dict[str, str] = {}  # what holds us up, by what cannot be done
        self._unanswered_s: dict[str, float] = {}  # since when a compute did not hear our cancel
        self._read_next = 0
        self._cancelling = False

    async def run(self) -> Execution:
        """Drive until every job is final; return the execution as it ended.

        When it is cancelled or raises, jobs under way go on and the next holder of the lease finds
        them by their documents.
        """
        async with asyncio.TaskGroup() as self._tasks:
            watch = self._tasks.create_task(self._watch())
            poll = self._tasks.create_task(self._poll())
            try:
                await self._take_up()
                await self._ended.wait()
            finally:
                watch.cancel()
                poll.cancel()
                for pause in self._pauses.values():
                    pause.cancel()
        await self.book.save([job.id for job in self.book])
        for pause_s in _ENDS_SOON_S:
            await self._release()
            if not self._to_release:
                break
            await asyncio.sleep(pause_s)
        ended = await self._finish()
        for pause_s in _ENDS_LATE_S:
            if not self._to_release:
                break
            await asyncio.sleep(pause_s)
            await self._release()
        return ended

    async def tell(self, id: str, event: machine.Event) -> Job:
        """Something happened to a job. When this returns it is stored and what follows has begun."""
        await self._settle(self._note(id, event))
        return self.book[id]

    def finished(self, id: str, number: int) -> None:
        """The runner of this attempt says that its result is there: look for it at once.

        That we look is not worth a write: what is found is stored, and would be found again.
        """
        self._note(id, machine.Finished(number))
        job = self.book[id]
        if job.state is JobState.COLLECTING:
            self._do(job, "collect", partial(self._collect, job, machine.Collect(number)))

    async def cancel(self) -> None:
        """End every job that has not ended."""
        if self._cancelling:
            return
        self._cancelling = True
        changed: list[str] = []
        for job in reversed(list(self.book)):  # else what waits would be skipped, not cancelled
            changed += self._note(job.id, machine.CancelAsked())
        await self._settle(changed)

    # ── what follows from what ────────────────────────────────────────────────────────────────────

    def _note(self, id: str, event: machine.Event) -> list[str]:
        """Fold an event in, and all that follows from it at once; return the jobs that changed."""
        before = self.book[id]
        after = self.book.tell(id, event)
        changed = [id]
        if after.state is JobState.READY:
            changed += self._due(after)
        if after.state.is_final and not before.state.is_final:
            for next_id in self._downstream[id]:
                awaited = self._awaited[next_id]
                awaited.discard(id)
                if not awaited or after.state is not JobState.SUCCEEDED:
                    changed += self._consider(next_id)
        return changed

    def _consider(self, id: str) -> list[str]:
        """Free or starve a waiting job if its upstream jobs are decided."""
        job = self.book[id]
        if job.state is not JobState.WAITING:
            return []
        upstream = [self.book[one] for one in job.plan.upstream]
        for one in upstream:
            if one.state.is_final and one.state is not JobState.SUCCEEDED:
                return self._note(id, machine.Starved(one.plan.name))
        if any(one.state is not JobState.SUCCEEDED for one in upstream):
            return []
        return self._note(id, machine.Freed(_values(job, self.book)))

    def _due(self, job: Job) -> list[str]:
        """Submit a ready job, now or when its pause is over."""
        if job.retry_at is not None:
            pause_s = epoch_s(job.retry_at) - epoch_s(utc_now())
            if pause_s > 0:
                if job.id not in self._pauses:
                    self._pauses[job.id] = asyncio.get_running_loop().call_later(
                        pause_s, lambda: self._do(job, "due", partial(self._resume, job.id))
                    )
                return []
        return self._note(job.id, machine.Due())

    async def _resume(self, id: str) -> None:
        del self._pauses[id]
        if self.book[id].state is JobState.READY:
            await self._settle(self._due(self.book[id]))

    async def _settle(self, ids: Iterable[str]) -> None:
        """Store these jobs, then do what the machine said."""
        for job, instruction in await self.book.save(ids):
            self._begin(job, instruction)
        if self.book.open == 0:
            self._ended.set()

    # ── doing ─────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, job: Job, instruction: machine.Instruction) -> None:
        if isinstance(instruction, machine.Submit):
            self._do(job, "submit", partial(self._submit, job))
        elif isinstance(instruction, machine.Collect):
            self._do(job, "collect", partial(self._collect, job, instruction))
        elif isinstance(instruction, machine.Cancel):
            self._do(job, "cancel", partial(self._cancel, job))
        else:
            self._effects.drop_log(job, instruction.attempt)
            self._to_release.append((job, instruction.attempt))

    def _do(self, job: Job, what: str, doing: Callable[[], Awaitable[None]]) -> None:
        """Do it in a task of its own, unless the same is being done for this attempt already."""
        key = (job.key(), what)
        if key in self._busy:
            return

        async def guarded() -> None:
            try:
                await doing()
            finally:
                self._busy.discard(key)

        task = guarded()
        try:
            self._tasks.create_task(task)
        except RuntimeError:  # we are leaving; whoever drives it next finds it in the documents
            task.close()
        else:
            self._busy.add(key)

    async def _submit(self, job: Job) -> None:
        answer = await self._effects.submit(
            self.execution,
            job,
            lambda: self._cancelling,
            partial(self._trouble, f"submit {job.id}"),
        )
        now = self.book[job.id]
        if isinstance(answer, machine.Accepted) and not (
            now.cancel_requested or now.state.is_final
        ):
            # not worth a write of its own: asking again with the same key gives the same handle
            self._note(job.id, answer)
            self._show(self.book[job.id])
            return
        await self.tell(job.id, answer)

    async def _collect(self, job: Job, instruction: machine.Collect) -> None:
        answer = await self._effects.collect(
            self.execution,
            job,
            instruction.report,
            lambda: self._cancelling,
            partial(self._trouble, f"collect {job.id}"),
        )
        await self.tell(job.id, answer)

    async def _cancel(self, job: Job) -> None:
        try:
            await self._effects.cancel(self.execution, job)
        except DeepForgeError as error:
            log.warning("cancel_failed", job=job.key(), error=error.message)  # `_poll` asks again

    async def _release(self) -> None:
        """Let go of what has ended: many at a time, since nobody waits for it."""
        ended, self._to_release = self._to_release, []
        self._to_release += await self._effects.release(self.execution, ended)

    async def _trouble(self, what: str, text: str | None) -> None:
        """Say in the execution's document what holds it up, or that nothing does any more."""
        if text is None:
            self._troubles.pop(what, None)
        else:
            self._troubles[what] = text
        if self._shown_trouble != self.execution.paused_by:
            await self._change(lambda execution: replace(execution, paused_by=self._shown_trouble))

    def _show(self, job: Job) -> None:
        self._events.publish(Event(self.execution.id, "job", {"job": job}))

    @property
    def _shown_trouble(self) -> str | None:
        return next(iter(self._troubles.values()), None)

    # ── level, not edge ───────────────────────────────────────────────────────────────────────────

    async def _watch(self) -> None:
        """Now and then read what other processes wrote, and look at every job."""
        while True:
            await asyncio.sleep(READ_AGAIN_S)
            try:
                self.execution = (await self._store.execution(self.execution.id)).value
                await self.book.read_again(self._next_to_read())
                await self._take_up()
            except DeepForgeError as error:
                if not error.transient:
                    raise
                log.warning("read_failed", execution=self.execution.id, error=error.message)

    def _next_to_read(self) -> list[str]:
        active = [job.id for job in self.book if job.state.is_active]
        if self._read_next >= len(active):
            self._read_next = 0
        first, self._read_next = self._read_next, self._read_next + READ_AT_ONCE
        return active[first : self._read_next]

    async def _take_up(self) -> None:
        """Look at every job once: begin what is due, go on with what an earlier holder began, or
        another process heard of. Safe at any time: what is being done is not done twice."""
        if self.execution.cancel_requested_at is not None:
            await self.cancel()
        changed: list[str] = []
        for job in list(self.book):
            if job.state is JobState.WAITING:
                changed += self._consider(job.id)
            elif job.state is JobState.READY:
                changed += self._due(job)
            elif not self.book.is_stored(job.id):
                changed.append(job.id)
            elif job.state is JobState.COLLECTING:
                self._begin(job, machine.Collect(job.attempts[-1].number))
            elif job.state.is_active and job.attempts[-1].handle is None:
                self._begin(job, machine.Submit(job.attempts[-1].number))
        await self._settle(changed)

    async def _poll(self) -> None:
        """Ask every compute about all its jobs at once, as often as is polite."""
        while True:
            by_compute: dict[str, list[Job]] = {}
            for job in self.book:
                if job.state.is_active and job.attempts[-1].handle is not None:
                    by_compute.setdefault(job.plan.compute, []).append(job)
            pauses_s = await asyncio.gather(
                *(self._poll_one(name, jobs) for name, jobs in by_compute.items())
            )
            await self._release()
            await asyncio.sleep(max(POLL_S, *pauses_s) if pauses_s else POLL_S)

    async def _poll_one(self, name: str, jobs: list[Job]) -> float:
        """Ask one compute; return how long to wait before the next time."""
        pause_s = READ_AGAIN_S
        try:
            compute = await self._opener.compute(name, owner=self.execution.owner)
            pause_s = compute.capabilities.poll_every_s
            reports = await compute.poll([job.attempts[-1].handle or {} for job in jobs])
        except NotFound as error:  # it was removed: nobody will ever tell us
            reports = [JobReport("missing", message=error.message)] * len(jobs)
        except DeepForgeError as error:
            log.warning("poll_failed", compute=name, error=error.message)
            await self._trouble(f"poll {name}", f"compute {name!r}: {error}")
            await self._end_unasked(name, jobs, error)
            return READ_AGAIN_S
        self._unanswered_s.pop(name, None)
        await self._trouble(f"poll {name}", None)
        changed: list[str] = []
        for job, report in zip(jobs, reports, strict=True):
            noted = self._note(job.id, machine.Reported(job.attempts[-1].number, report))
            again = self.book[job.id]
            if report.state not in ("queued", "running"):
                changed += noted
            elif again is not job:  # not worth a write of its own: the next poll would tell it, too
                self._show(again)
            if again.cancel_requested and again.state.is_active:
                self._do(again, "cancel", partial(self._cancel, again))
        await self._settle(changed)
        return pause_s

    async def _end_unasked(self, name: str, jobs: list[Job], error: DeepForgeError) -> None:
        """End jobs that are to be cancelled, if their compute has not answered for long."""
        if not self._cancelling:
            return
        now_s = time.monotonic()
        since_s = self._unanswered_s.setdefault(name, now_s)
        if now_s - since_s < self.book.policy.unasked_s:
            return
        log.warning("cancelled_unasked", compute=name, error=error.message)
        why = f"compute {name!r} does not answer: {error.message}"
        changed: list[str] = []
        for job in jobs:
            changed += self._note(job.id, machine.Unasked(job.attempts[-1].number, why))
        await self._trouble(f"poll {name}", None)
        await self._settle(changed)

    # ── the end ───────────────────────────────────────────────────────────────────────────────────

    async def _finish(self) -> Execution:
        state = state_at_end(self.book)
        ended_at = utc_now()
        await self._change(
            lambda execution: replace(
                execution, state=state, ended_at=ended_at, paused_by=None, lease=None
            )
        )
        log.info("execution_ended", execution=self.execution.id, state=str(state))
        return self.execution

    async def _change(self, change: Any) -> None:  # a function from Execution to Execution
        self.execution = await self._store.change_execution(self.execution.id, change)
        self._events.publish(Event(self.execution.id, "execution", {"execution": self.execution}))


def state_at_end(jobs: Iterable[Job]) -> ExecutionState:
    """The state of an execution whose jobs have all ended."""
    states = {job.state for job in jobs}
    if states <= {JobState.SUCCEEDED}:
        return ExecutionState.SUCCEEDED
    if JobState.FAILED not in states and JobState.CANCELLED in states:
        return ExecutionState.CANCELLED
    return ExecutionState.FAILED


def _downstream(book: Book) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {job.id: [] for job in book}
    for job in book:
        for one in job.plan.upstream:
            found[one].append(job.id)
    return found


def _values(job: Job, book: Book) -> dict[str, StoredValue]:
    return {
        one.object_name: book[one.job].outputs[one.output]
        for one in job.plan.inputs
        if one.job is not None and one.output is not None
    }
