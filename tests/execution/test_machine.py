"""The machine: single transitions, then thousands of random event orders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepforge.compute.port import JobReport
from deepforge.execution import machine
from deepforge.execution.machine import Event, Instruction, Policy, step
from deepforge.execution.model import (
    Job,
    JobState,
    PlannedInput,
    PlannedJob,
    StoredValue,
)
from deepforge.ids import epoch_s, timestamp
from deepforge.runner.protocol import Failure, Result
from deepforge.storage.port import ObjectRef

POLICY = Policy(retries=2, first_pause_s=1, pause_factor=4, missing_grace_s=30)
NOW = "2026-01-02T03:04:05.000000Z"
VALUE = StoredValue(ObjectRef("local", "k", 3, "sha256:" + "0" * 64), "builtins.int", "pickle")
CRASH = Failure("exception", "boom")
WOBBLE = Failure("transfer", "connection reset", transient=True)


def new_job() -> Job:
    planned = PlannedJob(
        id="train",
        name="train",
        index=0,
        module="operations.train",
        operation="Train",
        file="operations/train.py",
        arguments=(),
        inputs=(PlannedInput("images", job="load", output="images"),),
        outputs=("model",),
        publishes=(),
        compute="server",
    )
    return Job("0123456789abcdefghjk", planned)


def later(seconds: float) -> str:
    return timestamp(epoch_s(NOW) + seconds)


def told(job: Job, *events: Event, now: str = NOW) -> tuple[Job, tuple[Instruction, ...]]:
    instructions: tuple[Instruction, ...] = ()
    for event in events:
        job, instructions = step(job, event, now=now, policy=POLICY)
    return job, instructions


def result(status: str, failure: Failure | None = None) -> Result:
    return Result("any", status, failure=failure, seconds={"run": 1.5})


def running() -> Job:
    events = (
        machine.Freed({"inputs/images": VALUE}),
        machine.Due(),
        machine.Accepted(1, {"pid": 7}),
        machine.Started(1, "runner-a"),
    )
    return told(new_job(), *events)[0]


def test_a_job_goes_from_waiting_to_succeeded() -> None:
    job = new_job()
    seen = [job.state]
    done: list[Instruction] = []
    for event in (
        machine.Freed({"inputs/images": VALUE}),
        machine.Due(),
        machine.Accepted(1, {"pid": 7}),
        machine.Started(1, "runner-a"),
        machine.Finished(1),
        machine.Collected(1, result("succeeded"), {"model": VALUE}, ("artifact-1",)),
    ):
        job, instructions = told(job, event)
        seen.append(job.state)
        done += instructions

    assert [
        "waiting",
        "ready",
        "submitting",
        "queued",
        "running",
        "collecting",
        "succeeded",
    ] == seen
    assert [machine.Submit(1), machine.Collect(1), machine.Release(1)] == done
    assert {"model": VALUE} == job.outputs
    assert {"inputs/images": VALUE} == job.values
    assert ("artifact-1",) == job.published
    assert job.attempt is not None
    assert ("succeeded", 1.5) == (job.attempt.outcome, job.attempt.seconds)


def test_the_runner_may_be_heard_before_the_submission_is_answered() -> None:
    job, _ = told(new_job(), machine.Freed(), machine.Due(), machine.Started(1, "runner-a"))

    assert job.state is JobState.RUNNING

    job, _ = told(job, machine.Accepted(1, {"pid": 7}))

    assert job.state is JobState.RUNNING
    assert job.attempt is not None
    assert job.attempt.handle == {"pid": 7}


def test_a_second_runner_changes_nothing() -> None:
    job = running()

    assert (job, ()) == told(job, machine.Started(1, "runner-b"))


def test_the_first_runner_counts_even_when_the_queue_spoke_before() -> None:
    reported = machine.Reported(1, JobReport("running"))
    job, _ = told(new_job(), machine.Freed(), machine.Due(), machine.Accepted(1, {}), reported)
    job, _ = told(job, machine.Started(1, "runner-a"))

    assert job.attempt is not None
    assert job.attempt.runner == "runner-a"


def test_a_failure_of_the_operation_is_final() -> None:
    job, done = told(
        running(), machine.Finished(1), machine.Collected(1, result("failed", CRASH), {})
    )

    assert job.state is JobState.FAILED
    assert job.failure == CRASH
    assert done == (machine.Release(1),)


def test_a_transient_failure_is_tried_again_after_growing_pauses_up_to_a_limit() -> None:
    job = running()
    pauses = []
    now = NOW
    for number in (1, 2, 3):
        failed = machine.Collected(number, result("failed", WOBBLE), {})
        job, _ = told(job, machine.Finished(number), failed, now=now)
        if job.state is JobState.FAILED:
            break
        assert job.retry_at is not None
        pauses.append(epoch_s(job.retry_at) - epoch_s(now))
        early, _ = told(job, machine.Due(), now=now)
        assert early.state is JobState.READY
        now = job.retry_at
        job, _ = told(job, machine.Due(), machine.Accepted(number + 1, {}), now=now)

    assert pauses == pytest.approx([1, 4])
    assert job.state is JobState.FAILED
    assert job.failure == WOBBLE
    assert [one.outcome for one in job.attempts] == ["failed"] * 3


def test_grants_that_ended_too_early_use_up_no_retry() -> None:
    job = running()
    expired = Failure("grants_expired", "the grants have ended")
    for number in range(1, 8):
        ended = machine.Collected(number, result("failed", expired), {})
        job, _ = told(job, machine.Finished(number), ended)
        assert job.state is JobState.READY
        job, _ = told(job, machine.Due(), machine.Accepted(number + 1, {}), now=later(1e6))

    assert not any(one.counts for one in job.attempts[:-1])


def test_a_late_event_of_a_lost_attempt_cannot_count() -> None:
    job, _ = told(
        running(), machine.Finished(1), machine.Collected(1, result("failed", WOBBLE), {})
    )
    job, _ = told(job, machine.Due(), now=later(100))

    assert len(job.attempts) == 2
    for event in (
        machine.Started(1, "runner-a"),
        machine.Finished(1),
        machine.Accepted(1, {"pid": 7}),
        machine.Collected(1, result("succeeded"), {"model": VALUE}),
        machine.Reported(1, JobReport("exited", 0, "normal")),
    ):
        assert told(job, event) == (job, ())


def test_an_unknown_job_is_lost_only_after_the_grace_time() -> None:
    missing = machine.Reported(1, JobReport("missing"))
    job, done = told(running(), missing)

    assert (JobState.RUNNING, ()) == (job.state, done)

    back, _ = told(job, machine.Reported(1, JobReport("running")), now=later(29))
    assert told(back, missing, now=later(31))[0].state is JobState.RUNNING

    job, done = told(job, missing, now=later(31))

    assert job.state is JobState.COLLECTING
    assert done == (machine.Collect(1, JobReport("missing")),)

    job, _ = told(job, machine.NoResult(1, JobReport("missing")), now=later(31))

    assert job.state is JobState.READY
    assert job.attempts[0].outcome == "lost"


def test_a_result_is_believed_whatever_the_queue_says() -> None:
    killed = JobReport("exited", -9, "signal")
    job, _ = told(running(), machine.Reported(1, killed))
    job, _ = told(job, machine.Collected(1, result("succeeded"), {"model": VALUE}))

    assert job.state is JobState.SUCCEEDED


@pytest.mark.parametrize(
    ("report", "state", "kind"),
    [
        (JobReport("exited", 1, "normal"), JobState.FAILED, "runner"),
        (JobReport("exited", 75, "normal"), JobState.READY, "runner"),
        (JobReport("exited", -9, "signal"), JobState.READY, "runner"),
        (JobReport("exited", None, "node_failure"), JobState.READY, "runner"),
        (JobReport("exited", -9, "out_of_memory"), JobState.FAILED, "signal"),
        (JobReport("exited", -15, "walltime"), JobState.FAILED, "time_limit"),
        (JobReport("cancelled"), JobState.READY, "runner"),
    ],
)
def test_an_end_without_a_result(report: JobReport, state: JobState, kind: str) -> None:
    job, _ = told(running(), machine.Reported(1, report))
    job, _ = told(job, machine.NoResult(1, report, log="python3: not found"))

    assert job.state is state
    assert job.failure is not None
    assert job.failure.kind == kind
    assert "python3: not found" in job.failure.message


def test_what_a_compute_says_meanwhile_is_kept_until_it_says_something_else() -> None:
    job, _ = told(running(), machine.Reported(1, JobReport("running", message="cancelling")))
    again, _ = told(job, machine.Reported(1, JobReport("running", message="cancelling")))
    silent, _ = told(job, machine.Reported(1, JobReport("running")))

    assert "cancelling" == job.attempts[-1].said
    assert again is job
    assert silent.attempts[-1].said is None


def test_whom_people_cancelled_is_not_begun_again() -> None:
    report = JobReport("cancelled", reason="normal", message="Canceled by bob")
    job, _ = told(running(), machine.Reported(1, report), machine.NoResult(1, report))

    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert "Canceled by bob" in job.failure.message


def test_a_limit_of_the_compute_is_not_said_to_be_ours() -> None:
    own, theirs = (
        told(running(), machine.Reported(1, report), machine.NoResult(1, report))[0].failure
        for report in (
            JobReport("exited", -9, "walltime"),
            JobReport("exited", -9, "walltime", "a day is over"),
        )
    )

    assert own is not None
    assert theirs is not None
    assert "`time`" in (own.hint or "")
    assert "a day is over" in theirs.message
    assert "`time`" not in (theirs.hint or "")


def test_who_may_have_killed_a_runner_is_said() -> None:
    killed, ended = (
        told(running(), machine.Reported(1, report), machine.NoResult(1, report))[0].failure
        for report in (JobReport("exited", -9, "signal"), JobReport("exited", 1, "normal"))
    )

    assert killed is not None
    assert ended is not None
    assert "the operation does it (it kills its parent process" in (killed.hint or "")
    assert ended.hint is None


@pytest.mark.parametrize("events", [(), (machine.Freed(),)])
def test_cancel_before_submission_is_at_once(events: tuple[Event, ...]) -> None:
    job, done = told(new_job(), *events, machine.CancelAsked())

    assert (JobState.CANCELLED, ()) == (job.state, done)


def test_cancel_of_a_running_job_waits_for_its_end() -> None:
    job, done = told(running(), machine.CancelAsked())

    assert job.state is JobState.RUNNING
    assert done == (machine.Cancel(1),)

    job, _ = told(job, machine.Reported(1, JobReport("cancelled")))
    job, done = told(job, machine.NoResult(1, JobReport("cancelled")))

    assert job.state is JobState.CANCELLED
    assert done == (machine.Release(1),)


def test_cancel_while_submitting_goes_out_with_the_answer() -> None:
    job, done = told(new_job(), machine.Freed(), machine.Due(), machine.CancelAsked())

    assert (JobState.SUBMITTING, ()) == (job.state, done)

    job, done = told(job, machine.Accepted(1, {"pid": 7}))

    assert done == (machine.Cancel(1),)


@pytest.mark.parametrize(
    "events",
    [
        (machine.Freed(), machine.Due()),
        (machine.Freed(), machine.Due(), machine.Accepted(1, {"pid": 7})),
        (machine.Freed(), machine.Due(), machine.Started(1, "a")),
        (machine.Freed(), machine.Due(), machine.Started(1, "a"), machine.Finished(1)),
    ],
)
def test_a_cancel_that_nobody_hears_ends_the_job_here(events: tuple[Event, ...]) -> None:
    unasked = machine.Unasked(1, "its machine is gone")
    still, nothing = told(told(new_job(), *events)[0], unasked)
    job, _ = told(new_job(), *events, machine.CancelAsked())
    same, _ = told(job, replace(unasked, attempt=2))
    job, done = told(job, unasked)

    assert (True, ()) == (still.state.is_active, nothing)  # nobody wants it cancelled
    assert same.state.is_active
    assert (JobState.CANCELLED, ()) == (job.state, done)
    assert job.failure is not None
    assert "its process could not be asked to end (its machine is gone)" in job.failure.message
    late = machine.Collected(1, result("succeeded"), {"model": VALUE})
    assert job == told(job, machine.Finished(1), late)[0]


def test_a_job_that_succeeded_before_its_cancel_arrived_has_succeeded() -> None:
    job, _ = told(running(), machine.CancelAsked(), machine.Finished(1))
    job, _ = told(job, machine.Collected(1, result("succeeded"), {"model": VALUE}))

    assert job.state is JobState.SUCCEEDED


def test_a_submission_answered_after_the_end_is_cleaned_up() -> None:
    job, _ = told(new_job(), machine.Freed(), machine.Due(), machine.Started(1, "a"))
    job, _ = told(
        job, machine.Finished(1), machine.Collected(1, result("succeeded"), {"model": VALUE})
    )
    job, done = told(job, machine.Accepted(1, {"pid": 7}))

    assert job.state is JobState.SUCCEEDED
    assert job.attempt is not None
    assert job.attempt.handle == {"pid": 7}
    assert done == (machine.Release(1),)


def test_a_starved_job_names_the_reason() -> None:
    job, _ = told(new_job(), machine.Starved("load"))

    assert (JobState.SKIPPED, "load") == (job.state, job.skipped_because)


# ── random orders ─────────────────────────────────────────────────────────────────────────────────

_REPORTS = st.sampled_from(
    [
        JobReport("queued"),
        JobReport("running"),
        JobReport("missing"),
        JobReport("cancelled"),
        JobReport("exited", 0, "normal"),
        JobReport("exited", 75, "normal"),
        JobReport("exited", -9, "signal"),
    ]
)
_RESULTS = st.sampled_from(
    [result("succeeded"), result("failed", CRASH), result("failed", WOBBLE), result("cancelled")]
)
_NUMBERS = st.integers(1, 5)


def _about(make: Callable[[int], Event]) -> st.SearchStrategy[Event]:
    return _NUMBERS.map(make)


_EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.just(machine.Freed({"inputs/images": VALUE})),
    st.just(machine.Starved("load")),
    st.just(machine.Due()),
    st.just(machine.CancelAsked()),
    _about(lambda number: machine.Accepted(number, {"n": number})),
    _about(lambda number: machine.Refused(number, WOBBLE)),
    _about(lambda number: machine.Refused(number, CRASH)),
    _about(lambda number: machine.Started(number, "a")),
    _about(lambda number: machine.Started(number, "b")),
    _about(machine.Finished),
    _about(lambda number: machine.Unasked(number, "gone")),
    st.builds(machine.Reported, _NUMBERS, _REPORTS),
    st.builds(machine.NoResult, _NUMBERS, _REPORTS),
    st.builds(
        lambda number, found: machine.Collected(
            number, found, {"model": VALUE} if found.status == "succeeded" else {}
        ),
        _NUMBERS,
        _RESULTS,
    ),
)


def check_invariants(before: Job, after: Job, event: Event) -> None:
    if before.state.is_final:
        assert after.state is before.state, "a final state is left"
        assert after.outputs == before.outputs
    assert len(after.attempts) - len(before.attempts) in (0, 1)
    assert [one.number for one in after.attempts] == list(range(1, len(after.attempts) + 1))
    for one in after.attempts[:-1]:
        assert one.ended_at is not None, "two attempts are under way"
    if after.state.is_active:
        assert after.attempt is not None
        assert after.attempt.ended_at is None
    if after.state.is_final and after.attempt is not None:
        assert after.attempt.ended_at is not None
    if after.state is JobState.SUCCEEDED:
        assert after.outputs == {"model": VALUE}
    else:
        assert not after.outputs
    if after.state is JobState.FAILED:
        assert after.failure is not None
    counted = sum(one.counts and one.ended_at is not None for one in after.attempts)
    assert counted <= POLICY.retries + 1
    if before.attempt is not None and before.attempt.runner is not None:
        same = after.attempts[before.attempt.number - 1]
        assert same.runner == before.attempt.runner, "another runner took over an attempt"


@settings(max_examples=600, deadline=None)
@given(st.lists(st.tuples(_EVENTS, st.floats(0, 100)), max_size=60))
def test_any_order_of_events_keeps_the_invariants(steps: list[tuple[Event, float]]) -> None:
    job = new_job()
    now_s = epoch_s(NOW)
    submitted: list[int] = []
    for event, pause_s in steps:
        now_s += pause_s
        before = job
        job, instructions = step(job, event, now=timestamp(now_s), policy=POLICY)
        check_invariants(before, job, event)
        for one in instructions:
            if isinstance(one, machine.Submit):
                submitted.append(one.attempt)

    assert submitted == list(range(1, len(job.attempts) + 1)), "an attempt is submitted once"


@settings(max_examples=200, deadline=None)
@given(st.lists(_EVENTS, max_size=40))
def test_a_repeated_event_changes_nothing_more(events: list[Event]) -> None:
    """Hints may come twice. Only `Due` may not be repeated: it is the driver's own decision."""
    job = new_job()
    for event in events:
        job, _ = told(job, event)
        if isinstance(event, machine.Due):
            continue
        again, _ = told(job, event)
        assert replace(again, attempts=()) == replace(job, attempts=())
