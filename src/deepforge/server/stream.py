"""Follow an execution as server-sent events: hints from the bus, the truth from the documents.

Whoever drives the execution may be another process, so hints may never come; every `READ_AGAIN_S`
the documents are read, and what changed since is sent. Nothing is sent twice, nothing goes backwards.
"""

from __future__ import annotations

import asyncio
import codecs
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field

import structlog
from pydantic import BaseModel

from deepforge.errors import AuthError, DeepForgeError
from deepforge.events import Event
from deepforge.execution.model import Execution, ExecutionState, ExecutionView, Job, JobState
from deepforge.server.services import Services
from deepforge.server.views import whole_view
from deepforge.server.wire import LogEvent, execution_summary, job_reply

EVENT_STREAM = "text/event-stream"
READ_AGAIN_S = 2.0
TELL_EVERY_S = 0.05
"""The shortest pause between two batches of news: of a job that changed twice, the last is told."""
JOIN_UP_TO_BYTES = 64 * 1024
KEEP_ALIVE_S = 10.0
CATCH_UP_BYTES = 1024 * 1024
"""How much of a log that is stored already a new reader gets who does not ask for whole logs."""

_KEEP_ALIVE = b": keep-alive\n\n"

_log = structlog.get_logger(__name__)


async def follow(
    use: Services,
    execution: str,
    owner: str,
    *,
    logs: bool,
    whole_logs: bool = False,
    stopping: asyncio.Event,
    still_admitted: Callable[[], Awaitable[object]],
) -> AsyncGenerator[bytes, None]:
    """Give the event stream of an execution, until it has ended or `stopping` is set.

    It also breaks off within `READ_AGAIN_S` once `still_admitted` raises `AuthError`. Without `end` as
    its last event the stream was cut and can be asked for again. Raises `NotFound`.
    """
    told = _Told(execution)
    async with use.events.listen(execution) as queue, _Hints(queue, stopping) as hints:
        view = await use.executions.get(execution, owner)
        yield _spelled("execution", await whole_view(use, view))
        told.begin(view, whole_logs=whole_logs)
        sent_at = time.monotonic()
        while True:
            hints.read_by = time.monotonic() + READ_AGAIN_S
            if logs:
                async for piece in _log_pieces(use, view.execution, view.jobs, told):
                    yield piece
                    sent_at = time.monotonic()
            for piece in told.changes(view):
                yield piece
                sent_at = time.monotonic()
            if view.execution.state is not ExecutionState.RUNNING:
                yield _spelled("end", await whole_view(use, view))
                return
            while time.monotonic() < hints.read_by:
                heard = await hints.next()
                if stopping.is_set():
                    return
                async for piece in _joined(
                    _pieces_heard(use, view.execution, heard, told, logs=logs)
                ):
                    yield piece
                    sent_at = time.monotonic()
            try:
                await still_admitted()
            except AuthError:
                return
            view = await use.executions.get(execution, owner)
            if time.monotonic() > sent_at + KEEP_ALIVE_S - READ_AGAIN_S:
                yield _KEEP_ALIVE
                sent_at = time.monotonic()


class _Hints:
    """What the bus says, several at once, while watching for the end of the server."""

    def __init__(self, queue: asyncio.Queue[Event], stopping: asyncio.Event) -> None:
        self._queue = queue
        self._stopping = stopping
        self._told_at = 0.0
        self.read_by = 0.0
        """When the documents are to be read again, as `time.monotonic()` counts."""

    async def __aenter__(self) -> _Hints:
        self._stop = asyncio.create_task(self._stopping.wait())
        self._get: asyncio.Task[Event] = asyncio.create_task(self._queue.get())
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._stop.cancel()
        self._get.cancel()
        await asyncio.gather(self._stop, self._get, return_exceptions=True)

    async def next(self) -> list[Event]:
        """Wait for hints and return all there are; none when it is time to read, or we stop."""
        await asyncio.wait(
            {self._stop, self._get},
            timeout=max(0.0, self.read_by - time.monotonic()),
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not self._get.done():
            return []
        await asyncio.sleep(max(0.0, self._told_at + TELL_EVERY_S - time.monotonic()))
        self._told_at = time.monotonic()
        heard = [self._get.result()]
        while not self._queue.empty():
            heard.append(self._queue.get_nowait())
        self._get = asyncio.create_task(self._queue.get())
        if any(one.kind == "execution" for one in heard):
            self.read_by = time.monotonic()
        return heard


@dataclass
class _Cursor:
    """How far the log of one attempt was sent."""

    next_start: int = 0
    ended: bool = False
    decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )

    def take(self, job: str, attempt: int, start: int, data: bytes, *, final: bool) -> LogEvent:
        """Spell bytes that follow on what was sent; half a character waits for its other half."""
        waiting = len(self.decoder.getstate()[0])
        text = self.decoder.decode(data, final)
        self.next_start = start + len(data)
        end = self.next_start - len(self.decoder.getstate()[0])
        return LogEvent(job=job, attempt=attempt, start=start - waiting, end=end, text=text)


