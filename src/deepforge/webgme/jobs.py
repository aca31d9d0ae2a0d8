"""Jobs of the WebGME Executor Framework: their shape on the wire, and what may become of one.

Everything here is pure. Two kinds of jobs share a queue. An *attempt* was submitted by our compute
adapter (it has a `key`): it is handed out at most once, and only the worker that got it may say how
it ended, once. A job that a client of the framework made (`POST create/<hash>`) keeps the rules of
the original server: any status may follow any other, and what a lost worker had is handed out again.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from deepforge.compute.port import PYTHON, JobReport, Reason, Resources
from deepforge.errors import Conflict, InvalidRequest
from deepforge.ids import epoch_s
from deepforge.webgme.blobs import JOB_NAME, Metadata, of_files

CREATED = "CREATED"
RUNNING = "RUNNING"
SUCCESS = "SUCCESS"
CANCELED = "CANCELED"
FAILED_TO_EXECUTE = "FAILED_TO_EXECUTE"
LOST = "LOST"
"""Ours alone: the worker that had the attempt is gone, and nothing it says of it counts any more."""

CONFIG_FILE = "executor_config.json"
"""Says what to run, for a worker that gets the job's files as a zip."""

OVERDUE_GRACE_S = 60.0

_LONGEST_TEXT = 10_000


@dataclass(frozen=True)
class Job:
    """One job as it is kept. Times are RFC 3339 texts; `started_at` and `finished_at` are what the
    worker claims, and decide nothing."""

    owner: str
    hash: str
    created_at: str
    """Jobs of one owner are handed out in this order."""
    secret: str
    user: str | None = None
    """Whose attempt it is, where the owner is a pool; None where it is the owner's own."""
    status: str = CREATED
    key: str | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    resources: Resources = field(default_factory=Resources)
    command: tuple[str, ...] = ()
    files: Mapping[str, Any] | str = field(default_factory=dict)
    """A name and its text, or `{"base64": …}`; as one text, all that sealed. They hold the token of the
    attempt, so they are sealed while it lasts, and forgotten when it is over."""
    runner: str | None = None
    """The sha256 of the runner's archive, which is one of the files and kept once for all jobs."""
    runner_file: str | None = None
    worker: str | None = None
    ours: bool = False
    """Whether the worker that has it speaks our dialect."""
    cancel: bool = False
    handed_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    result_hashes: Any = field(default_factory=list)  # JSON, as the worker sent it
    result_superset: Any = None  # the same
    output_number: int | None = None
    exit_code: int | None = None
    reason: str | None = None
    message: str | None = None

    @property
    def is_attempt(self) -> bool:
        return self.key is not None

    def is_of(self, user: str) -> bool:
        """Whether it is this user's, in their own queue or in that of a pool."""
        return user == (self.user or self.owner)

    @property
    def is_over(self) -> bool:
        return self.status not in (CREATED, RUNNING)


# ── what may become of a job ──────────────────────────────────────────────────────────────────────


def handed_out(job: Job, worker: str, *, ours: bool, now: str) -> Job:
    """Give a waiting job to a worker. Raises `Conflict` when it does not wait any more."""
    if job.status != CREATED:
        raise Conflict(f"job {job.hash} is {job.status} by now")
    return replace(job, status=RUNNING, worker=worker, ours=ours, handed_at=now)


def updated(job: Job, update: Mapping[str, Any]) -> Job:
    """Take what a worker, or a client, says of the job.

    Raises `Conflict` for an attempt that is over, or that another worker has, and `InvalidRequest`
    for an update that is none.
    """
    known = _known_fields(update)
    if not job.is_attempt:
        return replace(job, cancel=False, **known)
    worker = known.pop("worker", job.worker)
    if job.status != RUNNING or worker != job.worker:
        raise Conflict(f"job {job.hash} is not run by {worker}: it is {job.status}")
    known.pop("labels", None)
    status = known.get("status", RUNNING)
    if status == CREATED:
        return lost(job, f"worker {job.worker} gave it back")
    if status == LOST:
        raise InvalidRequest("a worker cannot say that of its job", part="status")
    changed = replace(job, **known, **_ending(update))
    return replace(changed, files={}, cancel=False) if changed.is_over else changed


