"""SciServer Compute: batch jobs in containers of a SciServer site, in the user's name.

A job is one archive in a folder of a user volume, and a command that runs it with the image's Python.
The folder is where everything of the job lies, so it is found again by its key alone. Of two
submissions of one key (an answer may be lost after it took effect) only the first that starts runs.
When a job's container ends, so does everything in it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, Literal
from weakref import WeakValueDictionary

from deepforge.compute.port import (
    Capabilities,
    ComputeAdapter,
    Host,
    JobHandle,
    JobReport,
    JobRequest,
    Reach,
    Refusal,
    State,
)
from deepforge.compute.sciserver import files
from deepforge.compute.sciserver.board import LONGEST_PAUSE_S, Board, board_of
from deepforge.compute.sciserver.choices import choices_of
from deepforge.compute.sciserver.offers import Choice, Offers, Wish
from deepforge.compute.sciserver.package import WORKSPACE, command_line, pack
from deepforge.compute.sciserver.racm import Racm
from deepforge.compute.sciserver.records import FINISHED, Job, forward, places
from deepforge.compute.sciserver.turns import Turns
from deepforge.errors import ConfigError, DeepForgeError, InvalidRequest, RateLimited, Unavailable
from deepforge.sciserver.files import FileService
from deepforge.sciserver.hosts import PUBLIC_SITE, Hosts
from deepforge.sciserver.session import Session
from deepforge.sciserver.volumes import Volume
from deepforge.settings import Choices, Secret, setting

_AT_ONCE = 4
"""How many jobs are looked at one by one at the same time."""
_CANCEL_AGAIN_S = 60.0
_WAITS = 1
"""The status of a job that nobody has taken from the queue."""
_TAIL_BYTES = 600
_MOST_ENDED = 10_000

_FOLDER = "deepforge"
_OFFERED = ("domain", "image", "data_volumes", "job_volume")
_LOOK_WITHIN_S = 20.0
"""How long a run that begins waits for the lists of the site."""


@dataclass(frozen=True)
class SciServerComputeSettings:
    """Whose jobs they are, and where they run."""

    username: str = setting("Name of your SciServer account.", example="alice")
    password: Secret | None = setting(
        "Its password. Better leave it empty and link the account: deepforge sciserver link.",
        default=None,
    )
    token: Secret | None = setting("A token of SciServer, as linking stores it.", default=None)
    domain: str = setting(
        "Domain in which jobs run. Default: the first one that has an image for you.",
        default="",
        example="Small Jobs Domain",
    )
    image: str = setting(
        "Image of the jobs' containers, one of the domain's. Default: its SciServer Essentials, or "
        "else its first one.",
        default="",
        example="SciServer Essentials 4.0",
    )
    python: str = setting(
        "Python of the image that runs the jobs, a name or a path. It must be 3.8 or newer.",
        default="python3",
        example="/home/idies/miniconda3/envs/py39/bin/python",
    )
    job_volume: str = setting(
        "Volume in which a job keeps its files until it is over: one of yours in Temporary, or "
        "owner/volume, or Storage/owner/volume.",
        default="scratch",
    )
    data_volumes: str = setting(
        "Data volumes that every job sees, to read from, separated by commas.",
        default="",
        example="SDSS DAS",
    )
    calls_server: bool = setting(
        "Whether jobs call this server at its public address, if it has one. Without, what a job "
        "prints is shown seconds later, and its end up to half a minute.",
        default=True,
    )
    site: str = setting("Address of the SciServer site.", default=PUBLIC_SITE)


class SciServerCompute(ComputeAdapter):
    """Jobs of one user in one domain.

    SciServer sets how long a job may take (a day, if the site did not change that) and how many run
    at once (one), and gives no GPUs, cores or memory by request.
    """

    capabilities = Capabilities(
        log="live", cancel_running=True, walltime=True, poll_every_s=6.0, choices=True
    )
    list_every_s: ClassVar[float] = 6.0
    """The shortest pause between two lists of open jobs."""
    files_come_within_s: float = 60.0
    """How long after the end of a job its files may still be unseen: its volume is on a network."""

    settings: SciServerComputeSettings

    def __init__(self, settings: SciServerComputeSettings, host: Host) -> None:
        super().__init__(settings, host)
        self.hosts = Hosts.of(settings.site)
        self._session = Session(self.hosts, settings.username, settings.password, settings.token)
        self._wish = Wish(
            settings.domain,
            settings.image,
            tuple(one.strip() for one in settings.data_volumes.split(",") if one.strip()),
            _volume_of(settings),
            settings.username,
        )
        self._racm = Racm(self._session)
        self._files = FileService(self._session)
        self._turns = Turns(host.folder.parent, self.hosts.site, settings.username)
        self._one_by_one = asyncio.Semaphore(_AT_ONCE)
        self._offers = Offers(self._racm, self._files, self._wish)
        self._ended: dict[str, JobReport] = {}
        self._states: dict[str, State] = {}
        self._cancelled_at: dict[int, float] = {}
        self._records: dict[int, tuple[Job, float]] = {}
        self._unseen_until_s: dict[str, float] = {}
        self._limit_s: float | None = None

    async def __aenter__(self) -> SciServerCompute:
        await self._session.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._session.__aexit__(*exception)

    @property
    def file_spaces(self) -> Mapping[str, str]:
        return {self.hosts.file_space: WORKSPACE}

    @property
    def endpoints(self) -> Mapping[str, str]:
        return {"site": self.hosts.site}

    @property
    def reaches_server(self) -> Reach:
        return "public" if self.settings.calls_server else "no"

    async def check(self) -> None:
        """See that the account, the domain, the image and the volumes are there. Runs no job: it
        could wait for hours. Raises `ConfigError` telling what there is instead."""
        await self._session.token()
        self._offers.forget()
        await self._offers.choose()
        await self._racm.open_jobs()

    async def choices(self) -> Mapping[str, Choices]:
        return choices_of(await self._offers.domains(), self._wish)

    async def why_not(self, request: JobRequest) -> Sequence[Refusal]:
        """Refuse GPUs, settings that ask for what is not offered by now, and paths in volumes that
        jobs cannot see or not write to."""
        if request.resources.gpus:
            return [
                Refusal(
                    "resources.gpus",
                    "SciServer Compute does not hand out GPUs",
                    hint="leave gpus out: operations see what the domain's machines have",
                )
            ]
        try:
            async with asyncio.timeout(_LOOK_WITHIN_S):
                await self._offers.choose(request.paths)
        except InvalidRequest as error:
            return [Refusal(error.part or "paths", error.message, error.hint)]
        except ConfigError as error:
            if field := next((one for one in _OFFERED if one in error.fields), None):
                return [Refusal(field, error.message, error.hint)]
        except (DeepForgeError, TimeoutError):
            return []  # submitting will tell
        return []

    # -- submit ----------------------------------------------------------------------------

    async def submit(self, request: JobRequest) -> JobHandle:
        folder = f"{self._wish.job_volume.path}/{_FOLDER}/{request.key}"
        label = _label(request.key)
        async with _lock(self.hosts.site, self.settings.username, request.key):
            for job in await self._racm.labelled(label):
                self._note(job)
                return _handle(job, request, folder)
            choice = await self._offers.choose(request.paths)
            archive = f"{folder}/job-{secrets.token_hex(4)}.pyz"
            await files.put(self._files, archive, pack(request))
            fields = {
                "submitterDID": label,
                "command": command_line(self.settings.python, archive),
                "scriptURI": "",
                "resultsFolderURI": f"{WORKSPACE}/{folder}/",
            }
            try:
                job = await self._submitted(request, choice, fields)
            except (InvalidRequest, ConfigError):
                await self._files.remove(folder)
                raise
        self._note(job)
        return _handle(job, request, folder)

    async def _submitted(
        self, request: JobRequest, choice: Choice, fields: Mapping[str, Any]
    ) -> Job:
        """Submit; what is refused is chosen again, from lists that are read anew."""
        try:
            submitted = await self._racm.submit({**choice.fields(), **fields})
        except InvalidRequest:
            self._offers.forget()
            newer = await self._offers.choose(request.paths)  # names what is not offered any more
            if newer.fields() == choice.fields():
                raise
            choice = newer
            submitted = await self._racm.submit({**choice.fields(), **fields})
        if not choice.is_granted(submitted):
            self._offers.forget()
            await self._racm.cancel(submitted.job.id)
            raise InvalidRequest(
                "SciServer does not give the job all volumes that it needs",
                part="paths",
                hint="were rights on a volume taken back?",
            )
        return submitted.job

    # -- poll ------------------------------------------------------------------------------

    async def poll(self, handles: Sequence[JobHandle]) -> list[JobReport]:
        known = [self._ended.get(_key(handle)) for handle in handles]
        if all(known):
            return [one for one in known if one is not None]
        found = await self._board().look(self._racm, self.list_every_s, self._turns)
        looking = (self._report(one, found) for one in handles)
        reports: list[JobReport] = []
        for report in await asyncio.gather(*looking, return_exceptions=True):
            if isinstance(report, BaseException):
                raise report
            reports.append(report)
        return reports

    async def _report(self, handle: JobHandle, found: Mapping[str, Sequence[Job]]) -> JobReport:
        key = _key(handle)
        if (ended := self._ended.get(key)) is not None:
            return ended
        jobs = found.get(_label(key), ())
        if jobs:  # of two with one label one runs, and the other ends at once
            return await self._open_report(handle, max(jobs, key=lambda one: one.status & 24))
        id = int(handle.get("id", 0))
        async with self._one_by_one:
            job = await self._record(id)
            if job is not None and job.phase != "over":
                return await self._open_report(handle, job)
            report = await self._last_report(job, handle)
        if report.state == "running":
            self._states[key] = "running"
            return report
        self._records.pop(id, None)
        if report.state == "missing":  # of its own troubles the service says the same: look again
            return report
        return self._keep(key, report)

    async def _record(self, id: int) -> Job | None:
        """The full record of a job that is on no list. Asked for once when it is over, however often
        its files cannot be read then, and rarely while its status is one that no list has."""
        job, until_s = self._records.get(id, (None, 0.0))
        if job is None or (job.phase != "over" and time.monotonic() > until_s):
            job = await self._racm.job(id)
            if job is not None:
                self._note(job)
                if job.phase == "over" or job.status > FINISHED:
                    self._records[id] = job, time.monotonic() + LONGEST_PAUSE_S
        return job

    async def _open_report(self, handle: JobHandle, job: Job) -> JobReport:
        key = _key(handle)
        state = forward(self._states.get(key), job.phase)
        self._states[key] = state
        if job.id in self._cancelled_at:
            return JobReport(state, message="cancelling: SciServer has not ended it yet")
        words = []
        if state == "queued" and (place := await self._place(job)) is not None:
            words.append(f"number {place} in SciServer's queue")
        asked_s = float(handle.get("walltime_s", 0))
        if asked_s and (limit_s := await self._site_limit(job)) and limit_s < asked_s:
            where = self.settings.domain or "its domain"
            words.append(
                f"{where} ends jobs after {_span(limit_s)}, and this one may take {_span(asked_s)}"
            )
        return JobReport(state, message="; ".join(words) or None)

    async def _site_limit(self, job: Job) -> float | None:
        """After how long the domain ends jobs; None while nobody knows. No list of domains tells: the
        record of the first job that was taken from the queue does."""
        if self._limit_s is None and job.status > _WAITS:
            self._limit_s = inf  # while we ask, and if it is not told
            try:
                record = await self._racm.job(job.id)
            except (Unavailable, RateLimited, ConfigError):  # it is for a message only
                self._limit_s = None
            else:
                if record is not None and record.timeout_s is not None:
                    self._limit_s = record.timeout_s
        return self._limit_s

    async def _place(self, job: Job) -> int | None:
        """Its place in the queue, if there is only one job of the user that waits: the table does
        not name them."""
        table = await self._board().queues(self._racm, self._turns)
        found = places(table, self.settings.username)
        return found[0] if len(found) == 1 else None

    async def _last_report(self, job: Job | None, handle: JobHandle) -> JobReport:
        """What to say of a job that is over, the same whenever and by whomever it is asked.

        One that ended well, and whose files are not seen yet, counts as running for a while.
        """
        folder = str(handle.get("folder", ""))
        if job is None or not folder or not await files.is_there(self._files, folder):
            return JobReport("missing")
        if job.timed_out:
            return JobReport("exited", -9, "walltime", _limit(job))
        if job.was_cancelled:
            return JobReport("cancelled", reason="normal", message=job.said)
        record = await files.record(self._files, f"{folder}/exit.json")
        if isinstance(record, dict) and isinstance(record.get("exit_code"), int):
            reason: Literal["normal", "signal", "walltime"] = "normal"
            if record.get("reason") in ("signal", "walltime"):
                reason = record["reason"]
            said = record.get("message")
            message = self._about_image(said) if isinstance(said, str) else None
            return JobReport("exited", record["exit_code"], reason, message)
        if not job.failed and self._may_come(_key(handle)):
            return JobReport(
                "running", message="it has ended; how, SciServer Files does not show yet"
            )
        printed = await self._tail(job)
        told = "; ".join(one for one in (job.said, printed) if one)
        if "not found" in printed or "No such file" in printed:
            return JobReport("exited", 127, "normal", self._about_image(told))
        told = told or "its container ended without a word (is the setting `python` a Python?)"
        return JobReport("exited", 1, "node_failure", f"SciServer could not run it: {told}")

    def _may_come(self, key: str) -> bool:
        """Whether the files of a job that ended may still come to be seen."""
        now_s = time.monotonic()
        return now_s < self._unseen_until_s.setdefault(key, now_s + self.files_come_within_s)

    async def _tail(self, job: Job) -> str:
        """The end of what the container itself printed as errors."""
        folder = job.results_folder or ""
        if not folder.startswith(f"{WORKSPACE}/"):
            return ""
        path = folder.removeprefix(f"{WORKSPACE}/").strip("/")
        tail = b""
        try:
            async for chunk in files.read(self._files, f"{path}/stderr.txt"):
                tail = (tail + chunk)[-_TAIL_BYTES:]
        except Unavailable:  # for a message only: none is a good one too
            return ""
        return " ".join(tail.decode("utf-8", "replace").split())

    def _about_image(self, text: str) -> str:
        image = self.settings.image or "the image"
        return f"{image} cannot run it: {text} (the Python to use is the setting `python`)"

    # -- the rest --------------------------------------------------------------------------

    async def cancel(self, handles: Sequence[JobHandle]) -> None:
        for handle in handles:
            if _key(handle) not in self._ended:
                twins = self._board().labelled(_label(_key(handle)))
                for id in {int(handle.get("id", 0)), *twins}:
                    await self._cancel(id)

    async def _cancel(self, id: int) -> None:
        now_s = time.monotonic()
        asked_s = self._cancelled_at.get(id)
        if asked_s is None or now_s - asked_s >= _CANCEL_AGAIN_S:
            await self._racm.cancel(id)
            self._cancelled_at[id] = now_s
            job = await self._racm.job(id)  # one that waited is over at once
            if job is not None:
                self._note(job)

    async def log(self, handle: JobHandle, *, start: int = 0) -> AsyncIterator[bytes]:
        """What the command prints, errors among it. Each time it is received from its beginning."""
        folder = str(handle.get("folder", ""))
        if folder:
            async for chunk in files.read(self._files, f"{folder}/output.txt", start):
                yield chunk

    async def release(self, handle: JobHandle) -> None:
        """Delete the job's folder. SciServer keeps its record of the job for ever."""
        key, folder = _key(handle), str(handle.get("folder", ""))
        (report,) = await self.poll([handle])
        if report.state in ("queued", "running"):
            return
        if folder and report.state != "missing":
            await self._files.remove(folder)
        self._cancelled_at.pop(int(handle.get("id", 0)), None)
        self._keep(key, JobReport("missing"))

    def _keep(self, key: str, report: JobReport) -> JobReport:
        self._ended[key] = report
        self._states.pop(key, None)
        self._unseen_until_s.pop(key, None)
        if len(self._ended) > _MOST_ENDED:
            del self._ended[next(iter(self._ended))]
        return report

    def _note(self, job: Job) -> None:
        self._board().note(job)

    def _board(self) -> Board:
        return board_of(self.hosts.site, self.settings.username)


