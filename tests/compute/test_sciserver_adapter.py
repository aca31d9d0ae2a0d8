"""SciServer Compute: what it asks of the service, and what it makes of odd answers.

Jobs run in the stand-in, for real.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compute.sciserver_rig import (
    PASSWORD,
    USER,
    Open,
    asked,
    folders_of_jobs,
    opening,
    over,
    settled,
    started,
    until,
    wait_over,
)
from deepforge.compute.client import ComputeClient
from deepforge.compute.port import JobReport, NeededPath
from deepforge.errors import (
    ConfigError,
    InvalidRequest,
    OutcomeUnknown,
    Unavailable,
)
from deepforge.testing.compute_tools import log_of, python, state_of
from deepforge.testing.sciserver import SciServer, running

DOCKER = "/racm/jobm/rest/jobs/docker"
QUEUES = "/racm/jobm/rest/jobs/queues"
LISTS = "/racm/jobm/rest/dockerjobs"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SciServer]:
    with running(tmp_path / "site", tick_s=0.01) as site:
        site.users.add_user(USER, PASSWORD)
        yield site


@pytest.fixture
def open_one(site: SciServer, tmp_path: Path) -> Open:
    return opening(site, tmp_path)


# -- the original's mistakes, one by one ---------------------------------------------------------


async def test_one_list_serves_all_jobs_and_is_asked_for_rarely(
    site: SciServer, open_one: Open
) -> None:
    site.jobs.is_held = True
    async with open_one() as one, open_one(domain="Large Jobs Domain") as other:
        one.list_every_s = other.list_every_s = 60.0  # type: ignore[misc]
        handles = [await one.submit(python("")) for _ in range(5)]
        handles += [await other.submit(python(""))]
        before = asked(site, "GET", LISTS)
        for _ in range(10):
            reports = await one.poll(handles[:5]) + await other.poll(handles[5:])

    assert [report.state for report in reports] == ["queued"] * 6
    await until(lambda: asked(site, "GET", QUEUES) > 0)
    assert asked(site, "GET", LISTS) - before == 1
    assert asked(site, "GET", QUEUES) == 1


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (48, 0, JobReport("exited", 0, "normal")),
        (80, 3, JobReport("exited", 3, "normal")),
        (144, 0, JobReport("cancelled", reason="normal")),
    ],
)
async def test_combined_status_bits_are_read_as_bits(
    site: SciServer, open_one: Open, status: int, code: int, expected: JobReport
) -> None:
    site.faults.add("job_status", status=status)
    async with open_one() as adapter:
        report = await over(adapter, await adapter.submit(python(f"raise SystemExit({code})")))

    assert replace(report, message=None) == expected


async def test_an_unknown_status_is_not_an_end(site: SciServer, open_one: Open) -> None:
    site.faults.add("job_status", status=0)
    async with open_one() as adapter:
        handle = await adapter.submit(python("import time; time.sleep(0.5)"))
        seen = {(await state_of(adapter, handle)).state for _ in range(5)}
        report = await over(adapter, handle)

    assert seen <= {"queued", "running"}
    assert report.exit_code == 0


async def test_the_last_words_and_the_errors_are_in_the_log(open_one: Open) -> None:
    code = "import sys; print('words'); sys.exit('the reason')"
    async with open_one() as adapter:
        handle = await adapter.submit(python(code))
        await over(adapter, handle)

        assert await log_of(adapter, handle) == b"words\nthe reason\n"


async def test_nothing_is_read_from_a_folder_that_is_not_final(
    site: SciServer, open_one: Open
) -> None:
    site.jobs.is_held = True
    async with open_one() as adapter:
        handle = await adapter.submit(python("print('now')"))

        assert await log_of(adapter, handle) == b""
        assert (await state_of(adapter, handle)).state == "queued"

        site.jobs.is_held = False
        await over(adapter, handle)
        assert await log_of(adapter, handle) == b"now\n"


async def test_trouble_while_polling_ends_nothing(site: SciServer, open_one: Open) -> None:
    async with open_one() as adapter:
        handle = await adapter.submit(python("import time; time.sleep(0.3); raise SystemExit(4)"))
        for kind in ("status", "reset_before", "login_page", "error"):
            adapter._board()._read_at_s = adapter._board()._failure = None
            site.faults.add(kind, path=LISTS)
            with pytest.raises((Unavailable, ConfigError)):
                await adapter.poll([handle])
        adapter._board()._failure = None

        assert (await over(adapter, handle)).exit_code == 4


async def test_a_service_in_trouble_is_left_alone(site: SciServer, open_one: Open) -> None:
    async with open_one() as adapter:
        handle = await adapter.submit(python(""))
        adapter.list_every_s = 60.0  # type: ignore[misc]
        adapter._board()._read_at_s = None
        site.faults.add("status", path=LISTS, times=100)
        before = asked(site, "GET", LISTS)
        for _ in range(5):
            with pytest.raises(Unavailable, match="503"):
                await adapter.poll([handle])

    await until(lambda: asked(site, "GET", LISTS) > before)
    assert asked(site, "GET", LISTS) - before == 1


async def test_the_newest_of_the_usual_images_is_taken(site: SciServer, open_one: Open) -> None:
    domain = site.state.domains[0]
    domain.images.clear()
    for name in ("Other 99", "SciServer Essentials 4.0", "SciServer Essentials 10.1"):
        domain.images[name] = None
    async with open_one() as adapter:
        handle = await adapter.submit(python(""))

    assert site.jobs.by_id[handle["id"]].image == "SciServer Essentials 10.1"


async def test_trouble_at_the_end_ends_nothing(site: SciServer, open_one: Open) -> None:
    """The record says how it ended: while it cannot be read, there is no report."""
    async with open_one() as adapter:
        handle = await adapter.submit(python("raise SystemExit(4)"))
        await asyncio.to_thread(wait_over, site)
        adapter._board()._read_at_s = None
        for path in (r"jobs/\d", "exit.json", "jsontree"):
            site.faults.add("error", path=path, text="Internal trouble")
            with pytest.raises(Unavailable):
                await adapter.poll([handle])
        site.faults.add("truncate", path="exit.json", after_bytes=4)
        with pytest.raises(Unavailable):
            await adapter.poll([handle])

        assert (await over(adapter, handle)).exit_code == 4


async def test_a_record_that_comes_late_is_waited_for(site: SciServer, open_one: Open) -> None:
    """Network file systems show files late. Meanwhile a poll asks what every poll asks."""
    async with open_one(files_come_within_s=60.0) as adapter:
        handle = await adapter.submit(python("raise SystemExit(0)"))
        await asyncio.to_thread(wait_over, site)
        adapter._board()._read_at_s = None
        site.faults.add("missing", path="exit.json", times=6)
        reports = [await state_of(adapter, handle) for _ in range(5)]

        assert {one.state for one in reports} == {"running"}
        assert "does not show yet" in (reports[0].message or "")
        assert asked(site, "GET", f"/racm/jobm/rest/jobs/{handle['id']}") == 1
        assert asked(site, "GET", "/fileservice/api/file/") == 5
        await adapter.release(handle)  # it is not over, so it stays
        assert (await state_of(adapter, handle)).exit_code == 0


async def test_a_record_that_does_not_come_is_a_failure_of_the_node(
    site: SciServer, open_one: Open
) -> None:
    site.faults.add("missing", path="exit.json", times=10_000)
    async with open_one(files_come_within_s=0.3) as adapter:
        handle = await adapter.submit(python(""))
        await asyncio.to_thread(wait_over, site)
        adapter._board()._read_at_s = None
        began_s = time.monotonic()
        assert (await state_of(adapter, handle)).state == "running"

        assert (await over(adapter, handle)).reason == "node_failure"
        assert 0.3 <= time.monotonic() - began_s < 10


async def test_a_job_that_failed_by_its_record_is_not_waited_for(
    site: SciServer, open_one: Open
) -> None:
    site.faults.add("missing", path="exit.json", times=10_000)
    async with open_one(files_come_within_s=60.0) as adapter:
        handle = await adapter.submit(python("raise SystemExit(4)"))
        await asyncio.to_thread(wait_over, site)
        adapter._board()._read_at_s = None

        assert (await state_of(adapter, handle)).reason == "node_failure"


async def test_the_record_of_a_job_is_asked_for_once(site: SciServer, open_one: Open) -> None:
    """However long its files cannot be read after its end."""
    async with open_one() as adapter:
        handles = [await adapter.submit(python("raise SystemExit(4)")) for _ in range(3)]
        await asyncio.to_thread(wait_over, site)
        adapter._board()._read_at_s = None
        site.faults.add("error", path="exit.json", text="Internal trouble", times=9)
        for _ in range(3):
            with pytest.raises(Unavailable):
                await adapter.poll(handles)
        site.faults.clear()
        for handle in handles:
            assert (await over(adapter, handle)).exit_code == 4

        ids = [handle["id"] for handle in handles]
        assert [asked(site, "GET", f"/racm/jobm/rest/jobs/{id}") for id in ids] == [1, 1, 1]


async def test_a_job_is_not_lost_for_good_when_it_is_not_found_once(
    site: SciServer, open_one: Open
) -> None:
    """`Unknown error` is what the service says of jobs it does not know, and of its own troubles."""
    async with open_one() as adapter:
        handle = await adapter.submit(python("raise SystemExit(4)"))
        await asyncio.to_thread(wait_over, site)
        adapter._board()._read_at_s = None
        site.faults.add("error", path=r"jobs/\d", text="Unknown error")
        assert (await state_of(adapter, handle)).state == "missing"

        assert (await over(adapter, handle)).exit_code == 4


async def test_a_status_that_no_list_has_is_looked_at_rarely(
    site: SciServer, open_one: Open
) -> None:
    async with open_one() as adapter:
        handle = await adapter.submit(python("import time; time.sleep(60)"))
        await started(adapter, handle)
        site.faults.clear()
        site.jobs.by_id[handle["id"]].status = 24  # started and finished, and no more than that
        await asyncio.sleep(adapter.list_every_s)
        states = []
        for _ in range(10):
            adapter._board()._read_at_s = None
            states.append((await state_of(adapter, handle)).state)

        assert states == ["running"] * 10
        assert asked(site, "GET", f"/racm/jobm/rest/jobs/{handle['id']}") == 1


async def test_messages_of_the_service_are_shown(site: SciServer, open_one: Open) -> None:
    site.faults.add("job_error", text="No space left for images")
    async with open_one() as adapter:
        report = await over(adapter, await adapter.submit(python("")))

    assert (report.state, report.reason) == ("exited", "node_failure")
    assert "No space left for images" in (report.message or "")


async def test_the_same_key_again_does_not_stumble_over_its_files(
    site: SciServer, open_one: Open
) -> None:
    request = python("print('ran')")
    site.faults.add("reset_after", method="PUT", path="/fileservice/api/file/")
    async with open_one() as adapter:
        with pytest.raises(Unavailable):
            await adapter.submit(request)
        handle = await adapter.submit(request)
        await over(adapter, handle)

        assert await log_of(adapter, handle) == b"ran\n"


async def test_only_the_volumes_that_are_needed_are_mounted(
    site: SciServer, open_one: Open
) -> None:
    alice = site.users.by_name[USER]
    bob = site.users.add_user("bob", "builder")
    site.state.add_volume("Storage", alice, "lab")
    site.state.add_volume("Storage", alice, "private")
    site.state.add_volume("Storage", bob, "shared").shares[alice.name] = ("read",)
    async with open_one(data_volumes="sdss") as adapter:
        (space,) = adapter.file_spaces
        paths = (
            NeededPath(space, "/Storage/alice/lab/results", writable=True),
            NeededPath(space, "/Storage/bob/shared"),
        )
        handle = await adapter.submit(replace(python(""), paths=paths))
        await over(adapter, handle)

    job = site.jobs.by_id[handle["id"]]
    assert {f"{one.root}/{one.name}": writes for one, writes in job.user_volumes} == {
        "Temporary/scratch": True,
        "Storage/lab": True,
        "Storage/shared": False,
    }
    assert [(one.name, writes) for one, writes in job.data_volumes] == [("sdss", False)]


async def test_what_may_not_be_mounted_is_refused_first(site: SciServer, open_one: Open) -> None:
    alice = site.users.by_name[USER]
    bob = site.users.add_user("bob", "builder")
    site.state.add_volume("Storage", bob, "shared").shares[alice.name] = ("read",)
    async with open_one() as adapter:
        (space,) = adapter.file_spaces
        for path in (
            NeededPath(space, "/Storage/bob/shared", writable=True),
            NeededPath(space, "/Storage/bob/secret"),
            NeededPath(space, "/"),
        ):
            with pytest.raises(InvalidRequest) as raised:
                await adapter.submit(replace(python(""), paths=(path,)))
            assert raised.value.part == "paths"

    assert site.jobs.by_id == {}


async def test_the_folder_of_a_job_is_gone_after_its_release(
    site: SciServer, open_one: Open
) -> None:
    alice = site.users.by_name[USER]
    async with open_one() as adapter:
        handle = await adapter.submit(python(""))
        await over(adapter, handle)
        assert len(folders_of_jobs(site)) == 1

        await adapter.release(handle)

        assert folders_of_jobs(site) == []
        assert (await state_of(adapter, handle)).state == "missing"
    async with open_one() as another:
        assert (await state_of(another, handle)).state == "missing"
    assert alice.name == USER


async def test_odd_names_of_volumes_work(site: SciServer, open_one: Open) -> None:
    name = "it's 100% #1?"
    site.state.add_volume("Storage", site.users.by_name[USER], name)
    async with open_one(job_volume=f"Storage/alice/{name}") as adapter:
        handle = await adapter.submit(python("print('here')"))
        report = await over(adapter, handle)

        assert report.exit_code == 0
        assert await log_of(adapter, handle) == b"here\n"


# -- at most once ------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["reset_before", "reset_after"])
async def test_a_lost_answer_to_a_submission_makes_no_second_job(
    site: SciServer, open_one: Open, fault: Any
) -> None:
    site.faults.add(fault, method="POST", path=DOCKER)
    request = python("print('ran')")
    async with open_one() as adapter:
        with pytest.raises(OutcomeUnknown):
            await adapter.submit(request)
    async with ComputeClient(open_one(), "sci") as client:  # after a restart
        handle = await client.submit(request)
        await over(client.adapter, handle)  # type: ignore[arg-type]

        assert await log_of(client.adapter, handle) == b"ran\n"
    assert len(site.jobs.by_id) == 1


async def test_two_jobs_for_one_key_are_both_cancelled(site: SciServer, open_one: Open) -> None:
    async with open_one() as adapter:
        handle = await adapter.submit(python("import time; time.sleep(60)"))
        first = site.jobs.by_id[handle["id"]]
        late = replace(first, id=first.id + 1000, messages=[], container=None)
        site.jobs.add(late)
        await asyncio.sleep(adapter.list_every_s)
        await adapter.poll([handle])
        await adapter.cancel([handle])

        assert (await over(adapter, handle)).state == "cancelled"
    await until(lambda: not late.is_open)
    assert (first.status, late.status) == (128, 128)


async def test_of_two_jobs_for_one_key_only_one_runs(site: SciServer, open_one: Open) -> None:
    """A submission that took effect long after its answer was lost."""
    for domain in site.state.domains:
        domain.jobs_per_user = 2
    code = "import time; print('ran', flush=True); time.sleep(0.5); raise SystemExit(6)"
    async with open_one() as adapter:
        handle = await adapter.submit(python(code))
        first = site.jobs.by_id[handle["id"]]
        late = replace(first, id=first.id + 1000, messages=[], container=None)
        site.jobs.add(late)
        report = await over(adapter, handle)
        await until(lambda: not late.is_open)

        assert report.exit_code == 6
        assert await log_of(adapter, handle) == b"ran\n"


@pytest.mark.parametrize(
    "kind",
    ["status", "error", "reset_before", "reset_after", "truncate", "corrupt", "slow", "trickle"],
)
async def test_no_fault_loses_a_job_or_makes_two(
    site: SciServer, open_one: Open, kind: Any
) -> None:
    """Now and then an answer is wrong, all the way from the submission to the release."""
    chance = random.Random(kind)

    async def at_once(pause_s: float) -> None:
        await asyncio.sleep(0.01)

    path = "/fileservice" if kind == "corrupt" else "/(racm|fileservice)/"
    about: Any = {"path": path, "after_bytes": 300 if kind == "trickle" else 1, "after_s": 0.01}
    async with ComputeClient(open_one(), "sci", tries=50, sleep=at_once) as client:
        for _ in range(8):
            site.faults.add(kind, skip=chance.randrange(4), text="trouble", **about)
        handle = await client.submit(python("print('ran'); raise SystemExit(5)"))
        end = time.monotonic() + 20
        while (report := (await client.poll([handle]))[0]).state in ("queued", "running"):
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
        site.faults.clear()
        printed = await log_of(client.adapter, handle)
        await client.release(handle)

    assert (report.exit_code, printed) == (5, b"ran\n")
    assert len(site.jobs.by_id) == 1


# -- costs -------------------------------------------------------------------------------------


async def test_requests_for_one_job(site: SciServer, open_one: Open) -> None:
    """The cost of a job, apart from lists while it runs."""
    async with open_one() as adapter:
        await over(adapter, await adapter.submit(python("")))  # what is learned once
        await settled(site, 0)
        before = len(site.requests)
        handle = await adapter.submit(python(""))
        await settled(site, before + 4)  # the label, the archive, its size, the job
        await asyncio.to_thread(wait_over, site)
        await over(adapter, handle)
        await settled(site, before + 8)  # the list, the job, its folder, its record
        await adapter.release(handle)
        await settled(site, before + 9)
