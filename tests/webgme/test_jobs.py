from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepforge.compute.port import JobReport, Resources
from deepforge.errors import Conflict, InvalidRequest
from deepforge.webgme import jobs
from deepforge.webgme.jobs import Job

NOW = "2026-11-23T04:05:06.000007Z"
WAITING = Job(owner="ada", hash="h", created_at=NOW, secret="s", key="k", files={"job.json": "x"})
RUNNING = jobs.handed_out(WAITING, "w", ours=True, now=NOW)
FOREIGN = jobs.new_job("ada", "f", {"labels": ["gpu"]}, now=NOW, secret="s")


def test_a_waiting_job_goes_to_one_worker_only() -> None:
    assert (RUNNING.status, RUNNING.worker) == ("RUNNING", "w")
    with pytest.raises(Conflict):
        jobs.handed_out(RUNNING, "other", ours=True, now=NOW)


@pytest.mark.parametrize(
    ("update", "report"),
    [
        ({"status": "SUCCESS"}, JobReport("exited", 0, "normal")),
        ({"status": "CANCELED"}, JobReport("cancelled")),
        ({"status": "FAILED_TO_EXECUTE"}, JobReport("exited", 1, "normal")),
        ({"status": "FAILED_TO_EXECUTE", "exitCode": 3}, JobReport("exited", 3, "normal")),
        ({"status": "FAILED_TO_EXECUTE", "exitCode": -9}, JobReport("exited", -9, "signal")),
        (
            {
                "status": "FAILED_TO_EXECUTE",
                "exitCode": -9,
                "deepforge": {"reason": "walltime", "message": "too long"},
            },
            JobReport("exited", -9, "walltime", "too long"),
        ),
        (
            {"status": "FAILED_UNZIP"},
            JobReport("exited", None, "node_failure", "the worker reports FAILED_UNZIP"),
        ),
        (
            {"status": "CREATED"},
            JobReport("exited", None, "node_failure", "worker w gave it back"),
        ),
        ({"startTime": "2020-01-01T00:00:00.000Z"}, JobReport("running")),
    ],
)
def test_what_a_worker_says_becomes_a_report(update: dict[str, object], report: JobReport) -> None:
    assert report == jobs.report(jobs.updated(RUNNING, update))


def test_an_attempt_that_is_over_keeps_no_files() -> None:
    over = [
        jobs.updated(RUNNING, {"status": "SUCCESS"}),
        jobs.lost(RUNNING, "gone"),
        jobs.cancelled(WAITING),
    ]

    assert [{}, {}, {}] == [job.files for job in over]


@pytest.mark.parametrize(
    "job",
    [
        WAITING,
        jobs.lost(RUNNING, "gone"),
        jobs.updated(RUNNING, {"status": "SUCCESS"}),
        replace(RUNNING, worker="other"),
    ],
)
def test_only_the_worker_that_has_an_attempt_may_end_it(job: Job) -> None:
    with pytest.raises(Conflict):
        jobs.updated(job, {"worker": "w", "status": "FAILED_TO_EXECUTE"})


def test_a_worker_cannot_say_that_it_lost_its_job() -> None:
    with pytest.raises(InvalidRequest):
        jobs.updated(RUNNING, {"status": "LOST"})


def test_a_lost_attempt_stays_lost_and_a_foreign_job_waits_again() -> None:
    foreign = jobs.handed_out(FOREIGN, "w", ours=False, now=NOW)

    assert JobReport("exited", None, "node_failure", "gone") == jobs.report(
        jobs.lost(RUNNING, "gone")
    )
    again = jobs.lost(foreign, "gone")
    assert ("CREATED", None) == (again.status, again.worker)
    assert jobs.lost(WAITING, "gone") == WAITING


def test_a_foreign_job_takes_any_status_after_any_other() -> None:
    """As on the original server, whose clients count on it."""
    done = jobs.updated(FOREIGN, {"status": "SUCCESS", "resultHashes": {"a": "b"}})
    again = jobs.updated(done, {"status": "CANCELED", "resultHashes": [], "worker": None})

    assert ("CANCELED", {"a": "b"}) == (again.status, again.result_hashes)
    assert jobs.created_again(done, FOREIGN) == done
    assert jobs.created_again(again, FOREIGN) == FOREIGN


def test_an_update_ends_what_was_asked_of_a_foreign_job() -> None:
    asked = jobs.cancelled(jobs.handed_out(FOREIGN, "w", ours=False, now=NOW))

    assert jobs.info(asked)["cancelRequested"] is True
    assert "cancelRequested" not in jobs.info(jobs.updated(asked, {"status": "RUNNING"}))


def test_cancel_ends_what_waits_and_asks_what_runs() -> None:
    assert JobReport("cancelled") == jobs.report(jobs.cancelled(WAITING))
    asked = jobs.cancelled(RUNNING)
    assert (asked.cancel, jobs.report(asked)) == (True, JobReport("running"))
    over = jobs.updated(asked, {"status": "SUCCESS"})
    assert jobs.cancelled(over) == over


def test_a_job_past_its_time_limit_is_asked_to_end_and_says_why() -> None:
    limited = replace(RUNNING, resources=Resources(walltime_s=10), ours=False)
    began_s = 1795406706.0

    assert not jobs.is_overdue(limited, began_s + 9)
    assert jobs.is_overdue(limited, began_s + 11)
    ended = jobs.updated(jobs.overdue(limited), {"status": "CANCELED"})
    assert "walltime" == jobs.report(ended).reason
    assert not jobs.is_overdue(ended, began_s + 99)
    assert jobs.overdue(ended) == ended


def test_a_job_survives_its_document() -> None:
    body = json.loads(json.dumps(jobs.body_of(RUNNING)))

    assert RUNNING == jobs.job_of(body)
    assert "ada w" == body["assigned"]
    assert jobs.body_of(WAITING)["assigned"] is None


def test_info_has_every_key_of_the_protocol() -> None:
    shown = jobs.info(FOREIGN, secret=True)

    assert {
        "hash": "f",
        "resultHashes": [],
        "resultSuperSet": None,
        "userId": ["ada"],
        "status": "CREATED",
        "createTime": "2026-11-23T04:05:06.000Z",
        "startTime": None,
        "finishTime": None,
        "worker": None,
        "labels": ["gpu"],
        "outputNumber": None,
        "secret": "s",
    } == shown
    assert "secret" not in jobs.info(FOREIGN)


@pytest.mark.parametrize(
    "update",
    [
        {"status": 7},
        {"status": "x" * 300},
        {"worker": "a\0b"},
        {"labels": "gpu"},
        {"labels": [1]},
        {"outputNumber": True},
        {"resultHashes": 3},
    ],
)
def test_an_update_of_the_wrong_shape_is_refused(update: dict[str, object]) -> None:
    for job in (RUNNING, FOREIGN):
        with pytest.raises(InvalidRequest):
            jobs.updated(job, update)


@given(st.dictionaries(st.text(min_size=1), st.binary()))
def test_files_come_back_as_they_were(files: dict[str, bytes]) -> None:
    kept = json.loads(json.dumps(jobs.kept_files(files)))

    assert files == {name: jobs.file_bytes(one) for name, one in kept.items()}


def test_the_runner_is_started_by_an_interpreter_the_original_worker_finds() -> None:
    config = json.loads(jobs.config(("{python}", "runner.pyz", "job.json"), "k"))

    assert ("python3", ["runner.pyz", "job.json"]) == (config["cmd"], config["args"])
    assert isinstance(config["resultArtifacts"], list)