class _Told:
    """What this reader knows, so that only news are sent."""

    def __init__(self, execution: str) -> None:
        self._execution = execution
        self._summary = ""
        self._jobs: dict[str, tuple[tuple[int, int], str]] = {}
        self._seen: dict[str, Job] = {}
        self._cursors: dict[tuple[str, int], _Cursor] = {}

    def begin(self, view: ExecutionView, *, whole_logs: bool = False) -> None:
        """The reader was sent the whole view."""
        for _ in self.changes(view):
            pass
        for job in view.jobs:
            for attempt in job.attempts:
                cursor = self.cursor(job.id, attempt.number)
                cursor.ended = attempt is not job.attempt  # what failed before is history
                if not whole_logs:
                    cursor.next_start = max(0, (attempt.log_bytes or 0) - CATCH_UP_BYTES)

    def changes(self, view: ExecutionView) -> Iterator[bytes]:
        for job in view.jobs:
            yield from self.job(job)
        summary = execution_summary(view.execution)
        text = summary.model_dump_json()
        if text != self._summary:
            self._summary = text
            yield _spelled("execution", summary)

    def job(self, job: Job) -> Iterator[bytes]:
        if self._seen.get(job.id) is job:
            return
        self._seen[job.id] = job
        progress, text = _progress(job), job_reply(job).model_dump_json()
        known = self._jobs.get(job.id)
        if known is not None and (progress < known[0] or text == known[1]):
            return
        self._jobs[job.id] = progress, text
        yield f"event: job\ndata: {text}\n\n".encode()

    def cursor(self, job: str, attempt: int) -> _Cursor:
        return self._cursors.setdefault((job, attempt), _Cursor())


async def _pieces_heard(
    use: Services, execution: Execution, heard: list[Event], told: _Told, *, logs: bool
) -> AsyncIterator[bytes]:
    """Spell hints. The whole log of a job comes before the news that it has ended."""
    newest = {one.data["job"].id: one for one in heard if one.kind == "job"}
    for event in heard:
        if event.kind == "job" and newest[event.data["job"].id] is event:
            job = event.data["job"]
            if logs and job.state.is_final:
                async for piece in _log_pieces(use, execution, [job], told):
                    yield piece
            for piece in told.job(job):
                yield piece
        elif event.kind == "log" and logs:
            for piece in _log_heard(event, told):
                yield piece


async def _joined(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in fewer pieces: each costs its way to the reader."""
    waiting = b""
    async for piece in pieces:
        waiting += piece
        if len(waiting) >= JOIN_UP_TO_BYTES:
            yield waiting
            waiting = b""
    if waiting:
        yield waiting


def _log_heard(event: Event, told: _Told) -> Iterator[bytes]:
    job, attempt = event.data["job"], event.data["attempt"]
    start, data = event.data["start"], event.data["data"]
    cursor = told.cursor(job, attempt)
    new = data[max(0, cursor.next_start - start) :]
    if cursor.ended or start > cursor.next_start or not new:
        return  # behind a gap: the next look at the documents closes it
    yield _spelled("log", cursor.take(job, attempt, cursor.next_start, new, final=False))


async def _log_pieces(
    use: Services, execution: Execution, jobs: Iterable[Job], told: _Told
) -> AsyncIterator[bytes]:
    """Send what the logs of all attempts have beyond what was sent."""
    for job in jobs:
        for attempt in job.attempts:
            cursor = told.cursor(job.id, attempt.number)
            if cursor.ended or (attempt.started_at is None and attempt.ended_at is None):
                continue
            while not cursor.ended:
                try:
                    part = await use.executions.read_log(
                        execution, job, attempt.number, cursor.next_start
                    )
                except DeepForgeError as error:
                    # The events go on without it; the log's own route tells what is wrong.
                    _log.warning("log_unreadable", job=job.key(), error=error.message)
                    break
                cursor.ended = part.ended
                if part.data or part.ended:
                    event = cursor.take(
                        job.id, attempt.number, cursor.next_start, part.data, final=part.ended
                    )
                    if event.text:
                        yield _spelled("log", event)
                if not part.data:
                    break


def _progress(job: Job) -> tuple[int, int]:
    """Grows with everything that happens to a job, so that an older version is known for one."""
    rank = _RANK[job.state]
    if job.state is JobState.READY and job.attempts:
        rank = _RANK[JobState.COLLECTING] + 1  # it waits for its next attempt
    return len(job.attempts), rank


_RANK = {
    JobState.WAITING: 0,
    JobState.READY: 1,
    JobState.SUBMITTING: 2,
    JobState.QUEUED: 3,
    JobState.RUNNING: 4,
    JobState.COLLECTING: 5,
    JobState.SUCCEEDED: 7,
    JobState.FAILED: 7,
    JobState.CANCELLED: 7,
    JobState.SKIPPED: 7,
}


def _spelled(kind: str, data: BaseModel) -> bytes:
    return f"event: {kind}\ndata: {data.model_dump_json()}\n\n".encode()
