"""Adopts executions under leases and gives each to a conductor. Any number of servers may run one.

A lease is a name and a time in the execution's document. Who holds it drives; it is renewed while it
does. A holder that died is replaced when its lease ends, or at once when its process was on this
machine and is gone.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Self

import structlog

from deepforge.connections.open import Opener
from deepforge.errors import DeepForgeError
from deepforge.events import Event, Events
from deepforge.execution.book import Book
from deepforge.execution.conductor import Conductor, state_at_end
from deepforge.execution.effects import Effects
from deepforge.execution.machine import CancelAsked, Policy, Unasked
from deepforge.execution.model import Execution, ExecutionState, Job, Lease
from deepforge.execution.store import ExecutionStore
from deepforge.ids import epoch_s, timestamp, utc_now
from deepforge.machine import machine_space, process_is_alive, process_name

log = structlog.get_logger()

LEASE_S = 20.0
LOOK_S = 5.0
AGAIN_S = 1.0
"""The first pause after a conductor failed."""


class Driver:
    """Use with `async with`. Closing leaves the jobs running and gives the leases back."""

    def __init__(
        self,
        store: ExecutionStore,
        opener: Opener,
        effects: Effects,
        events: Events,
        *,
        policy: Policy | None = None,
        holder: str | None = None,
    ) -> None:
        self._store = store
        self._opener = opener
        self._effects = effects
        self._events = events
        self._policy = policy or Policy()
        self._holder = holder or f"{machine_space()} {process_name()}"
        self._driven: dict[str, asyncio.Task[None]] = {}
        self._conductors: dict[str, Conductor] = {}
        self._troubles: dict[str, str] = {}  # what holds an execution up, stored or not
        self._wake = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *exception: object) -> None:
        tasks = [*self._driven.values()]
        if self._looking is not None:
            tasks.append(self._looking)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for id in list(self._driven):  # it was cancelled before it began
            await self._give_back(id)

    def conductor(self, execution: str) -> Conductor | None:
        """Who drives the execution in this process, if anybody does."""
        return self._conductors.get(execution)

    def shown(self, execution: Execution) -> Execution:
        """The execution with what holds it up in this process: the database may take no more."""
        trouble = self._troubles.get(execution.id)
        if trouble is None or execution.state is not ExecutionState.RUNNING:
            return execution
        return replace(execution, paused_by=trouble)

    async def adopt(self, id: str) -> bool:
        """Drive an execution from now on, if its lease can be had. Safe to repeat.

        Outside the driver's block nothing is driven.
        """
        if self._looking is None:
            return False
        if id in self._driven:
            return True
        try:
            saved = await self._store.change_execution(id, self._take)
        except _Held:
            return False
        self._relieve(saved)
        if id not in self._driven:  # nobody else came while we waited
            self._driven[id] = asyncio.create_task(self._drive(saved))
        return True

    def look(self) -> None:
        """Look for executions to adopt now rather than in some seconds."""
        self._wake.set()

    async def _look(self) -> None:
        while True:
            try:
                await self._look_once()
            except Exception as error:  # this loop must survive what nobody thought of
                _complain("adoption_failed", error)
            try:
                await asyncio.wait_for(self._wake.wait(), LOOK_S)
            except TimeoutError:
                continue
            self._wake.clear()

    async def _look_once(self) -> None:
        running = [saved.value for saved in await self._store.running()]
        for id in self._troubles.keys() - {one.id for one in running}:
            del self._troubles[id]
        for execution in running:
            if execution.id in self._driven:
                continue
            is_abandoned = self._is_abandoned(execution)
            if not (is_abandoned or self._may_take(execution)):  # another process has the trouble
                self._troubles.pop(execution.id, None)
                continue
            try:
                if is_abandoned:
                    await self._end_abandoned(execution.id)
                else:
                    await self.adopt(execution.id)
            except Exception as error:  # one that cannot be driven must not keep us from the others
                _complain("adoption_failed", error, execution=execution.id)
                await self._tell(execution, error)

    async def _end_abandoned(self, id: str) -> None:
        """End a cancelled execution whose machine nobody drives it on. Nothing is asked of a compute
        or a storage: those of this machine are others."""
        try:
            execution = await self._store.change_execution(id, self._take_abandoned)
        except _Held:
            return
        log.warning("cancelled_unasked", execution=id, machine=execution.machine)
        why = f"no server runs on its machine, {execution.machine}"
        jobs = await self._store.jobs(id)
        book = Book(self._store, jobs, policy=self._policy, changed=self._publish)
        for job in jobs:
            after = book.tell(job.value.id, CancelAsked())
            if after.state.is_active:
                book.tell(after.id, Unasked(after.attempts[-1].number, why))
        await book.save([job.id for job in book])
        state, ended_at = state_at_end(book), utc_now()
        execution = await self._store.change_execution(
            id, lambda one: replace(one, state=state, ended_at=ended_at, paused_by=None, lease=None)
        )
        self._publish_execution(execution)

    async def _drive(self, execution: Execution) -> None:
        """Conduct until the end, and begin again after errors; give the lease back when leaving."""
        pause_s = 0.0
        try:
            while True:
                try:
                    if pause_s:  # the lease may have ended meanwhile, and more may have changed
                        execution = await self._store.change_execution(execution.id, self._take)
                        self._relieve(execution)
                    await self._conduct(execution)
                    return
                except _Held:
                    log.warning("lease_lost", execution=execution.id)
                    return
                except Exception as error:  # this loop must survive what nobody thought of
                    _complain("conductor_failed", error, execution=execution.id)
                    await self._tell(execution, error)
                pause_s = min(60.0, 2 * pause_s) or AGAIN_S
                await asyncio.sleep(pause_s)
        finally:
            try:
                await asyncio.shield(self._give_back(execution.id))
            finally:  # not before: adopted again, it would lose the new lease
                self._driven.pop(execution.id, None)

    async def _conduct(self, execution: Execution) -> None:
        jobs = await self._store.jobs(execution.id)
        book = Book(self._store, jobs, policy=self._policy, changed=self._publish)
        conductor = Conductor(
            execution,
            book,
            store=self._store,
            opener=self._opener,
            effects=self._effects,
            events=self._events,
        )
        self._conductors[execution.id] = conductor
        try:
            async with asyncio.TaskGroup() as group:
                renewing = group.create_task(self._renew(execution.id))
                await conductor.run()
                renewing.cancel()
        except* _Held as group_error:
            raise _Held from group_error
        finally:
            del self._conductors[execution.id]

    async def _renew(self, id: str) -> None:
        """Keep the lease. Raises `_Held` when another holder has it, or it ran out on us."""
        until_s = epoch_s(utc_now()) + LEASE_S
        while True:
            await asyncio.sleep(LEASE_S / 4)
            try:
                await self._store.change_execution(id, self._keep)
            except DeepForgeError as error:
                if not error.transient:
                    raise
                if epoch_s(utc_now()) > until_s:
                    raise _Held from error
                continue
            until_s = epoch_s(utc_now()) + LEASE_S

    async def _tell(self, execution: Execution, error: BaseException) -> None:
        """Let the user see that we fail, at once; whoever drives it next takes that back."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        text = str(error) if isinstance(error, DeepForgeError) else f"our own fault: {error!r}"
        self._troubles[execution.id] = text[:2000]
        self._publish_execution(self.shown(execution))

        def say(newest: Execution) -> Execution | None:
            running = newest.state is ExecutionState.RUNNING
            return replace(newest, paused_by=text[:2000]) if running else None

        try:
            await self._store.change_execution(execution.id, say)
        except Exception as failure:  # it is told as long as this process lives
            _complain("trouble_not_stored", failure, execution=execution.id)

    def _relieve(self, execution: Execution) -> None:
        """It goes on: say so, if there was trouble."""
        if self._troubles.pop(execution.id, None) is not None:
            self._publish_execution(execution)

    async def _give_back(self, id: str) -> None:
        try:
            await self._store.change_execution(id, self._drop)
        except Exception as error:  # then it runs out
            _complain("lease_not_given_back", error, execution=id)

    def _publish(self, job: Job) -> None:
        self._events.publish(Event(job.execution, "job", {"job": job}))

    def _publish_execution(self, execution: Execution) -> None:
        self._events.publish(Event(execution.id, "execution", {"execution": execution}))

    # ── changes of a lease, applied to the newest version of an execution ─────────────────────────

    def _take(self, execution: Execution) -> Execution | None:
        if not self._may_take(execution):
            raise _Held
        return replace(execution, lease=self._lease(), paused_by=None)

    def _take_abandoned(self, execution: Execution) -> Execution | None:
        if not self._is_abandoned(execution):
            raise _Held
        return replace(execution, lease=self._lease())

    def _keep(self, execution: Execution) -> Execution | None:
        if execution.state is not ExecutionState.RUNNING:
            return None
        if execution.lease is None or execution.lease.holder != self._holder:
            raise _Held
        return replace(execution, lease=self._lease())

    def _drop(self, execution: Execution) -> Execution | None:
        if execution.lease is None or execution.lease.holder != self._holder:
            return None
        return replace(execution, lease=None)

    def _lease(self) -> Lease:
        return Lease(self._holder, timestamp(epoch_s(utc_now()) + LEASE_S))

    def _may_take(self, execution: Execution) -> bool:
        if execution.state is not ExecutionState.RUNNING:
            return False
        if execution.machine not in (None, machine_space()):
            return False
        lease = execution.lease
        if lease is None or lease.holder == self._holder:
            return True
        if epoch_s(lease.until) < epoch_s(utc_now()):
            return True
        machine, _, process = lease.holder.partition(" ")
        return machine == machine_space() and not process_is_alive(process)

    def _is_abandoned(self, execution: Execution) -> bool:
        """Whether it is to be cancelled, and only a machine may do it on which nobody does."""
        asked_at = execution.cancel_requested_at
        if execution.machine in (None, machine_space()) or asked_at is None:
            return False
        times_s = [epoch_s(asked_at)]
        if execution.lease is not None and execution.lease.holder != self._holder:
            times_s.append(epoch_s(execution.lease.until))
        return (
            execution.state is ExecutionState.RUNNING
            and epoch_s(utc_now()) - max(times_s) > self._policy.unasked_s
        )


class _Held(Exception):
    """Somebody else holds the lease."""


def _complain(event: str, error: Exception, **about: str) -> None:
    """Log an error, if that can be done: a full disk may be what is wrong."""
    with suppress(Exception):
        if isinstance(error, DeepForgeError):
            log.warning(event, error=error.message, **about)
        else:
            log.error(event, exc_info=error, **about)