_LOCKS: WeakValueDictionary[tuple[object, ...], asyncio.Lock] = WeakValueDictionary()


def _lock(*about: str) -> asyncio.Lock:
    """One at a time submits a key in this process, through whichever adapter."""
    key = (asyncio.get_running_loop(), *about)
    return _LOCKS.setdefault(key, asyncio.Lock())


def _volume_of(settings: SciServerComputeSettings) -> Volume:
    try:
        return Volume.named(settings.job_volume, pool="Temporary", username=settings.username)
    except ConfigError as error:
        fields = {"job_volume": error.fields["volume"]}
        raise ConfigError(error.message, fields=fields, hint=error.hint) from error


def _limit(job: Job) -> str:
    limit = "" if job.timeout_s is None else f" of {_span(job.timeout_s)}"
    return f"SciServer ended it at the time limit{limit}: {job.said or 'its domain sets it'}"


def _label(key: str) -> str:
    """What a job goes by at SciServer. It ends with what no key has: searching finds parts of labels."""
    return f"deepforge/{key}/"


def _handle(job: Job, request: JobRequest, folder: str) -> JobHandle:
    handle = {"id": job.id, "key": request.key, "folder": folder}
    asked_s = request.resources.walltime_s
    return handle if asked_s is None else {**handle, "walltime_s": asked_s}


def _span(seconds: float) -> str:
    return f"{seconds / 60:.4g} min" if seconds < 7200 else f"{seconds / 3600:.4g} h"


def _key(handle: JobHandle) -> str:
    return str(handle.get("key", ""))
