"""One owner's jobs that wait, and the questions of workers that are held until there are some."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from deepforge.ids import epoch_s, timestamp
from deepforge.webgme import jobs
from deepforge.webgme.jobs import Job
from deepforge.webgme.line import Line, Waiting
from deepforge.webgme.queue import Queue, Saved
from deepforge.webgme.registry import Known
from deepforge.webgme.workers import Offer, need_of

BACK_S = 10.0
"""How far the clocks of servers on one database may differ before a job of another is seen late."""
LOOKS_TO_ALL = 30
PATIENCE_S = 300.0
"""So long smaller jobs overtake one that needs more of a worker than is free."""


@dataclass(eq=False)
class Question:
    """One that is held. `done` is set when there is something to say, or no use in waiting."""

    known: Known
    offer: Offer
    taken: list[Waiting] = field(default_factory=list)
    """Jobs that are about to be this worker's: `known.claiming` has them too."""
    cancel: set[str] = field(default_factory=set)
    done: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def answer(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Desk:
    """Everything here happens in one turn of the loop, but for what reads the database."""

    def __init__(self, owner: str, queue: Queue) -> None:
        self.owner = owner
        self.questions: dict[str, Question] = {}  # by the worker's id
        self._queue = queue
        self._line = Line()
        self._newest: str | None = None
        self._looks = 0
        self._is_matching = False
        self._opening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read every job that waits, once. Raises what the database raises; then ask again."""
        while self._newest is None:
            if self._opening is None or self._opening.done():
                self._opening = asyncio.create_task(self._read_all())
            await asyncio.shield(self._opening)

    async def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)

    def heard(self, job: Job) -> None:
        """A job came or changed in this process."""
        if job.status == jobs.CREATED:
            self._line.add(_waiting(job))
            self._match_soon()
            return
        self._line.remove(job.hash)
        if job.cancel or job.status == jobs.LOST:
            self.tell_to_cancel(job)

    def tell_to_cancel(self, job: Job) -> None:
        """Have the worker that has the job end it, if it waits for news here."""
        question = self.questions.get(job.worker or "")
        if question is not None:
            question.cancel.add(job.hash)
            question.answer()

    def take(self, known: Known, offer: Offer) -> list[Waiting]:
        """Take what fits out of the line. It must be claimed, or put back."""
        taken = self._line.take_all(offer, patience=_patience())
        known.claiming |= {one.hash: one.need for one in taken}
        return taken

    def put_back(self, waiting: Sequence[Waiting]) -> None:
        for one in waiting:
            self._line.add(one)
        if waiting:
            self._match_soon()

    def hold(self, question: Question) -> None:
        """Answer it as soon as there is a job for it; a worker has one question at a time."""
        self.nudge(question.known)
        self.questions[question.known.client_id] = question
        self.match()

    def drop(self, question: Question, *, is_heard: bool) -> None:
        """Hold it no more. If nobody hears the answer, what was taken for it waits again."""
        if self.questions.get(question.known.client_id) is question:
            del self.questions[question.known.client_id]
        if not is_heard:
            self.put_back(question.taken)
            for one in question.taken:
                question.known.claiming.pop(one.hash, None)
            question.taken = []

    def nudge(self, known: Known) -> None:
        """Answer this worker's question, whatever there is to say."""
        question = self.questions.get(known.client_id)
        if question is not None and question.known is known:
            question.answer()

    def match(self) -> None:
        """Give every waiting worker a job, then each another one, as long as there are any."""
        self._is_matching = False
        patience = _patience()
        asking = [one for one in self.questions.values() if not one.done.done()]
        while asking and len(self._line):
            served = []
            for question in asking:
                one = self._line.take(question.offer, patience=patience)
                if one is not None:
                    question.known.claiming[one.hash] = one.need
                    question.taken.append(one)
                    question.offer = question.offer.without(one.need)
                    served.append(question)
            asking = served
        for question in self.questions.values():
            if question.taken:
                question.answer()

    async def look(self) -> None:
        """See what other processes queued. Now and then, also what they took out of the line."""
        self._looks += 1
        if self._looks % LOOKS_TO_ALL == 0 or self._newest is None:
            await self._read_all()
        else:
            since = timestamp(epoch_s(self._newest) - BACK_S)
            async for _ in self._read(since):
                pass
        self.match()

    def _match_soon(self) -> None:
        """Match once for all jobs that come in the same turn of the loop."""
        if not self._is_matching:
            self._is_matching = True
            asyncio.get_running_loop().call_soon(self.match)

    async def _read_all(self) -> None:
        before = set(self._line)
        read = {saved.job.hash async for saved in self._read(None)}
        for hash in before - read:  # another process handed them out, or they were cancelled
            self._line.remove(hash)

    async def _read(self, since: str | None) -> AsyncIterator[Saved]:
        newest = self._newest or timestamp(time.time())
        async for saved in self._queue.with_status(self.owner, jobs.CREATED, since=since):
            self._line.add(_waiting(saved.job))
            newest = max(newest, saved.job.created_at)
            yield saved
        self._newest = newest


def _waiting(job: Job) -> Waiting:
    return Waiting(job.hash, job.created_at, need_of(job))


def _patience() -> str:
    return timestamp(time.time() - PATIENCE_S)
