"""The machine: a job and an event go in, a new job and instructions come out. It does no I/O.

Times come in as text (`ids.utc_now`). An event about an attempt that is not the current one changes
nothing: late answers of lost attempts cannot count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from deepforge.compute.port import JobHandle, JobReport
from deepforge.execution.model import Attempt, Job, JobState, StoredValue
from deepforge.ids import epoch_s, timestamp
from deepforge.runner.protocol import EXIT_TRY_AGAIN, Failure, Result


@dataclass(frozen=True)
class Policy:
    """How often and how patiently a job is tried."""

    retries: int = 3
    """How many attempts may follow the first one, after transient failures."""
    first_pause_s: float = 1.0
    pause_factor: float = 4.0
    longest_pause_s: float = 120.0
    missing_grace_s: float = 30.0
    """How long a job the compute does not know may stay unknown before it counts as lost."""
    unasked_s: float = 120.0
    """How long a cancel waits for whoever could ask the far side to end, before it ends without."""
    uncounted_attempts: int = 20
    """The limit for attempts that do not use up a retry."""

    def pause_s(self, failed_attempts: int) -> float:
        """The pause after the n-th failed attempt (from 1)."""
        grown = self.first_pause_s * self.pause_factor ** max(0, failed_attempts - 1)
        return min(self.longest_pause_s, grown)


# ── what can happen to a job ──────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Freed:
    """Every job it needs has succeeded; `values` are what they left for it (`Job.values`)."""

    values: Mapping[str, StoredValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Starved:
    """The job `because` (a name) did not succeed."""

    because: str


@dataclass(frozen=True)
class Due:
    """It may be submitted now."""


@dataclass(frozen=True)
class Accepted:
    """The compute took the attempt."""

    attempt: int
    handle: JobHandle


@dataclass(frozen=True)
class Refused:
    """The attempt could not be handed over."""

    attempt: int
    failure: Failure


@dataclass(frozen=True)
class Started:
    """A runner asked for the job of this attempt. `runner` is the runner's own random name.

    The first runner gets it; it may ask again (its answer was lost), a second one may not.
    """

    attempt: int
    runner: str


@dataclass(frozen=True)
class Reported:
    """The compute says how the attempt is."""

    attempt: int
    report: JobReport


@dataclass(frozen=True)
class Finished:
    """The runner says that its result is there."""

    attempt: int


@dataclass(frozen=True)
class Collected:
    """`result.json` was found; `outputs` are the values it names, `published` the ids of the
    artifacts they became."""

    attempt: int
    result: Result
    outputs: Mapping[str, StoredValue]
    published: tuple[str, ...] = ()


@dataclass(frozen=True)
class NoResult:
    """There is no usable `result.json`, though the compute says (`report`) that it is over.

    `log` is the end of what the platform said.
    """

    attempt: int
    report: JobReport
    log: str = ""


@dataclass(frozen=True)
class CancelAsked:
    """Somebody asked for the end of the execution."""


@dataclass(frozen=True)
class Unasked:
    """Nobody could ask the attempt to end, and nobody waits for that any more; `why` says it."""

    attempt: int
    why: str


Event = (
    Freed | Starved | Due | Accepted | Refused | Started | Reported | Finished | Collected | NoResult
    | CancelAsked | Unasked
)  # fmt: skip


# ── what is to be done ────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Submit:
    """Hand the attempt to the compute. The job must be stored as `submitting` before."""

    attempt: int


@dataclass(frozen=True)
class Collect:
    """Look for the attempt's result. `report` is the compute's last word, if it spoke."""

    attempt: int
    report: JobReport | None = None


@dataclass(frozen=True)
class Cancel:
    """Ask the compute to end the attempt."""

    attempt: int


@dataclass(frozen=True)
class Release:
    """Let the compute forget the attempt."""

    attempt: int


Instruction = Submit | Collect | Cancel | Release

Outcome = tuple[Job, tuple[Instruction, ...]]


def step(job: Job, event: Event, *, now: str, policy: Policy) -> Outcome:
    """Return the job after the event, and what is to be done about it.

    An event that does not fit the job's state is ignored (the same job comes back): events may be
    late, repeated and in any order.
    """
    if job.state.is_final:
        return _after_the_end(job, event)
    number = getattr(event, "attempt", None)
    if number is not None and (job.attempt is None or job.attempt.number != number):
        return job, ()
    handler = _TABLE.get((job.state, type(event)))
    return (job, ()) if handler is None else handler(job, event, now, policy)


# ── the handlers, in the order a job meets them ───────────────────────────────────────────────────


def _free(job: Job, event: Freed, now: str, policy: Policy) -> Outcome:
    return replace(job, state=JobState.READY, values=dict(event.values)), ()


def _starve(job: Job, event: Starved, now: str, policy: Policy) -> Outcome:
    return replace(job, state=JobState.SKIPPED, skipped_because=event.because), ()


def _submit(job: Job, event: Due, now: str, policy: Policy) -> Outcome:
    if job.retry_at is not None and epoch_s(job.retry_at) > epoch_s(now):
        return job, ()
    attempt = Attempt(number=len(job.attempts) + 1, submitted_at=now)
    job = replace(
        job,
        state=JobState.SUBMITTING,
        attempts=(*job.attempts, attempt),
        retry_at=None,
        failure=None,
    )
    return job, (Submit(attempt.number),)


def _accept(job: Job, event: Accepted, now: str, policy: Policy) -> Outcome:
    """The start of the runner may have been heard before the submission's answer."""
    state = JobState.QUEUED if job.state is JobState.SUBMITTING else job.state
    job = replace(_with_attempt(job, handle=event.handle), state=state)
    if job.cancel_requested:
        return _cancel_attempt(job, now)
    return job, ()


