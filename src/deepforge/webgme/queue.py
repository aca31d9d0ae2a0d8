"""The queue in the database: jobs, what they printed, the runners they need.

Every change is one compare-and-set on one job, so any number of servers may share the queue, and any
may die. Who gets which job is decided in `hand_out.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from deepforge.compute.port import Record, Records, Resources, Seal
from deepforge.documents.port import Collection
from deepforge.errors import (
    AlreadyExists,
    ConfigError,
    Conflict,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
)
from deepforge.ids import timestamp, utc_now
from deepforge.webgme import jobs
from deepforge.webgme.blobs import metadata_hash
from deepforge.webgme.jobs import Job
from deepforge.webgme.output import COLLECTION, Output

COLLECTIONS = (
    Collection(
        "worker_jobs",
        unique=(("owner", "key"),),
        indexes=(("owner", "status", "created_at"), ("assigned",), ("cancel",)),
    ),
    COLLECTION,
    Collection("worker_runners"),
    Collection("workers", indexes=(("owner",), ("silent", "seen_at"))),
)

MAX_FILES_BYTES = 4 * 1024 * 1024
"""How much the files of a job may have together, the runner apart."""

_PAGE = 1000
_TRIES = 50


@dataclass(frozen=True)
class Saved:
    """A job as it is stored, with the revision that a change must name."""

    job: Job
    revision: int


class Bell:
    """Rings in this process when a job came, or changed other than by being handed out."""

    def __init__(self) -> None:
        self.listeners: set[Callable[[Saved], None]] = set()

    def ring(self, saved: Saved) -> None:
        for listener in list(self.listeners):
            listener(saved)


_bells: WeakKeyDictionary[Records, Bell] = WeakKeyDictionary()
"""All queues of this process over the same records share one bell."""


class Queue:
    """Over any records that were opened with `COLLECTIONS`. Ids of jobs belong to their owner: two
    users may have a job of the same id, and neither sees the other's.

    The files of a job are kept sealed, or as they are without a `seal`. Methods raise what
    `DocumentStore` raises when the database fails.
    """

    def __init__(self, records: Records, seal: Seal | None = None) -> None:
        self.records = records
        self._seal = seal
        self.bell = _bells.setdefault(records, Bell())
        self._runners: set[str] = set()
        self._output = Output(records)

    # ── jobs come ─────────────────────────────────────────────────────────────────────────────────

    async def submit(
        self,
        owner: str,
        key: str,
        command: Sequence[str],
        files: Mapping[str, bytes],
        *,
        runner_file: str | None = None,
        resources: Resources | None = None,
        labels: Sequence[str] = (),
        about: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> str:
        """Queue an attempt, once per key, and return its id: the hash of the artifact it is.

        `runner_file` names the one of the files that all jobs share, `user` whose attempt it is where
        the owner is a pool. Raises `InvalidRequest`.
        """
        whole = {**files, jobs.CONFIG_FILE: jobs.config(command, key).encode()}
        own = {name: data for name, data in whole.items() if name != runner_file}
        if sum(map(len, own.values())) > MAX_FILES_BYTES:
            raise InvalidRequest(
                f"the files of job {key} have more than {MAX_FILES_BYTES} bytes", part="files"
            )
        hash = metadata_hash(jobs.artifact(whole))
        job = Job(
            owner=owner,
            hash=hash,
            created_at=_later(),
            secret=secrets.token_hex(16),
            user=user,
            key=key,
            about=dict(about or {}),
            labels=tuple(sorted(labels)),
            resources=resources or Resources(),
            command=tuple(command),
            files=self._hidden(hash, jobs.kept_files(own)),
            runner=None if runner_file is None else await self._keep_runner(files[runner_file]),
            runner_file=runner_file,
        )
        try:
            saved = await self._insert(job)
        except AlreadyExists:
            return (await self.attempt(owner, key)).hash
        self.bell.ring(saved)
        return hash

    async def create(self, owner: str, hash: str, wanted: Mapping[str, Any]) -> tuple[Job, bool]:
        """Queue a job of a client of the framework, and say whether it is new.

        One that is there is returned as it is, unless it was cancelled: then it begins again.
        """
        new = jobs.new_job(owner, hash, wanted, now=_later(), secret=secrets.token_hex(16))
        try:
            saved = await self._insert(new)
        except AlreadyExists:
            saved = await self._change(
                owner, hash, lambda old: jobs.created_again(old, new), telling=False
            )
            if saved.job != new:
                return saved.job, False
            await self._output.forget(_id(owner, hash))
        self.bell.ring(saved)
        return saved.job, True

    async def runner(self, sha256: str) -> bytes:
        """The archive of a runner. Raises `NotFound`."""
        found = await self.records.get_many("worker_runners", [sha256])
        if not found or found[0].data is None:
            raise NotFound(f"there is no runner {sha256[:80]!r}")
        return found[0].data

    async def job_files(self, owner: str, hash: str) -> dict[str, bytes]:
        """All files of a job that is not over: what `jobs.artifact` gives its id for.

        Raises `NotFound` also for a job whose files are somewhere else.
        """
        job = await self.job(owner, hash)
        if not job.files:
            raise NotFound(f"job {hash} has no files here")
        files = {name: jobs.file_bytes(kept) for name, kept in self.own_files(job).items()}
        if job.runner is not None and job.runner_file is not None:
            files[job.runner_file] = await self.runner(job.runner)
        return files

    def own_files(self, job: Job) -> Mapping[str, Any]:
        """The files that the job shares with no other, spelled as `jobs.kept_files` does.

        Raises `ConfigError` when they were sealed with another key, `Corrupt` when they were altered.
        """
        if isinstance(job.files, Mapping):
            return job.files
        if self._seal is None:
            raise ConfigError(f"the files of job {job.hash} are sealed, and there is no key here")
        found: dict[str, Any] = json.loads(self._seal.open(job.files, _purpose(job.hash)))
        return found

    # ── jobs are looked at ────────────────────────────────────────────────────────────────────────

    async def job(self, owner: str, hash: str) -> Job:
        """Raises `NotFound`."""
        found = await self.jobs(owner, [hash])
        if hash not in found:
            raise NotFound(f"there is no job {hash[:80]!r}")
        return found[hash]

    async def jobs(self, owner: str, hashes: Sequence[str]) -> dict[str, Job]:
        """Those of the owner's jobs that exist, by id."""
        return {hash: one.job for hash, one in (await self.saved(owner, hashes)).items()}

    async def attempt(self, owner: str, key: str) -> Job:
        """The job of that key. Raises `NotFound`."""
        found = await self.records.find("worker_jobs", {"owner": owner, "key": key}, limit=1)
        if not found:
            raise NotFound(f"no worker was ever given a job {key!r}")
        return _saved(found[0]).job

    async def of_owner(self, owner: str, *, status: str | None = None) -> list[Job]:
        """All jobs of an owner, or those of one status; those that wait as they will be handed out."""
        if status is None:
            found = await self.records.find("worker_jobs", {"owner": owner})
            return [_saved(one).job for one in found]
        return [one.job async for one in self.with_status(owner, status)]

    async def with_status(
        self, owner: str, status: str, *, since: str | None = None
    ) -> AsyncIterator[Saved]:
        """Jobs of one status in the order they came, those created after `since`."""
        after: Any = None if since is None else _Mark(" ", {"created_at": since})
        while True:
            page = await self.records.find(
                "worker_jobs",
                {"owner": owner, "status": status},
                sort="created_at",
                after=after,
                limit=_PAGE,
            )
            for one in page:
                yield _saved(one)
            if len(page) < _PAGE:
                return
            after = page[-1]

    async def held(self, owner: str, worker: str) -> dict[str, Job]:
        """The jobs this worker was given and has not ended, by id."""
        found = await self.records.find("worker_jobs", {"assigned": f"{owner} {worker}"})
        return {one.job.hash: one.job for one in map(_saved, found)}

    async def to_cancel(self) -> list[Job]:
        """Running jobs, of all owners, whose workers are to be told to end them."""
        found = await self.records.find("worker_jobs", {"cancel": True})
        return [_saved(one).job for one in found]

    # ── jobs change ───────────────────────────────────────────────────────────────────────────────

    async def hand_out(self, saved: Saved, worker: str, *, ours: bool) -> Job:
        """Give a waiting job, as it was read, to a worker.

        Raises `Conflict` (or `NotFound`) when it does not wait any more: then this worker has it not.
        """
        taken = jobs.handed_out(saved.job, worker, ours=ours, now=utc_now())
        try:
            await self._replace(_id(taken.owner, taken.hash), taken, saved.revision)
        except OutcomeUnknown:
            now = await self.job(taken.owner, taken.hash)
            if (now.worker, now.handed_at) != (taken.worker, taken.handed_at):
                raise Conflict(f"job {taken.hash} went to somebody else") from None
        return taken

    async def saved(self, owner: str, hashes: Sequence[str]) -> dict[str, Saved]:
        """As `jobs`, with the revisions."""
        ids = [_id(owner, hash) for hash in hashes]
        found = map(_saved, await self.records.get_many("worker_jobs", ids))
        return {one.job.hash: one for one in found}

    async def update(self, owner: str, hash: str, update: Mapping[str, Any]) -> Job:
        """Take what a worker says of a job. Raises `NotFound`, `InvalidRequest`, and `Conflict` for
        an attempt that is over or that another worker has: then nothing changed."""
        return (await self._change(owner, hash, lambda job: jobs.updated(job, update))).job

    async def cancel(self, owner: str, hash: str) -> Job:
        """Ask for the end of a job. Raises `NotFound`."""
        return (await self._change(owner, hash, jobs.cancelled)).job

    async def refuse(self, owner: str, hash: str, message: str) -> Job:
        """End a job that waits and may not start any more. Raises `NotFound`."""
        return (await self._change(owner, hash, lambda job: jobs.refused(job, message))).job

    async def end_overdue(self, owner: str, hash: str) -> Job:
        """Ask for the end of a job that runs longer than it may. Raises `NotFound`."""
        return (await self._change(owner, hash, jobs.overdue)).job

    async def lose(self, owner: str, hash: str, message: str) -> Job:
        """The worker that has the job is gone. Raises `NotFound`."""
        return (await self._change(owner, hash, lambda job: jobs.lost(job, message))).job

    async def release(self, owner: str, hash: str) -> None:
        """Forget a job that is over, and what it printed. Others stay. Safe to repeat."""
        id = _id(owner, hash)
        found = await self.records.get_many("worker_jobs", [id])
        if not found or not _saved(found[0]).job.is_over:
            return
        await self._output.forget(id)
        await self.records.delete("worker_jobs", id)

    # ── what jobs print ───────────────────────────────────────────────────────────────────────────

    async def add_output(
        self, owner: str, hash: str, number: int, text: str, *, worker: str | None = None
    ) -> None:
        """Keep a segment of the output. The same number again takes the place of the earlier one.

        Raises `NotFound`, `Conflict` for an attempt that is over or another worker's, and
        `InvalidRequest` when the job has printed too much: what is there stays.
        """
        job = await self.job(owner, hash)
        if job.is_attempt and (job.is_over or worker not in (None, job.worker)):
            raise Conflict(f"job {hash} is not run by {worker or 'anybody'}: it is {job.status}")
        await self._output.add(_id(owner, hash), number, text)

    async def output(
        self, owner: str, hash: str, *, start: int = 0, end: int | None = None
    ) -> list[tuple[int, str]]:
        """Segments with `start <= number < end`, in order. Raises `NotFound` for an unknown job."""
        await self.job(owner, hash)
        return await self._output.segments(_id(owner, hash), start=start, end=end)

    def printed(self, owner: str, hash: str, *, start: int = 0) -> AsyncIterator[bytes]:
        """The whole output as bytes, from byte `start`. Nothing for an unknown job."""
        return self._output.read(_id(owner, hash), start=start)

    async def last_output(self, owner: str, hash: str) -> int | None:
        """The number of the segment that came last, or None without any."""
        return await self._output.last(_id(owner, hash))

    # ── storing ───────────────────────────────────────────────────────────────────────────────────

    async def _insert(self, job: Job) -> Saved:
        id = _id(job.owner, job.hash)
        try:
            made = await self.records.insert("worker_jobs", id, jobs.body_of(job))
        except OutcomeUnknown:
            found = await self.records.get_many("worker_jobs", [id])
            if not found:
                raise
            made = found[0]
            if made.body["secret"] != job.secret:
                raise AlreadyExists(f"job {job.hash} is there already") from None
        return Saved(job, made.revision)

    async def _change(
        self, owner: str, hash: str, change: Callable[[Job], Job], *, telling: bool = True
    ) -> Saved:
        """Apply a pure change to the newest version, however many others change it too."""
        id = _id(owner, hash)
        after: Job | None = None
        for _ in range(_TRIES):
            found = await self.records.get_many("worker_jobs", [id])
            if not found:
                raise NotFound(f"there is no job {hash[:80]!r}")
            before = _saved(found[0])
            if before.job == after:  # the write whose answer was lost
                return before
            after = change(before.job)
            if after == before.job:
                return before
            try:
                saved = Saved(after, await self._replace(id, after, before.revision))
            except (Conflict, OutcomeUnknown):
                continue
            if after.is_over:
                self._output.done(id)
            if telling:
                self.bell.ring(saved)
            return saved
        raise Conflict(f"job {hash} changes all the time")

    async def _replace(self, id: str, job: Job, revision: int) -> int:
        body = jobs.body_of(job)
        return (await self.records.replace("worker_jobs", id, body, if_revision=revision)).revision

    def _hidden(self, hash: str, files: Mapping[str, Any]) -> Mapping[str, Any] | str:
        if self._seal is None:
            return files
        return self._seal.seal(json.dumps(files), _purpose(hash))

    async def _keep_runner(self, archive: bytes) -> str:
        sha256 = hashlib.sha256(archive).hexdigest()
        if sha256 not in self._runners:
            with contextlib.suppress(AlreadyExists):
                await self.records.insert("worker_runners", sha256, {}, archive)
            self._runners.add(sha256)
        return sha256


@dataclass(frozen=True)
class _Mark:
    """A place in a list where no record need be."""

    id: str
    body: Mapping[str, Any]


def _saved(record: Record) -> Saved:
    return Saved(jobs.job_of(record.body), record.revision)


def _purpose(hash: str) -> str:
    return f"files of job {hash}"


def _id(owner: str, hash: str) -> str:
    return f"{owner} {hash}"


_last_us = 0


def _later() -> str:
    """Now, and later than any time this gave before in this process."""
    global _last_us
    _last_us = max(_last_us + 1, int(time.time() * 1_000_000))
    return timestamp(_last_us / 1_000_000)
