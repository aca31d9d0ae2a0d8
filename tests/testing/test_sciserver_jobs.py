"""The jobs of the stand-in of SciServer: they run, and go wrong, as they would there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from deepforge.testing.sciserver import SciServer, Status, running
from deepforge.testing.sciserver.container import can_isolate

JOBS = "/racm/jobm/rest"


def test_a_job_tells_its_folder_only_when_it_runs(site: SciServer, http: httpx.Client) -> None:
    site.jobs.is_held = True
    job = _submit(http, "true")
    assert "resultsFolderURI" not in job

    site.jobs.is_held = False
    ended = _ended(http, job)

    assert Status.SUCCESS == ended["status"]
    assert ended["resultsFolderURI"].startswith("/home/idies/workspace/Temporary/alice/jobs/")


def test_only_one_job_of_a_user_runs_in_a_domain(site: SciServer, http: httpx.Client) -> None:
    first, second = _submit(http, "sleep 300"), _submit(http, "true")
    _until(lambda: _status(http, first) == Status.STARTED)
    time.sleep(5 * site.jobs.tick_s)  # long enough to be taken, were it not for the first

    assert Status.PENDING == _status(http, second)
    queues = http.get(f"{JOBS}/jobs/queues").json()
    rows = [dict(zip(queues["columns"], row, strict=True)) for row in queues["rows"]]
    small = [one for one in rows if one["domainName"] == "Small Jobs Domain"]
    assert [(-1, 8), (1, 1), (2, 0)] == [(one["ranking"], one["status"]) for one in small]

    http.post(f"{JOBS}/jobs/{first['id']}/cancel")
    assert Status.SUCCESS == _ended(http, second)["status"]


def test_a_canceled_job_takes_all_it_started_along(
    site: SciServer, http: httpx.Client, tmp_path: Path
) -> None:
    beat = tmp_path / "beat"
    child = f"while true; do touch {beat}; sleep 0.02; done"
    job = _submit(http, f"setsid sh -c '{child}' & sh -c '{child}' & wait")
    _until(beat.exists)

    asked = http.post(f"{JOBS}/jobs/{job['id']}/cancel").json()
    assert Status.STARTED == asked["status"]  # not yet
    http.post(f"{JOBS}/jobs/{job['id']}/cancel")
    ended = _ended(http, job)

    assert Status.CANCELED == ended["status"]
    assert ["CANCEL"] == [one["label"] for one in ended["messages"] if one["label"] != "STATUS"]
    if can_isolate():
        beat.unlink()
        time.sleep(0.1)
        assert not beat.exists()


def test_a_waiting_job_is_canceled_at_once(site: SciServer, http: httpx.Client) -> None:
    site.jobs.is_held = True
    job = _submit(http, "true")

    assert Status.CANCELED == http.post(f"{JOBS}/jobs/{job['id']}/cancel").json()["status"]


def test_a_job_that_runs_too_long_is_ended(site: SciServer, http: httpx.Client) -> None:
    site.state.domains[0].timeout_s = 0.1
    ended = _ended(http, _submit(http, "sleep 300"))

    assert Status.ERROR == ended["status"]
    assert "TIMEOUT" in [one["label"] for one in ended["messages"]]
    assert 0.1 == ended["timeout"]


def test_rights_that_are_missing_are_dropped_silently(site: SciServer, http: httpx.Client) -> None:
    bob = site.users.add_user("bob")
    shared = site.state.add_volume("Storage", bob, "shared")
    shared.shares["alice"] = ("read",)
    (shared.folder / "given").write_text("given\n")
    hidden = site.state.add_volume("Storage", bob, "hidden")
    at = "/home/idies/workspace/Storage/bob/shared"

    job = _submit(
        http,
        f"cat {at}/given; touch {at}/new || echo refused",
        userVolumes=[
            {"userVolumeId": shared.id, "needsWriteAccess": True},
            {"userVolumeId": hidden.id, "needsWriteAccess": False},
        ],
    )

    assert [(shared.id, False)] == [
        (one["userVolumeId"], one["needsWriteAccess"]) for one in job["userVolumes"]
    ]
    ended = _ended(http, job)
    if can_isolate():
        assert "given\nrefused\n" == _output(http, ended)
        assert not (shared.folder / "new").exists()


def test_a_job_sees_the_volumes_it_asked_for(site: SciServer, http: httpx.Client) -> None:
    http.put("/fileservice/api/volume/Storage/alice/mine")
    mine = site.state.volume("Storage", "alice", "mine")
    assert mine is not None
    workspace = "/home/idies/workspace"

    ended = _ended(
        http,
        _submit(
            http,
            f"echo made > {workspace}/Storage/alice/mine/made; ls -d {workspace}/sdss >/dev/null; "
            f"ls {workspace}/Storage/alice; test -s /home/idies/keystone.token || "
            "test -s $HOME/keystone.token && echo token",
            userVolumes=[{"userVolumeId": mine.id, "needsWriteAccess": True}],
            volumeContainers=[{"name": "sdss", "writable": False}],
        ),
    )

    assert "mine\ntoken\n" == _output(http, ended)
    assert b"made\n" == http.get("/fileservice/api/file/Storage/alice/mine/made").content


def test_the_token_in_a_job_is_good(site: SciServer, http: httpx.Client) -> None:
    ended = _ended(http, _submit(http, "cat $HOME/keystone.token"))

    token = _output(http, ended)

    assert 200 == httpx.get(f"{site.url}/login-portal/api/validate/{token}").status_code


@pytest.mark.parametrize(
    ("kind", "status", "label"),
    [
        ("job_error", Status.ERROR, "ERROR"),
        ("job_timeout", Status.ERROR, "TIMEOUT"),
        ("job_canceled", Status.CANCELED, "CANCEL"),
    ],
)
def test_a_job_goes_wrong_as_told(
    site: SciServer, http: httpx.Client, kind: Any, status: Status, label: str
) -> None:
    site.faults.add(kind, text="Image could not be pulled")
    ended, after = _ended(http, _submit(http, "sleep 300")), _ended(http, _submit(http, "true"))

    assert status == ended["status"]
    assert label in [one["label"] for one in ended["messages"]]
    if kind == "job_error":
        assert "Image could not be pulled" == ended["messages"][-1]["content"]
    assert Status.SUCCESS == after["status"]


def test_a_job_never_leaves_the_queue(site: SciServer, http: httpx.Client) -> None:
    site.faults.add("job_stuck")
    stuck, other = _submit(http, "true"), _submit(http, "true")

    _ended(http, other)

    assert Status.PENDING == _status(http, stuck)


def test_a_results_folder_vanishes(site: SciServer, http: httpx.Client) -> None:
    site.faults.add("job_vanish")
    ended = _ended(http, _submit(http, "echo out"))

    assert Status.SUCCESS == ended["status"]
    assert "Etag" not in http.head(_file(ended, "stdout.txt")).headers


def test_odd_statuses_are_shown(site: SciServer, http: httpx.Client) -> None:
    site.faults.add("job_status", status=48)
    site.faults.add("job_status", status=0)
    first = _submit(http, "true")

    assert 48 == _ended(http, first)["status"]
    second = _submit(http, "sleep 0.2")
    assert 0 == second["status"]
    assert Status.SUCCESS == _ended(http, second)["status"]


def test_an_image_disappears(site: SciServer, http: httpx.Client) -> None:
    domain = _domain(http)
    site.state.domains[0].images.clear()

    answer = http.post(f"{JOBS}/jobs/docker", json=_asked(domain, "true"))

    assert 500 == answer.status_code
    assert "No valid Docker image" in answer.json()["error"]
    assert [] == _domain(http)["images"]


def test_no_job_outlives_the_stand_in(tmp_path: Path) -> None:
    number = tmp_path / "number"
    with running(tmp_path / "world", tick_s=0.02) as site:
        site.users.add_user("alice")
        headers = {"X-Auth-Token": site.users.add_token("alice")}
        with httpx.Client(base_url=site.url, headers=headers) as http:
            _submit(http, f"touch {number}; exec sleep 300")
            _until(number.exists)
        with site.state.lock:  # its start is not over yet, it may be
            (job,) = site.jobs.by_id.values()
            assert job.container is not None
            process = job.container.process_id
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert [] == list((tmp_path / "world" / "containers").iterdir())


def _submit(http: httpx.Client, command: str, **asked: Any) -> dict[str, Any]:
    answer = http.post(f"{JOBS}/jobs/docker", json={**_asked(_domain(http), command), **asked})
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    return job


def _domain(http: httpx.Client) -> dict[str, Any]:
    domains = http.get(f"{JOBS}/computedomains?batch=true").json()
    domain: dict[str, Any] = domains[0]
    return domain


def _asked(domain: dict[str, Any], command: str) -> dict[str, Any]:
    return {
        "submitterDID": "test",
        "dockerComputeEndpoint": domain["apiEndpoint"],
        "dockerImageName": "SciServer Essentials 4.0",
        "command": command,
        "volumeContainers": [],
        "userVolumes": [],
    }


def _status(http: httpx.Client, job: dict[str, Any]) -> int:
    return int(http.get(f"{JOBS}/jobs/{job['id']}").json()["status"])


def _ended(http: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    _until(lambda: _status(http, job) >= Status.SUCCESS)
    ended: dict[str, Any] = http.get(f"{JOBS}/jobs/{job['id']}").json()
    return ended


def _file(job: dict[str, Any], name: str) -> str:
    path = job["resultsFolderURI"].removeprefix("/home/idies/workspace/")
    return f"/fileservice/api/file/{path}{name}"


def _output(http: httpx.Client, job: dict[str, Any]) -> str:
    return http.get(_file(job, "stdout.txt")).text


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