def _refuse(job: Job, event: Refused, now: str, policy: Policy) -> Outcome:
    if job.cancel_requested:
        return _end(job, JobState.CANCELLED, "cancelled", event.failure, now)
    return _fail(job, event.failure, "failed", now, policy)


def _start(job: Job, event: Started, now: str, policy: Policy) -> Outcome:
    if job.attempts[-1].runner is not None:
        return job, ()
    job = _with_attempt(job, runner=event.runner)
    if job.state is JobState.RUNNING:
        return job, ()
    return replace(_with_attempt(job, started_at=now), state=JobState.RUNNING), ()


def _report(job: Job, event: Reported, now: str, policy: Policy) -> Outcome:
    report = event.report
    attempt = job.attempts[-1]
    if report.state == "missing":
        since = attempt.missing_since or now
        if epoch_s(now) - epoch_s(since) < policy.missing_grace_s:
            return _with_attempt(job, missing_since=since), ()
    elif report.state == "queued":
        return _with_words(job, report), ()
    elif report.state == "running":
        job = _with_words(job, report)
        if attempt.missing_since is not None:
            job = _with_attempt(job, missing_since=None)
        if job.state is JobState.RUNNING:
            return job, ()
        return replace(_with_attempt(job, started_at=now), state=JobState.RUNNING), ()
    return replace(job, state=JobState.COLLECTING), (Collect(attempt.number, report),)


def _finish(job: Job, event: Finished, now: str, policy: Policy) -> Outcome:
    return replace(job, state=JobState.COLLECTING), (Collect(event.attempt),)


def _collect(job: Job, event: Collected, now: str, policy: Policy) -> Outcome:
    result = event.result
    log_bytes = None if result.log is None or result.log.digest is None else result.log.size_bytes
    job = _with_attempt(job, log_bytes=log_bytes, seconds=result.seconds.get("run"))
    if result.status == "succeeded":
        job = replace(job, outputs=dict(event.outputs), published=event.published)
        return _end(job, JobState.SUCCEEDED, "succeeded", None, now)
    failure = result.failure or Failure(kind="runner", message="the runner gave no reason")
    if job.cancel_requested:
        return _end(job, JobState.CANCELLED, "cancelled", failure, now)
    if result.status == "cancelled":
        # nobody here asked for it: the far side was told to stop (preempted, shut down)
        failure = replace(failure, transient=True)
    return _fail(job, failure, "failed", now, policy, counts=failure.kind != "grants_expired")


def _lose(job: Job, event: NoResult, now: str, policy: Policy) -> Outcome:
    failure = _lost(event)
    if job.cancel_requested:
        return _end(job, JobState.CANCELLED, "cancelled", failure, now)
    return _fail(job, failure, "lost", now, policy)


def _cancel_early(job: Job, event: CancelAsked, now: str, policy: Policy) -> Outcome:
    job = replace(job, state=JobState.CANCELLED, cancel_requested=True, retry_at=None)
    return replace(job, failure=None), ()


def _cancel_active(job: Job, event: CancelAsked, now: str, policy: Policy) -> Outcome:
    job = replace(job, cancel_requested=True)
    if job.attempts[-1].handle is None or job.state is JobState.COLLECTING:
        return job, ()  # the cancel goes out with `Accepted`, or is not needed any more
    return _cancel_attempt(job, now)


def _cancel_unasked(job: Job, event: Unasked, now: str, policy: Policy) -> Outcome:
    """It ends here alone. There is nobody to release it either."""
    if not job.cancel_requested:
        return job, ()
    failure = Failure(
        "runner",
        f"it was cancelled, but its process could not be asked to end ({event.why}); it may still run, "
        "and nothing that comes of it counts",
    )
    job, _ = _end(job, JobState.CANCELLED, "cancelled", failure, now)
    return replace(job, failure=failure), ()


Handler = Callable[[Job, Any, str, Policy], Outcome]

_HANDED_OVER = (JobState.SUBMITTING, JobState.QUEUED, JobState.RUNNING)