def cancelled(job: Job) -> Job:
    """Ask for its end: at once while it waits, else the worker is told. Over stays over."""
    if job.is_over or job.cancel:
        return job
    if job.status == CREATED:
        return replace(job, status=CANCELED, files={})
    return replace(job, cancel=True)


def refused(job: Job, message: str) -> Job:
    """It waits, and may not start any more. Others stay as they are."""
    if job.status != CREATED:
        return job
    return replace(job, status=FAILED_TO_EXECUTE, message=message, files={})


def overdue(job: Job) -> Job:
    """Ask for its end because it runs longer than it may. Others stay as they are."""
    if job.status != RUNNING or job.cancel:
        return job
    return replace(job, cancel=True, reason="walltime", message="it ran longer than it may")


def is_overdue(job: Job, now_s: float) -> bool:
    """Whether it runs past its time limit. Our workers keep to it themselves, and get some grace."""
    limit_s = job.resources.walltime_s
    if job.status != RUNNING or job.cancel or limit_s is None or job.handed_at is None:
        return False
    grace_s = OVERDUE_GRACE_S if job.ours and job.runner is not None else 0.0
    return now_s - epoch_s(job.handed_at) > limit_s + grace_s


def lost(job: Job, message: str) -> Job:
    """The worker is gone: an attempt is over, any other job waits again. Others stay as they are."""
    if job.status != RUNNING:
        return job
    if job.is_attempt:
        return replace(job, status=LOST, message=message, files={}, cancel=False)
    return replace(job, status=CREATED, worker=None, started_at=None, handed_at=None)


def created_again(old: Job, new: Job) -> Job:
    """What comes of creating a job that is there: the same job, unless it was cancelled."""
    return new if old.status == CANCELED and not old.is_attempt else old


def report(job: Job) -> JobReport:
    """How an attempt is, as the compute port says it."""
    if job.status == CREATED:
        return JobReport("queued")
    if job.status == RUNNING:
        return JobReport("running")
    if job.status == CANCELED and job.reason is None:
        return JobReport("cancelled", message=job.message)
    if job.status == LOST:
        return JobReport("exited", None, "node_failure", job.message)
    code = job.exit_code
    if job.status == SUCCESS:
        return JobReport("exited", code or 0, "normal", job.message)
    if job.status not in (FAILED_TO_EXECUTE, CANCELED):  # the worker never came to start it
        return JobReport("exited", code, "node_failure", f"the worker reports {job.status}")
    code = 1 if code is None else code
    reason: Reason = "signal" if code < 0 else "normal"
    if job.reason in get_args(Reason):
        reason = job.reason  # type: ignore[assignment]
    return JobReport("exited", code, reason, job.message)


# ── what a worker gets ────────────────────────────────────────────────────────────────────────────


def config(command: Sequence[str], key: str) -> str:
    """The text of `executor_config.json`. Result artifacts repeat the result and the log alone: the
    data go where the grants of the job say. The key is there so that no two attempts are alike."""
    words = ["python3" if word == PYTHON else word for word in command]
    return json.dumps(
        {
            "cmd": words[0],
            "args": words[1:],
            "outputInterval": 1000,
            "resultArtifacts": [{"name": "result", "resultPatterns": ["result.json", "log.txt"]}],
            "attempt": key,
        }
    )


