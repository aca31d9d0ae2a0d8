"""Kinds of volumes of SciServer as storages: data volumes, shared ones, and those with odd names."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from deepforge.errors import ConfigError, Forbidden, NotFound, Unavailable
from deepforge.sciserver.volumes import all_volumes
from deepforge.settings import Choice, Secret
from deepforge.storage import sciserver
from deepforge.storage.client import StorageClient
from deepforge.storage.port import ObjectRef
from deepforge.storage.sciserver import SciServerFilesAdapter, SciServerFilesSettings
from deepforge.testing.sciserver import SciServer, running
from deepforge.testing.sciserver.world import Volume

PLATES = b"plate,mjd\n266,51630\n"


@pytest.fixture
def site() -> Iterator[SciServer]:
    with running() as site:
        site.users.add_user("alice", "wonderland")
        site.users.add_user("bob", "builder")
        folder = site.state.data_volumes["sdss"].folder / "dr16" / "a b%20c"
        folder.mkdir(parents=True)
        (folder / "plates.csv").write_bytes(PLATES)
        yield site


@pytest.fixture
def survey(site: SciServer) -> Volume:
    """A volume of bob that alice may read."""
    volume = site.state.add_volume("Storage", site.users.by_name["bob"], "survey")
    (volume.folder / "a.csv").write_bytes(b"1,2")
    volume.shares["alice"] = ("read",)
    return volume


def adapter_of(site: SciServer, **more: object) -> SciServerFilesAdapter:
    values = {"username": "alice", "password": Secret("wonderland"), "site": site.url, **more}
    return SciServerFilesAdapter(SciServerFilesSettings(**values))  # type: ignore[arg-type]


@pytest.fixture
async def sdss(site: SciServer) -> AsyncIterator[StorageClient]:
    async with adapter_of(site, pool="data", volume="sdss") as adapter:
        yield StorageClient(adapter, "sdss")


KEY = "dr16/a b%20c/plates.csv"


async def test_a_data_volume_is_read_like_any_other(sdss: StorageClient) -> None:
    await sdss.check()

    assert [KEY] == [one.key async for one in sdss.list()]
    assert PLATES == await sdss.get_bytes(KEY, limit_bytes=100)
    assert len(PLATES) == (await sdss.stat(KEY)).size_bytes
    with pytest.raises(NotFound):
        await sdss.stat("dr16")
    grant = await sdss.grant(KEY, "GET", expires_s=60)
    assert grant.path == f"/sdss/{KEY}"
    assert sdss.file_root == "/sdss"


async def test_nothing_is_ever_changed_in_a_data_volume(
    site: SciServer, sdss: StorageClient
) -> None:
    assert sdss.read_only
    ref = ObjectRef("sdss", KEY, len(PLATES))
    for change in (
        sdss.put_bytes("new", b"x"),
        sdss.put_bytes(KEY, b"x", only_if_absent=True),
        sdss.delete([KEY]),
        sdss.copy(ref, "copy"),
        sdss.grant("new", "PUT", expires_s=60),
    ):
        with pytest.raises(Forbidden, match="data volume 'sdss'") as caught:
            await change
        assert caught.value.hint

    assert {one.method for one in site.requests} <= {"GET", "HEAD", "POST"}
    assert PLATES == await sdss.get_bytes(KEY, limit_bytes=100)


async def test_one_that_may_be_written_is_for_reading_here_all_the_same(site: SciServer) -> None:
    """Published data stay as they are, whoever has the rights."""
    site.state.add_data_volume("mine", writers=["alice"])
    async with adapter_of(site, pool="data", volume="mine") as adapter:
        await adapter.check()
        with pytest.raises(Forbidden):
            await StorageClient(adapter, "mine").put_bytes("x", b"x")
    assert not [one for one in site.requests if one.method in ("PUT", "DELETE")]


async def test_an_unknown_data_volume_is_refused_with_what_there_is(site: SciServer) -> None:
    async with adapter_of(site, pool="data", volume="SDSS") as adapter:
        with pytest.raises(ConfigError, match="no data volume 'SDSS'") as caught:
            await adapter.check()

    assert set(caught.value.fields) == {"volume"}
    assert caught.value.hint == "did you mean 'sdss'? there is: sdss"


async def test_a_folder_that_is_not_in_a_data_volume_is_told(site: SciServer) -> None:
    async with adapter_of(site, pool="data", volume="sdss", folder="dr17") as adapter:
        with pytest.raises(ConfigError) as caught:
            await adapter.check()
    assert set(caught.value.fields) == {"folder"}

    async with adapter_of(site, pool="data", volume="sdss", folder="dr16") as adapter:
        await adapter.check()
        assert PLATES == await StorageClient(adapter, "x").get_bytes(
            "a b%20c/plates.csv", limit_bytes=100
        )


async def test_a_shared_volume_that_can_only_be_read_says_so(
    site: SciServer, survey: Volume
) -> None:
    async with adapter_of(site, volume="bob/survey") as adapter:
        await adapter.check()
        client = StorageClient(adapter, "survey")
        assert client.read_only
        assert b"1,2" == await client.get_bytes("a.csv", limit_bytes=9)
        with pytest.raises(Forbidden, match=r"'Storage/bob/survey'.*for reading only") as caught:
            await client.put_bytes("x", b"x")
        with pytest.raises(Forbidden):
            await client.delete(["a.csv"])

    assert "ask bob" in (caught.value.hint or "")
    assert [path.name for path in survey.folder.iterdir()] == ["a.csv"]


async def test_rights_that_come_later_are_seen_without_a_restart(
    site: SciServer, survey: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sciserver, "_RIGHTS_KNOWN_S", 0.1)
    async with adapter_of(site, volume="bob/survey") as adapter:
        client = StorageClient(adapter, "survey")
        await client.check()
        survey.shares["alice"] = ("read", "write")
        deadline = time.monotonic() + 10
        while client.read_only:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

        await client.put_bytes("b.csv", b"3,4")
        assert b"3,4" == await client.get_bytes("b.csv", limit_bytes=9)


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_volume_that_is_unshared_in_the_middle_is_no_missing_object(
    site: SciServer, survey: Volume, is_known: bool
) -> None:
    async with adapter_of(site, volume="bob/survey") as adapter:
        client = StorageClient(adapter, "survey")
        if is_known:
            await client.stat("a.csv")
        survey.shares.clear()
        for act in (client.stat("a.csv"), client.get_bytes("a.csv", limit_bytes=9)):
            with pytest.raises((NotFound, ConfigError)) as caught:
                await act
            assert "share" in (caught.value.hint or "")
            assert "bob/survey" in caught.value.message
        with pytest.raises((NotFound, ConfigError)):
            _ = [one async for one in client.list()]


async def test_rights_that_go_in_the_middle_are_told(site: SciServer, survey: Volume) -> None:
    survey.shares["alice"] = ("read", "write")
    async with adapter_of(site, volume="bob/survey") as adapter:
        client = StorageClient(adapter, "survey")
        await client.put_bytes("mine", b"x")
        survey.shares["alice"] = ("read",)
        with pytest.raises(Forbidden) as caught:
            await client.put_bytes("mine", b"y")
        assert b"x" == await client.get_bytes("mine", limit_bytes=9)

    assert "volume's owner" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "name",
    ["my vol", "100%", "a%2fb", "%2e%2e", "#?&;", "+plus", "😀 ünï", "-x", ".hidden", "a'b\"c"],
)
async def test_volumes_may_have_odd_names(site: SciServer, name: str) -> None:
    async with adapter_of(site, volume=name) as adapter:
        await adapter.check()
        client = StorageClient(adapter, "odd")
        ref = await client.put_bytes("a/b c", b"content")
        assert b"content" == await client.get_bytes(ref, limit_bytes=9)

    volume = site.state.volume("Storage", "alice", name)
    assert volume is not None
    assert (volume.folder / "a" / "b c").read_bytes() == b"content"


async def test_the_choices_are_the_volumes_with_their_owners_and_rights(
    site: SciServer, survey: Volume
) -> None:
    site.state.add_data_volume("recount", display_name="Recount 3")
    team = site.state.add_volume("Storage", site.users.by_name["bob"], "team")
    team.shares["alice"] = ("read", "write")
    hidden = site.state.add_volume("Storage", site.users.by_name["bob"], "grantable")
    hidden.shares["alice"] = ("grant",)
    async with adapter_of(site) as adapter:
        stored = await adapter.choices()
    async with adapter_of(site, pool="Temporary") as adapter:
        passing = await adapter.choices()
    async with adapter_of(site, pool="data", volume="wrong") as adapter:
        published = await adapter.choices()

    assert [one.value for one in stored["pool"].offered] == ["Storage", "Temporary", "data"]
    assert "72 hours" in stored["pool"].offered[1].note
    assert stored["volume"].offered == (
        Choice("persistent"),
        Choice("bob/survey", "shared by bob, for reading"),
        Choice("bob/team", "shared by bob"),
    )
    assert stored["volume"].others
    assert {one.value for one in passing["volume"].offered} == {"scratch", "jobs"}
    assert published["volume"].offered == (Choice("sdss", "SDSS"), Choice("recount", "Recount 3"))
    assert not published["volume"].others


@pytest.mark.parametrize(
    "told", [{"dataVolumes": [{}]}, {"rootVolumes": [{"userVolumes": [{}]}]}, {"dataVolumes": [7]}]
)
def test_a_listing_that_is_no_listing_is_an_error_of_the_service(told: dict[str, object]) -> None:
    with pytest.raises(Unavailable):
        all_volumes({"rootVolumes": [], **told})
