"""Who gets which job: answers the questions of workers, now or when there is something to say.

One process holds the questions of its workers and a line of the jobs that wait. A job that comes in
this process goes to a waiting worker at once; what other processes queue is looked for every second,
and only while somebody waits. Several processes may offer the same job: the database decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import structlog

from deepforge.errors import Conflict, DeepForgeError, Forbidden, NotFound
from deepforge.webgme import jobs
from deepforge.webgme.desk import Desk, Question
from deepforge.webgme.jobs import Job
from deepforge.webgme.line import Waiting
from deepforge.webgme.pools import Pools, pool_of
from deepforge.webgme.queue import Queue, Saved
from deepforge.webgme.registry import Known, Registry
from deepforge.webgme.silence import Silence
from deepforge.webgme.workers import Offer, Poll, need_of, offer_of

log = structlog.get_logger()

LOOK_EVERY_S = 1.0
LONGEST_WAIT_S = 55.0
"""Proxies give up after a minute of silence."""
UNLISTED_S = 5.0
"""So long a worker may not name a job that it was given: the answer may still be on its way."""
MOST_TIMES_TOLD = 3
REFRESH_MS = 1000
LONGEST_REFRESH_MS = 5000
EASY_ORIGINALS = 50
"""So many workers that cannot wait for an answer may ask every second."""


@dataclass(frozen=True)
class Answer:
    """What a worker is told: jobs that are its own now, and jobs to end."""

    start: tuple[Job, ...]
    cancel: tuple[str, ...]
    refresh_ms: int


class HandOut:
    """Use with `async with`. Leaving it answers every question that is held."""

    def __init__(
        self,
        queue: Queue,
        *,
        challenge_s: float = 3.0,
        look_every_s: float = LOOK_EVERY_S,
        sweep_every_s: float = 5.0,
    ) -> None:
        self.queue = queue
        self.registry = Registry(queue.records, challenge_s=challenge_s)
        self.pools = Pools(queue.records)
        self.silence = Silence(queue, self.registry, every_s=sweep_every_s)
        self._look_every_s = look_every_s
        self._desks: dict[str, Desk] = {}
        self._somebody_waits = asyncio.Event()
        self._stopped = False
        self._stopping: asyncio.Event | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self.queue.bell.listeners.add(self._heard)
        self._tasks = [
            asyncio.create_task(self._look()),
            asyncio.create_task(self.silence.watch()),
        ]
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.stop()
        self.queue.bell.listeners.discard(self._heard)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for desk in self._desks.values():
            await desk.close()

    def stop_with(self, stopping: asyncio.Event) -> None:
        """Do `stop` when the event is set. Safe to repeat with the same one."""
        if stopping is not self._stopping:
            self._stopping = stopping
            self._tasks.append(asyncio.create_task(self._stop_at(stopping)))

    def stop(self) -> None:
        """Answer what is held, and hold nothing any more: the server is about to go."""
        self._stopped = True
        for desk in self._desks.values():
            for question in desk.questions.values():
                question.answer()

    async def poll(
        self,
        owner: str,
        poll: Poll,
        *,
        wait_s: float = 0.0,
        gone: asyncio.Future[Any] | None = None,
        still_admitted: Callable[[], Awaitable[object]] | None = None,
    ) -> Answer:
        """Answer a worker: at once if there is something to say, else somewhat before `wait_s` is over.

        `gone` is done when the worker has hung up. `still_admitted` is asked once more before a question
        that was held is given a job; what it raises is raised, and the job waits on. Jobs in the answer
        are RUNNING and this worker's. Raises `Conflict` when another living process uses the worker's
        id.
        """
        known = await self.registry.meet(owner, poll, nudge=self._nudge)
        known.questions += 1
        mine = known.questions
        self._nudge(known)  # one question at a time: the newer one knows more
        desk = await self._desk(owner)
        given = dict(
            known.claiming
        )  # whole from now on: older questions are given nothing any more
        held = await self.queue.held(owner, poll.client_id)
        cancel = await self._to_cancel(owner, poll, held)
        again = await self._unlisted(known, poll, held)
        if known.unlisted:
            wait_s = min(wait_s, UNLISTED_S)  # the next question decides
        given |= {hash: need_of(job) for hash, job in held.items()}
        offer = offer_of(poll)
        for hash in given.keys() - set(poll.running):  # its answer is still on the way
            offer = replace(offer.without(given[hash]), runner=None)
        is_newest = known.questions == mine
        start = again + await self._claim(desk, known, desk.take(known, offer) if is_newest else [])
        # not all the same: workers that began to wait together would ask again together
        until_s = time.monotonic() + min(wait_s, LONGEST_WAIT_S) * random.uniform(0.6, 1.0)
        while not start and not cancel and not self._stopped and time.monotonic() < until_s:
            if known.questions != mine:
                break
            question = await self._hold(desk, known, offer, until_s, gone, still_admitted)
            start = await self._claim(desk, known, question.taken)
            cancel = sorted(question.cancel)
            if not question.taken and not question.cancel:
                break
        return Answer(tuple(start), tuple(cancel), self._refresh_ms())

    def holds(self, owner: str, client_id: str) -> bool:
        """Whether a question of this worker waits here for its answer."""
        desk = self._desks.get(owner)
        return desk is not None and client_id in desk.questions

    async def give_up(self, owner: str, hash: str, message: str) -> Job:
        """Count a job as lost by its worker. Raises `NotFound`, and `Conflict` when none has it."""
        job = await self.queue.job(owner, hash)
        if job.status != jobs.RUNNING:
            raise Conflict(f"job {hash} is not at a worker: it is {job.status}")
        return await self.queue.lose(owner, hash, message)

    async def forget(self, owner: str, client_id: str) -> None:
        """Forget a worker; what it has counts as lost. Raises `NotFound`."""
        await self.registry.get(owner, client_id)
        for hash in await self.queue.held(owner, client_id):
            await self.queue.lose(owner, hash, f"worker {client_id} was forgotten")
        await self.registry.forget(owner, client_id)

    async def _stop_at(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self.stop()

    # ── one question ──────────────────────────────────────────────────────────────────────────────

    async def _to_cancel(self, owner: str, poll: Poll, held: dict[str, Job]) -> list[str]:
        """Jobs it names that it should end: it was asked to, or it lost them."""
        asked = [hash for hash, job in held.items() if job.cancel and hash in poll.running]
        strange = [hash for hash in poll.running if hash not in held and 0 < len(hash) <= 128]
        found = await self.queue.jobs(owner, strange) if strange else {}
        return asked + [
            hash
            for hash in strange
            if (job := found.get(hash)) is None  # never was, or was released
            or job.status in (jobs.LOST, jobs.CANCELED)
            or (not job.is_over and job.worker != poll.client_id)
        ]

    async def _unlisted(self, known: Known, poll: Poll, held: dict[str, Job]) -> list[Job]:
        """Look for what the worker was given and does not name; return what it is to be told again.

        The same start of a worker names all it ever got from us: what it does not name for some time
        was in an answer that was lost. What another start of it had, and it has not, is lost.
        """
        if poll.machine is None:  # the original one names what it has a little late
            return []
        is_new, known.is_new = known.is_new, False
        now_s, missing = time.monotonic(), held.keys() - set(poll.running)
        known.unlisted = {hash: known.unlisted.get(hash, now_s) for hash in missing}
        again = []
        for hash, since_s in list(known.unlisted.items()):
            if not is_new and now_s - since_s < UNLISTED_S:
                continue
            del known.unlisted[hash]
            known.told_again[hash] += 1
            job = held[hash]
            if is_new or job.cancel or known.told_again[hash] > MOST_TIMES_TOLD:
                log.warning("job_lost", job=job.key or hash, worker=poll.client_id)
                message = f"worker {poll.client_id} does not have it any more"
                await self.queue.lose(known.owner, hash, message)
            else:
                again.append(job)
        return again

    async def _claim(self, desk: Desk, known: Known, waiting: Sequence[Waiting]) -> list[Job]:
        """Make these jobs the worker's own. Those that somebody else has by now are left out."""
        if not waiting:
            return []
        left = {one.hash: one for one in waiting}
        ours = known.instance is not None

        async def claim(saved: Saved) -> Job | None:
            job = None
            with contextlib.suppress(Conflict, NotFound):
                if await self._may_start(saved.job):
                    job = await self.queue.hand_out(saved, known.client_id, ours=ours)
            left.pop(saved.job.hash, None)
            return job

        try:
            found = await self.queue.saved(desk.owner, list(left))
            for hash in left.keys() - found.keys():
                del left[hash]
            claims = await asyncio.gather(*map(claim, found.values()), return_exceptions=True)
        finally:
            desk.put_back(list(left.values()))
            for one in waiting:
                known.claiming.pop(one.hash, None)
        claimed = [job for job in claims if isinstance(job, Job)]
        failed = [error for error in claims if isinstance(error, BaseException)]
        if failed and not claimed:
            raise failed[0]
        return claimed

    async def _may_start(self, job: Job) -> bool:
        """Whether its user is still a member, if it is a pool's. If not, that is its end."""
        pool = pool_of(job.owner)
        if pool is None or job.user is None:
            return True
        try:
            await self.pools.admit(pool, job.user)
        except Forbidden as error:
            await self.queue.refuse(job.owner, job.hash, error.message)
            return False
        return True

    async def _hold(
        self,
        desk: Desk,
        known: Known,
        offer: Offer,
        until_s: float,
        gone: asyncio.Future[Any] | None,
        still_admitted: Callable[[], Awaitable[object]] | None,
    ) -> Question:
        """Wait until there is something to say, the time is over, or nobody listens."""
        question = Question(known, offer)
        desk.hold(question)
        self._somebody_waits.set()
        wanted: set[asyncio.Future[Any]] = {question.done}
        if gone is not None:
            wanted.add(gone)
        is_heard = False
        try:
            await asyncio.wait(
                wanted,
                timeout=max(0.0, until_s - time.monotonic()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if question.taken and still_admitted is not None:
                await still_admitted()
            known.hung_up = gone is not None and gone.done()
            is_heard = not known.hung_up
        finally:
            desk.drop(question, is_heard=is_heard)
        return question

    def _nudge(self, known: Known) -> None:
        desk = self._desks.get(known.owner)
        if desk is not None:
            desk.nudge(known)

    def _refresh_ms(self) -> int:
        """When workers that cannot wait for an answer ask again."""
        crowded = REFRESH_MS * self.silence.originals // EASY_ORIGINALS
        return min(LONGEST_REFRESH_MS, max(REFRESH_MS, crowded))

    # ── what other processes do ───────────────────────────────────────────────────────────────────

    def _heard(self, saved: Saved) -> None:
        """A job came or changed in this process."""
        desk = self._desks.get(saved.job.owner)
        if desk is not None:
            desk.heard(saved.job)

    async def _desk(self, owner: str) -> Desk:
        desk = self._desks.get(owner)
        if desk is None:
            desk = self._desks[owner] = Desk(owner, self.queue)
        await desk.open()
        return desk

    async def _look(self) -> None:
        """While somebody waits, see what other processes queued and want cancelled."""
        while True:
            await self._somebody_waits.wait()
            await asyncio.sleep(self._look_every_s)
            desks = [desk for desk in self._desks.values() if desk.questions]
            if not desks:
                self._somebody_waits.clear()
                continue
            try:
                for desk in desks:
                    await desk.look()
                for job in await self.queue.to_cancel():
                    if job.owner in self._desks:
                        self._desks[job.owner].tell_to_cancel(job)
            except DeepForgeError as error:
                log.warning("queue_unreadable", error=error.message)
            except Exception:  # this loop must survive what nobody thought of
                log.exception("queue_unreadable")
