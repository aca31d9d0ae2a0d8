"""A pipeline while SciServer misbehaves: it goes on, or ends with words that say what to do.

Nothing hangs, no job is submitted twice, nothing half-done is left behind, and no log tells a secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from journeys.parts import wait_until
from journeys.quick_deepforge import QUIET_S
from journeys.sciserver_lab import USER, Lab, Ran, lab

__all__ = ["lab"]

INPUT = r"/api/file/.*/executions/.*/data$"
"""The object that the second job reads, where our server reads it for the job."""

Fault = dict[str, Any]


@pytest.fixture(autouse=True)
def _tidy(lab: Lab) -> Iterator[None]:
    yield
    lab.site.faults.clear()
    lab.nothing_is_left()


def all_well(lab: Lab, ran: Ran) -> None:
    assert ran.states == {"data": "succeeded", "size": "succeeded"}
    assert ran.view["paused_by"] is None
    assert not lab.site.faults.waiting, "it did not meet the fault"


def failure(ran: Ran, job: str = "data") -> Mapping[str, Any]:
    """The failure of a job, which was tried once: asking again would be in vain."""
    assert ran.states[job] == "failed"
    assert ran.attempts[job] == 1
    (found,) = [one["failure"] for one in ran.view["jobs"] if one["name"] == job]
    assert isinstance(found, dict)
    return found


# -- the files ----------------------------------------------------------------------------------

FILES_PASS: dict[str, Fault] = {
    "a proxy that is away": {"kind": "status", "status": 502, "times": 2},
    "a proxy that waits in vain": {"kind": "status", "status": 504, "times": 2, "skip": 9},
    "a service that restarts": {"kind": "status", "status": 503, "times": 2, "skip": 3},
    "too many requests": {"kind": "status", "status": 429, "times": 2},
    "an internal error": {"kind": "error", "times": 2},
    "an upload that is not begun": {"kind": "reset_before", "method": "PUT"},
    "an upload that breaks off": {"kind": "reset_before", "method": "PUT", "after_bytes": 50},
    "a stored object, not told": {"kind": "reset_after", "method": "PUT", "path": "/api/file/"},
    "an object that is not moved": {"kind": "reset_before", "method": "PUT", "path": "/api/data/"},
    "a moved object, not told": {"kind": "reset_after", "method": "PUT", "path": "/api/data/"},
    "a short download": {"kind": "truncate", "method": "GET", "path": INPUT, "after_bytes": 20},
    "a download that stops": {"kind": "hang", "method": "GET", "path": INPUT, "after_bytes": 20},
    "a changed byte": {"kind": "corrupt", "method": "GET", "path": INPUT, "after_bytes": 20},
    "a byte that is stored as another": {"kind": "corrupt", "method": "PUT", "after_bytes": 20},
    "slow answers": {"kind": "slow", "after_s": 0.2, "times": 5},
    "an answer that comes too late": {"kind": "slow", "method": "PUT", "after_s": QUIET_S + 0.5},
    "a slow download": {
        "kind": "trickle", "method": "GET", "path": INPUT, "after_bytes": 1200, "after_s": 0.2,
    },
    "a refused token": {"kind": "unauthorized", "method": "PUT"},
}  # fmt: skip


@pytest.mark.parametrize("fault", FILES_PASS.values(), ids=FILES_PASS.keys())
def test_data_in_a_volume_survive(lab: Lab, fault: Fault) -> None:
    lab.site.faults.add(**{"path": "/fileservice/", **fault})

    ran = lab.run("server")

    all_well(lab, ran)


FILES_END: dict[str, tuple[Fault, str, str]] = {
    "no right to write": (
        {"kind": "error", "text": "Missing required permissions on volume", "times": 9},
        "data", "Missing required permissions on volume",
    ),
    "a volume that went away": (
        {"kind": "error", "method": "PUT", "text": "Volume does not exist"},
        "data", "does not share it with you",
    ),
    "a full disk": ({"kind": "quota", "method": "PUT", "after_bytes": 50}, "data", "Temporary"),
    "too large for the proxy": (
        {"kind": "status", "status": 413, "method": "PUT", "path": "/api/file/"},
        "data", "too large for this site",
    ),
    "a login page for an upload": (
        {"kind": "login_page", "method": "PUT"}, "data", "is there a login page or a proxy"
    ),
    "a login page for a download": (
        {"kind": "login_page", "method": "GET", "path": INPUT},
        "size", "is there a login page or a proxy",
    ),
    "a file that is gone": (
        {"kind": "missing", "method": "GET", "path": INPUT, "times": 9}, "size", "there is no object"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("fault", "job", "cure"), FILES_END.values(), ids=FILES_END.keys())
def test_what_files_refuse_is_told_and_goes_on_when_mended(
    lab: Lab, fault: Fault, job: str, cure: str
) -> None:
    lab.site.faults.add(**{"path": "/fileservice/", **fault})

    ran = lab.run("server", code=1)

    told = failure(ran, job)
    assert cure in f"{told['message']} {told['hint']}"
    assert cure in ran.err
    lab.site.faults.clear()
    again = lab.server.client("executions", "rerun", ran.execution, "--json").json
    assert again["status"] == "succeeded"


# -- the jobs -----------------------------------------------------------------------------------

CALLS_PASS: dict[str, Fault] = {
    "a proxy that is away": {"kind": "status", "status": 502},
    "too many requests": {"kind": "status", "status": 429},
    "an internal error": {"kind": "error"},
    "connections that break": {"kind": "reset_before"},
    "answers that are lost": {"kind": "reset_after"},
    "half an answer": {"kind": "truncate", "after_bytes": 1},
    "an answer that stops": {"kind": "hang", "after_bytes": 1},
    "slow answers": {"kind": "slow", "after_s": 0.3},
}


@pytest.mark.parametrize("fault", CALLS_PASS.values(), ids=CALLS_PASS.keys())
def test_a_job_is_submitted_once_and_not_lost(lab: Lab, fault: Fault) -> None:
    """Each kind of call meets the fault once."""
    for method, path in (
        ("GET", "/dockerjobs$"),
        ("POST", "/jobs/docker$"),
        ("GET", r"/jobs/\d+$"),
        ("GET", "/exit.json$"),
        ("PUT", r"/api/file/.*\.pyz$"),
    ):
        lab.site.faults.add(**fault, method=method, path=path)

    ran = lab.run("sci")

    all_well(lab, ran)
    assert ran.attempts == {"data": 1, "size": 1}
    assert lab.labels(ran.execution) == [
        f"deepforge/{ran.execution}-{job}-1/" for job in ("data", "size")
    ]


def test_a_login_page_in_place_of_jobs_is_waited_for(lab: Lab) -> None:
    for method, path in (("POST", "/jobs/docker$"), ("GET", r"/jobs/\d+$")):
        lab.site.faults.add("login_page", method=method, path=path)

    ran = lab.run("sci")

    all_well(lab, ran)
    assert len(lab.labels(ran.execution)) == 2


def test_a_login_page_that_stays_is_told(lab: Lab) -> None:
    lab.site.faults.add("login_page", path="/racm/", times=1000)

    told = failure(lab.run("sci", code=1))

    assert "web page in place of data" in told["message"]
    assert "login page or a proxy" in told["hint"]


JOBS_PASS: dict[str, tuple[Fault, int]] = {
    "a node that fails": ({"kind": "job_error", "text": "No node could take it"}, 2),
    "the service's own folder is gone": ({"kind": "job_vanish"}, 1),
    "finished and successful": ({"kind": "job_status", "status": 48}, 1),
    "no status at all": ({"kind": "job_status", "status": 0}, 1),
}


@pytest.mark.parametrize(("fault", "attempts"), JOBS_PASS.values(), ids=JOBS_PASS.keys())
def test_an_odd_job_comes_to_its_end(lab: Lab, fault: Fault, attempts: int) -> None:
    lab.site.faults.add(**fault)

    ran = lab.run("sci")

    all_well(lab, ran)
    assert ran.attempts == {"data": attempts, "size": 1}
    assert len(lab.labels(ran.execution)) == attempts + 1


@pytest.mark.parametrize("skew_s", [7200.0, -7200.0])
def test_clocks_may_differ(lab: Lab, skew_s: float) -> None:
    lab.site.state.clock_skew_s = skew_s
    try:
        ran = lab.run("sci")
    finally:
        lab.site.state.clock_skew_s = 0.0

    all_well(lab, ran)
    assert ran.attempts == {"data": 1, "size": 1}


JOBS_END: dict[str, tuple[Fault, str]] = {
    "the time limit of the site": ({"kind": "job_timeout"}, "do less in one operation"),
    "an administrator": ({"kind": "job_canceled"}, "Canceled by an administrator"),
}


@pytest.mark.parametrize(("fault", "cure"), JOBS_END.values(), ids=JOBS_END.keys())
def test_a_job_that_the_site_ends_is_not_begun_again(lab: Lab, fault: Fault, cure: str) -> None:
    lab.site.faults.add(**fault)

    ran = lab.run("sci", code=1, seconds=30)

    told = failure(ran)
    assert cure in f"{told['message']} {told['hint']}"
    assert len(lab.labels(ran.execution)) == 1


def test_nodes_that_fail_each_time_are_told(lab: Lab) -> None:
    lab.site.faults.add("job_error", text="No node could take it", times=9)

    ran = lab.run("sci", code=1)

    (told,) = [one["failure"] for one in ran.view["jobs"] if one["name"] == "data"]
    assert "No node could take it" in told["message"]
    assert ran.attempts["data"] == len(lab.labels(ran.execution)) == 4


def test_a_job_that_never_starts_can_be_cancelled(lab: Lab) -> None:
    lab.site.faults.add("job_stuck")
    execution = lab.begin("sci")
    place = "number 1 in SciServer's queue"
    wait_until(lambda: place in [job["message"] for job in lab.view(execution)["jobs"]])
    assert f"data: {place}" in lab.server.client("executions", "show", execution).out

    lab.server.client("executions", "cancel", execution)

    ran = lab.ended(execution)
    assert ran.view["status"] == "cancelled"
    assert len(lab.labels(ran.execution)) == 1
    assert not any(one.is_open for one in lab.site.jobs.by_id.values())


def test_an_image_that_disappears_is_told(lab: Lab) -> None:
    """Between the two jobs of a pipeline, and after it was offered."""
    domain = lab.site.state.domains[0]
    images = dict(domain.images)
    lab.add("compute", "picky", "--image", next(iter(images)))
    execution = lab.begin("picky", seconds=0.5)
    wait_until(lambda: lab.labels(execution))
    domain.images.clear()
    domain.images["Another one"] = None
    try:
        ran = lab.ended(execution)
    finally:
        domain.images.clear()
        domain.images.update(images)

    told = failure(ran, "size")
    assert "image" in told["message"]
    assert "Another one" in told["hint"]
    assert len(lab.labels(execution)) == 1


def test_a_volume_that_is_not_shared_any_more_is_told(lab: Lab) -> None:
    bob = lab.site.users.add_user("bob")
    volume = lab.site.state.add_volume("Storage", bob, "shared")
    volume.shares[USER] = ("read", "write")
    lab.add("storage", "bobs", "--volume", "bob/shared")
    execution = lab.begin("sci", seconds=1, storage="bobs")
    wait_until(lambda: {job["status"] for job in lab.view(execution)["jobs"]} >= {"running"})
    del volume.shares[USER]

    ran = lab.ended(execution)

    (told,) = [one["failure"] for one in ran.view["jobs"] if one["name"] == "data"]
    assert "Volume does not exist" in told["message"]
    assert len(lab.labels(execution)) == 1
