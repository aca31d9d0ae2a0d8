"""What SciServer Compute offers for its settings, and what it refuses before a run begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from compute.sciserver_rig import PASSWORD, USER, Open, opening
from deepforge.compute.client import ComputeClient
from deepforge.compute.port import NeededPath, Refusal
from deepforge.compute.sciserver.adapter import SciServerCompute
from deepforge.errors import AuthError, ConfigError
from deepforge.settings import Choice
from deepforge.testing.compute_tools import python
from deepforge.testing.sciserver import SciServer, running

DOMAINS = "/racm/jobm/rest/computedomains"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SciServer]:
    with running(tmp_path / "site", tick_s=0.01) as site:
        site.users.add_user(USER, PASSWORD)
        bob = site.users.add_user("bob", "builder")
        for name, actions in (("team", ("read", "write")), ("survey", ("read",))):
            site.state.add_volume("Storage", bob, name).shares[USER] = actions
        site.state.add_data_volume("recount")
        small, large, *_ = site.state.domains
        small.images["Matlab R2016a"] = None
        small.images["Of bob alone"] = frozenset(["bob"])
        large.data_volumes = ("sdss", "recount")
        yield site


@pytest.fixture
def open_one(site: SciServer, tmp_path: Path) -> Open:
    return opening(site, tmp_path)


async def values_of(adapter: SciServerCompute) -> dict[str, list[str]]:
    return {
        name: [each.value for each in one.offered]
        for name, one in (await adapter.choices()).items()
    }


async def test_the_choices_are_the_lists_of_the_site(open_one: Open) -> None:
    async with open_one() as adapter:
        assert adapter.capabilities.choices
        found = await adapter.choices()
        values = await values_of(adapter)

    assert values["domain"] == ["Small Jobs Domain", "Large Jobs Domain"]
    assert found["image"].offered == (
        Choice("SciServer Essentials 4.0", "taken if none is chosen"),
        Choice("Matlab R2016a"),
    )
    assert values["data_volumes"] == ["sdss"]
    assert found["data_volumes"].several
    assert set(values["job_volume"]) == {
        "scratch", "jobs", "Storage/alice/persistent", "Storage/bob/team",
    }  # fmt: skip
    assert found["job_volume"].others


async def test_what_lies_in_a_domain_is_that_of_the_chosen_one(open_one: Open) -> None:
    async with open_one(domain="Large Jobs Domain", image="wrong", job_volume="new") as adapter:
        values = await values_of(adapter)

    assert values["image"] == ["SciServer Essentials 4.0"]
    assert values["data_volumes"] == ["sdss", "recount"]


async def test_in_a_domain_that_is_not_offered_there_is_nothing(
    site: SciServer, open_one: Open
) -> None:
    async with open_one(domain="No such") as adapter:
        assert list(await values_of(adapter)) == ["domain"]
    site.state.domains[0].images.clear()
    async with open_one(domain="Small Jobs Domain") as adapter:
        values = await values_of(adapter)
    assert values["image"] == []


async def test_every_choice_is_one_that_works(open_one: Open) -> None:
    async with open_one() as adapter:
        found = await values_of(adapter)
    for setting, values in found.items():
        for value in values:
            domain = {"domain": "Small Jobs Domain"} if setting == "image" else {}
            async with open_one(**{**domain, setting: value}) as adapter:
                await adapter.check()


async def test_choices_are_never_those_of_a_minute_ago(site: SciServer, open_one: Open) -> None:
    async with open_one() as adapter:
        await adapter.check()
        site.state.add_domain("GPU Domain")

        assert "GPU Domain" in (await values_of(adapter))["domain"]


async def test_without_a_login_the_cure_is_told(open_one: Open) -> None:
    async with open_one(password=None) as adapter:
        with pytest.raises(AuthError) as caught:
            await ComputeClient(adapter, "sci").choices()

    assert caught.value.expired
    assert "is not linked" in caught.value.message
    assert "deepforge sciserver link" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("change", "field", "near"),
    [
        ({"domain": "small jobs"}, "domain", "Small Jobs Domain"),
        ({"image": "Sciserver Essentials"}, "image", "SciServer Essentials 4.0"),
        ({"data_volumes": "SDSS"}, "data_volumes", "sdss"),
        ({"job_volume": "Storage/bob/teem"}, "job_volume", "Storage/bob/team"),
    ],
)
async def test_a_check_names_what_was_meant_and_all_there_is(
    open_one: Open, change: dict[str, str], field: str, near: str
) -> None:
    async with open_one(**change) as adapter:
        with pytest.raises(ConfigError) as caught:
            await adapter.check()
        (refusal,) = await adapter.why_not(python(""))

    assert set(caught.value.fields) == {field}
    assert f"did you mean {near!r}" in (caught.value.hint or "")
    assert "there is: " in (caught.value.hint or "")
    assert (refusal.part, refusal.hint) == (field, caught.value.hint)


async def refusals(open_one: Open, path: str, *, writable: bool = False) -> list[Refusal]:
    async with open_one() as adapter:
        (space,) = adapter.file_spaces
        paths = (NeededPath(space, path, writable),)
        return list(await adapter.why_not(replace(python(""), paths=paths)))


@pytest.mark.parametrize(
    ("path", "writable", "words"),
    [
        ("/recount", False, "Large Jobs Domain"),
        ("/no_such/folder", False, "data volumes that jobs there can see: sdss"),
        ("/sdss", True, "for reading only"),
        ("/Storage/bob/survey", True, "ask bob"),
        ("/Storage/bob/secret", False, "shared with you"),
    ],
)
async def test_paths_that_no_job_can_use_are_refused_before_the_run(
    open_one: Open, path: str, writable: bool, words: str
) -> None:
    (refusal,) = await refusals(open_one, path, writable=writable)

    assert refusal.part == "paths"
    assert words in (refusal.hint or "")


@pytest.mark.parametrize(
    ("path", "writable"),
    [("/sdss/dr16", False), ("/Storage/bob/survey", False), ("/Storage/bob/team/x", True)],
)
async def test_paths_that_jobs_can_use_are_not_refused(
    open_one: Open, path: str, writable: bool
) -> None:
    assert await refusals(open_one, path, writable=writable) == []


async def test_an_own_volume_that_is_missing_is_made_not_refused(
    site: SciServer, open_one: Open
) -> None:
    """Its storage makes it at first use, which comes later."""
    assert await refusals(open_one, "/Storage/alice/fresh/results", writable=True) == []
    assert site.state.volume("Storage", USER, "fresh") is not None


@pytest.mark.parametrize("kind", ["status", "reset_before", "login_page", "error"])
async def test_a_site_in_trouble_refuses_nothing(
    site: SciServer, open_one: Open, kind: str
) -> None:
    site.faults.add(kind, path=DOMAINS)  # type: ignore[arg-type]  # one of its kinds
    async with open_one() as adapter:
        assert list(await adapter.why_not(python(""))) == []
    assert not site.faults.waiting


async def test_a_link_that_ended_refuses_nothing(site: SciServer, open_one: Open) -> None:
    """The run begins and waits for a new one."""
    async with open_one(password=None) as adapter:
        assert list(await adapter.why_not(python(""))) == []
