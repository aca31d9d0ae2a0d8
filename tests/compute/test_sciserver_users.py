"""SciServer Compute as its users see it: what is told of a job, what is refused, what is a setting.

Jobs run in the stand-in, for real.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from compute.sciserver_rig import (
    PASSWORD,
    USER,
    Open,
    asked,
    folders_of_jobs,
    opening,
    over,
    started,
)
from deepforge.compute.port import JobReport, NeededPath, Resources
from deepforge.compute.sciserver.package import pack
from deepforge.errors import (
    AuthError,
    ConfigError,
    Unavailable,
)
from deepforge.settings import Secret
from deepforge.testing.compute_tools import log_of, python, state_of
from deepforge.testing.sciserver import SciServer, running

QUEUES = "/racm/jobm/rest/jobs/queues"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SciServer]:
    with running(tmp_path / "site", tick_s=0.01) as site:
        site.users.add_user(USER, PASSWORD)
        yield site


@pytest.fixture
def open_one(site: SciServer, tmp_path: Path) -> Open:
    return opening(site, tmp_path)


# -- what users see ----------------------------------------------------------------------------


async def test_places_in_the_queue_are_told(site: SciServer, open_one: Open) -> None:
    site.jobs.is_held = True
    site.users.add_user("bob", "builder")
    async with opening(site, Path())(username="bob", password=Secret("builder")) as others:
        await others.submit(python(""))
        await others.submit(python(""))
    async with open_one() as adapter:
        report = await state_of(adapter, await adapter.submit(python("")))

    assert report == JobReport("queued", message="number 3 in SciServer's queue")


async def test_the_place_of_one_job_is_not_told_of_another(site: SciServer, open_one: Open) -> None:
    site.jobs.is_held = True
    async with open_one() as adapter:
        first = await adapter.submit(replace(python(""), key="first"))
        before = await state_of(adapter, first)
        second = await adapter.submit(replace(python(""), key="second"))

        assert before.message == "number 1 in SciServer's queue"
        assert [one.message for one in await adapter.poll([first, second])] == [None, None]
    assert asked(site, "GET", QUEUES) == 1


async def test_places_that_are_not_told_are_no_trouble(site: SciServer, open_one: Open) -> None:
    site.jobs.is_held = True
    site.faults.add("status", path=QUEUES, status=404, times=9)
    async with open_one() as adapter:
        handle = await adapter.submit(python(""))

        assert await adapter.poll([handle, handle]) == [JobReport("queued")] * 2
    assert asked(site, "GET", QUEUES) == 1


async def test_a_cancelled_job_is_cancelling_until_it_is_over(
    site: SciServer, open_one: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_one() as adapter:
        handle = await adapter.submit(python("import time; time.sleep(60)"))
        await started(adapter, handle)
        with monkeypatch.context() as stopped:
            stopped.setattr(site.jobs, "_move_on", lambda job: None)
            for _ in range(5):
                await adapter.cancel([handle])
            meanwhile = await state_of(adapter, handle)
        after = await over(adapter, handle)

    assert meanwhile == JobReport("running", message="cancelling: SciServer has not ended it yet")
    assert after.state == "cancelled"
    assert asked(site, "POST", f"/racm/jobm/rest/jobs/{handle['id']}/cancel") == 1


async def test_an_answer_to_a_cancel_is_listened_to(site: SciServer, open_one: Open) -> None:
    """One that failed is asked for again; one for what is not known there is fine."""
    async with open_one() as adapter:
        handle = await adapter.submit(python("import time; time.sleep(60)"))
        site.faults.add("error", path="/cancel$", text="Internal trouble")
        with pytest.raises(Unavailable, match="Internal trouble"):
            await adapter.cancel([handle])

        await adapter.cancel([handle])
        assert (await over(adapter, handle)).state == "cancelled"
        await adapter.cancel([{**handle, "key": "another", "id": 1}])


async def test_the_site_s_time_limit_is_told(site: SciServer, open_one: Open) -> None:
    site.faults.add("job_timeout", after_s=0.1)
    async with open_one() as adapter:
        report = await over(adapter, await adapter.submit(python("import time; time.sleep(60)")))

    assert (report.state, report.reason) == ("exited", "walltime")
    assert report.exit_code != 0
    assert "time limit of 24 h" in (report.message or "")


async def test_the_site_s_time_limit_is_told_before_it_strikes(
    site: SciServer, open_one: Open
) -> None:
    for domain in site.state.domains:
        domain.timeout_s, domain.jobs_per_user = 1800.0, 3
    sleeps = python("import time; time.sleep(60)")
    long, short = Resources(walltime_s=5400.0), Resources(walltime_s=900.0)
    async with open_one(domain="Small Jobs Domain") as adapter:
        first = await adapter.submit(replace(sleeps, key="first", resources=long))
        await started(adapter, first)
        site.jobs.is_held = True
        second = await adapter.submit(replace(sleeps, key="second", resources=long))
        third = await adapter.submit(replace(sleeps, key="third", resources=short))
        reports = await adapter.poll([first, second, third])

    words = "Small Jobs Domain ends jobs after 30 min, and this one may take 90 min"
    assert [report.message for report in reports] == [words, words, None]
    records = [one for one in site.requests if one.path.endswith(f"/jobs/{first['id']}")]
    assert len(records) == 1, "it is asked for once"


async def test_a_job_that_somebody_else_cancels_is_cancelled(
    site: SciServer, open_one: Open
) -> None:
    site.faults.add("job_canceled", after_s=0.05)
    async with open_one() as adapter:
        report = await over(adapter, await adapter.submit(python("import time; time.sleep(60)")))

    assert report == JobReport("cancelled", reason="normal", message="Canceled by an administrator")


async def test_the_service_s_own_folder_may_vanish(site: SciServer, open_one: Open) -> None:
    site.faults.add("job_vanish")
    async with open_one() as adapter:
        handle = await adapter.submit(python("print('kept'); raise SystemExit(2)"))

        assert (await over(adapter, handle)).exit_code == 2
        assert await log_of(adapter, handle) == b"kept\n"


async def test_a_python_that_is_not_there_is_named(open_one: Open) -> None:
    async with open_one(python="/opt/none/python3") as adapter:
        report = await over(adapter, await adapter.submit(python("")))

    assert (report.exit_code, report.reason) == (127, "normal")
    assert "/opt/none/python3" in (report.message or "")
    assert "`python`" in (report.message or "")


async def test_a_python_that_is_none_is_asked_about(open_one: Open) -> None:
    async with open_one(python="/bin/true") as adapter:
        report = await over(adapter, await adapter.submit(python("")))

    assert report.reason == "node_failure"
    assert "is the setting `python` a Python?" in (report.message or "")


# -- check and settings ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "there_is"),
    [
        ("domain", "No such domain", "Small Jobs Domain, Large Jobs Domain"),
        ("image", "DeepForge 9", ""),
        ("data_volumes", "sdss, gaia", "sdss"),
        ("job_volume", "Storage/bob/lab", ""),
    ],
)
async def test_check_names_what_there_is(
    site: SciServer, open_one: Open, field: str, value: str, there_is: str
) -> None:
    site.users.add_user("bob", "builder")
    async with open_one(**{field: value}) as adapter:
        with pytest.raises(ConfigError) as raised:
            await adapter.check()

    assert field in raised.value.fields
    assert there_is in (raised.value.hint or "")


async def test_an_image_that_went_away_is_named(site: SciServer, open_one: Open) -> None:
    domain = site.state.domains[0]
    image = next(iter(domain.images))
    async with open_one(image=image) as adapter:
        await adapter.check()
        domain.images.clear()
        domain.images["Another one"] = None
        with pytest.raises(ConfigError) as raised:
            await adapter.submit(python(""))

    assert "Another one" in (raised.value.hint or "")
    assert folders_of_jobs(site) == []


async def test_an_image_that_nobody_asked_for_is_chosen_again(
    site: SciServer, open_one: Open
) -> None:
    domain = site.state.domains[0]
    async with open_one() as adapter:
        await adapter.check()
        domain.images.clear()
        domain.images["Another one"] = None

        handle = await adapter.submit(python(""))

    assert site.jobs.by_id[handle["id"]].image == "Another one"
    assert len(site.jobs.by_id) == 1


async def test_a_volume_that_was_made_just_now_is_found(site: SciServer, open_one: Open) -> None:
    async with open_one() as adapter:
        await adapter.check()
        site.state.add_volume("Storage", site.users.by_name[USER], "new")
        path = NeededPath(next(iter(adapter.file_spaces)), "/Storage/alice/new", writable=True)

        handle = await adapter.submit(replace(python(""), paths=(path,)))

        assert (await over(adapter, handle)).exit_code == 0


async def test_a_missing_volume_for_jobs_is_made(site: SciServer, open_one: Open) -> None:
    async with open_one(job_volume="Storage/alice/jobs") as adapter:
        report = await over(adapter, await adapter.submit(python("")))

    assert report.exit_code == 0
    assert site.state.volume("Storage", USER, "jobs") is not None


@pytest.mark.parametrize("volume", ["", "a/b/c/d", "../x", "Storage//x"])
def test_a_volume_that_is_none_is_refused(open_one: Open, volume: str) -> None:
    with pytest.raises(ConfigError) as raised:
        open_one(job_volume=volume)

    assert list(raised.value.fields) == ["job_volume"]


async def test_an_expired_token_says_so_and_the_job_goes_on(
    site: SciServer, open_one: Open
) -> None:
    token = Secret(site.users.add_token(USER))
    async with open_one(password=None, token=token) as adapter:
        handle = await adapter.submit(python("import time; time.sleep(0.3); raise SystemExit(9)"))
        site.users.revoke(token.reveal())
        await asyncio.sleep(adapter.list_every_s)
        with pytest.raises(AuthError) as raised:
            await adapter.poll([handle])
    assert raised.value.expired

    async with open_one(password=None, token=Secret(site.users.add_token(USER))) as linked:
        assert (await over(linked, handle)).exit_code == 9
    assert len(site.jobs.by_id) == 1


async def test_whether_jobs_call_us_is_a_setting(open_one: Open) -> None:
    assert open_one().reaches_server == "public"
    assert open_one(calls_server=False).reaches_server == "no"


def test_secrets_are_in_no_handle_and_no_archive(open_one: Open) -> None:
    request = python("print(1)")

    assert PASSWORD.encode() not in pack(request)
    assert pack(request) == pack(request)