_TABLE: dict[tuple[JobState, type[Any]], Handler] = {
    (JobState.WAITING, Freed): _free,
    (JobState.WAITING, Starved): _starve,
    (JobState.WAITING, CancelAsked): _cancel_early,
    (JobState.READY, Due): _submit,
    (JobState.READY, CancelAsked): _cancel_early,
    (JobState.SUBMITTING, Refused): _refuse,
    **{(state, Accepted): _accept for state in (*_HANDED_OVER, JobState.COLLECTING)},
    **{(state, Started): _start for state in _HANDED_OVER},
    **{(state, Reported): _report for state in _HANDED_OVER},
    **{(state, Finished): _finish for state in _HANDED_OVER},
    **{(state, CancelAsked): _cancel_active for state in (*_HANDED_OVER, JobState.COLLECTING)},
    **{(state, Unasked): _cancel_unasked for state in (*_HANDED_OVER, JobState.COLLECTING)},
    (JobState.COLLECTING, Collected): _collect,
    (JobState.COLLECTING, NoResult): _lose,
}


# ── shared steps ──────────────────────────────────────────────────────────────────────────────────


def _after_the_end(job: Job, event: Event) -> Outcome:
    """A job may end before its submission is answered: then the handle is needed to clean up."""
    attempt = job.attempt
    if not isinstance(event, Accepted) or attempt is None or attempt.number != event.attempt:
        return job, ()
    if attempt.handle is not None:
        return job, ()
    return _with_attempt(job, handle=event.handle), (Release(event.attempt),)


def _with_attempt(job: Job, **changes: Any) -> Job:
    return replace(job, attempts=(*job.attempts[:-1], replace(job.attempts[-1], **changes)))


def _with_words(job: Job, report: JobReport) -> Job:
    is_known = job.attempts[-1].said == report.message
    return job if is_known else _with_attempt(job, said=report.message)


def _cancel_attempt(job: Job, now: str) -> Outcome:
    return _with_attempt(job, cancel_sent_at=now), (Cancel(job.attempts[-1].number),)


def _end(job: Job, state: JobState, outcome: str, failure: Failure | None, now: str) -> Outcome:
    number = job.attempts[-1].number
    job = _with_attempt(job, ended_at=now, outcome=outcome, failure=failure)
    shown = failure if state is JobState.FAILED else None
    job = replace(job, state=state, failure=shown, retry_at=None)
    return job, (Release(number),)


def _fail(
    job: Job, failure: Failure, outcome: str, now: str, policy: Policy, *, counts: bool = True
) -> Outcome:
    """End the attempt, and the job too unless another attempt may help and is left."""
    job = _with_attempt(job, counts=counts)
    failed = sum(one.counts for one in job.attempts)
    uncounted = len(job.attempts) - failed
    may_retry = failure.transient or not counts
    if not may_retry or failed > policy.retries or uncounted > policy.uncounted_attempts:
        return _end(job, JobState.FAILED, outcome, failure, now)
    job, instructions = _end(job, JobState.READY, outcome, failure, now)
    pause_s = policy.pause_s(failed) if counts else policy.first_pause_s
    return replace(job, failure=failure, retry_at=timestamp(epoch_s(now) + pause_s)), instructions


_KILLED = (
    "something killed the runner. If it happens each time, the operation does it (it kills its parent"
    " process, or all of its user's); else the machine may have run out of memory, or somebody did it"
)
_LIMIT_OF_THE_OPERATION = "give the operation more `time` under [tool.deepforge.resources]"
_LIMIT_OF_THE_COMPUTE = "do less in one operation, or run it on a compute that gives it more time"


def _lost(event: NoResult) -> Failure:
    """Say in plain words how an attempt without a result ended."""
    report = event.report
    said = f"; it said: {event.log}" if event.log else ""
    told = f" ({report.message})" if report.message else ""
    if report.state == "missing":
        return Failure(
            "runner", f"the compute does not know the job any more{said}", transient=True
        )
    if report.state == "cancelled":
        return Failure(
            "runner",
            f"the compute cancelled the job{told}{said}",
            transient=report.reason != "normal",
        )
    if report.reason == "walltime":
        return Failure(
            "time_limit",
            f"the compute ended the job at its time limit{told}{said}",
            hint=_LIMIT_OF_THE_COMPUTE if told else _LIMIT_OF_THE_OPERATION,
        )
    if report.reason == "out_of_memory":
        return Failure(
            "signal",
            f"the compute ended the job because it ran out of memory{said}",
            exit_code=report.exit_code,
            hint="ask for more `memory` under [tool.deepforge.resources]",
        )
    words = report.message or f"exit code {report.exit_code}, {report.reason or 'no reason given'}"
    return Failure(
        "runner",
        f"the runner ended without a result ({words}){said}",
        exit_code=report.exit_code,
        hint=_KILLED if report.reason == "signal" else None,
        transient=report.reason != "normal" or report.exit_code == EXIT_TRY_AGAIN,
    )