def kept_files(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Spell files as JSON: texts as they are."""
    kept: dict[str, Any] = {}
    for name, data in files.items():
        try:
            kept[name] = data.decode()
        except UnicodeDecodeError:
            kept[name] = {"base64": b64encode(data).decode()}
    return kept


def file_bytes(kept: Any) -> bytes:  # a value of `kept_files`
    return kept.encode() if isinstance(kept, str) else b64decode(kept["base64"])


def artifact(files: Mapping[str, bytes]) -> Metadata:
    """The artifact that these files are. Its metadata hash is the id of the job."""
    return of_files(JOB_NAME, files)


# ── on the wire ───────────────────────────────────────────────────────────────────────────────────


def info(job: Job, *, secret: bool = False) -> dict[str, Any]:
    """The JobInfo of the protocol, with all its keys: workers send it back whole."""
    shown: dict[str, Any] = {
        "hash": job.hash,
        "resultHashes": job.result_hashes,
        "resultSuperSet": job.result_superset,
        "userId": [job.owner],
        "status": job.status,
        "createTime": job.created_at[:23] + "Z",
        "startTime": job.started_at,
        "finishTime": job.finished_at,
        "worker": job.worker,
        "labels": list(job.labels),
        "outputNumber": job.output_number,
    }
    if job.cancel:
        shown["cancelRequested"] = True
    if secret:
        shown["secret"] = job.secret
    return shown


def new_job(owner: str, hash: str, wanted: Mapping[str, Any], *, now: str, secret: str) -> Job:
    """The job a client of the framework asks for. Raises `InvalidRequest`."""
    job = Job(owner=owner, hash=hash, created_at=now, secret=secret)
    return replace(job, **_known_fields(wanted))


def body_of(job: Job) -> dict[str, Any]:
    """The job as a document's body; `assigned` is there for searches."""
    body = {**vars(job), "resources": {**vars(job.resources)}}  # asdict would copy every text
    running = job.status == RUNNING and job.worker is not None
    body["assigned"] = f"{job.owner} {job.worker}" if running else None
    body["cancel"] = True if job.cancel else None  # what is null costs no place in an index
    return body


def job_of(body: Mapping[str, Any]) -> Job:
    values = {name: value for name, value in body.items() if name != "assigned"}
    values["labels"] = tuple(values["labels"])
    values["command"] = tuple(values["command"])
    values["resources"] = Resources(**values["resources"])
    values["cancel"] = bool(values["cancel"])
    return Job(**values)


_FIELDS = {
    "status": "status",
    "startTime": "started_at",
    "finishTime": "finished_at",
    "worker": "worker",
    "labels": "labels",
    "outputNumber": "output_number",
    "resultHashes": "result_hashes",
    "resultSuperSet": "result_superset",
}


def _known_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a client may set, checked; null and empty lists say nothing."""
    found: dict[str, Any] = {}
    for wire, name in _FIELDS.items():
        value = given.get(wire)
        if value is None or value == []:
            continue
        if name == "labels":
            value = labels_of(value, wire)
        elif name == "output_number":
            if not isinstance(value, int) or isinstance(value, bool):
                raise InvalidRequest(f"{wire} is not a whole number", part=wire)
        elif name.startswith("result_"):
            if not isinstance(value, dict | str):
                raise InvalidRequest(f"{wire} is neither an object nor a text", part=wire)
        elif not isinstance(value, str) or not 0 < len(value) <= 256 or "\0" in value:
            raise InvalidRequest(f"{wire} is not a short text", part=wire)
        found[name] = value
    return found


def labels_of(value: object, part: str = "labels") -> tuple[str, ...]:
    """A list of labels from JSON. Raises `InvalidRequest`."""
    if not isinstance(value, list) or len(value) > 100:
        raise InvalidRequest(f"{part} is not a list of up to 100 texts", part=part)
    for one in value:
        if not isinstance(one, str) or not 0 < len(one) <= 256:
            raise InvalidRequest(f"{part} holds something that is not a short text", part=part)
    return tuple(sorted(set(value)))


def _ending(update: Mapping[str, Any]) -> dict[str, Any]:
    """What our worker says besides: `exitCode`, and `reason` (of the compute port) and `message`
    under `deepforge`."""
    found: dict[str, Any] = {}
    said = update.get("deepforge")
    said = said if isinstance(said, dict) else {}
    code, reason, message = update.get("exitCode"), said.get("reason"), said.get("message")
    if isinstance(code, int) and not isinstance(code, bool) and abs(code) < 2**31:
        found["exit_code"] = code
    if reason in get_args(Reason):
        found["reason"] = reason
    if isinstance(message, str):
        found["message"] = message[:_LONGEST_TEXT]
    return found
