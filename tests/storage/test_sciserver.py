"""The adapter of SciServer Files against the stand-in: the exam, and a service that misbehaves."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from deepforge.errors import (
    AlreadyExists,
    AuthError,
    ConfigError,
    Corrupt,
    DeepForgeError,
    Forbidden,
    InvalidRequest,
    NotFound,
    StorageFull,
    Unavailable,
)
from deepforge.sciserver import session
from deepforge.settings import Secret
from deepforge.storage.client import StorageClient
from deepforge.storage.port import ObjectRef
from deepforge.storage.retry import Retry
from deepforge.storage.sciserver import SciServerFilesAdapter, SciServerFilesSettings
from deepforge.testing.sciserver import SciServer, User, running
from deepforge.testing.storage import StorageContract
from deepforge.testing.storage_exam import Opener

MIB = 1024 * 1024
CONTENT = bytes(range(256)) * 4096


@pytest.fixture(scope="module")
def lasting_site() -> Iterator[SciServer]:
    """One for the whole exam, which works in places of its own."""
    with running() as site:
        site.users.add_user("alice", "wonderland", quota_bytes=0)
        yield site


class TestSciServerFiles(StorageContract):
    @pytest.fixture
    def opener(self, lasting_site: SciServer) -> Opener:
        settings = SciServerFilesSettings(
            "alice", password=Secret("wonderland"), folder="lab/one", site=lasting_site.url
        )
        return lambda: SciServerFilesAdapter(settings)


@pytest.fixture
def site() -> Iterator[SciServer]:
    with running() as site:
        site.users.add_user("alice", "wonderland")
        yield site


@pytest.fixture
def alice(site: SciServer) -> User:
    return site.users.by_name["alice"]


def settings(server: SciServer, **more: object) -> SciServerFilesSettings:
    values = {"username": "alice", "password": Secret("wonderland"), "site": server.url} | more
    return SciServerFilesSettings(**values)  # type: ignore[arg-type]  # a test's own choice


@pytest.fixture
async def adapter(site: SciServer) -> AsyncIterator[SciServerFilesAdapter]:
    async with SciServerFilesAdapter(settings(site)) as adapter:
        await adapter.check()
        site.requests.clear()
        yield adapter


@pytest.fixture
def client(adapter: SciServerFilesAdapter) -> StorageClient:
    """With retries, that do not wait."""

    async def no_pause(_: float) -> None:
        pass

    return StorageClient(adapter, "sky", retry=Retry(attempts=3), sleep=no_pause)


def files_in(site: SciServer, pool: str = "Storage", volume: str = "deepforge_data") -> list[str]:
    found = site.state.volume(pool, "alice", volume)
    assert found is not None
    return sorted(
        str(path.relative_to(found.folder)) for path in found.folder.rglob("*") if path.is_file()
    )


async def content_of(adapter: SciServerFilesAdapter, key: str) -> bytes:
    return b"".join([chunk async for chunk in adapter.get(key)])


async def once(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def test_an_object_is_the_file_that_users_and_jobs_expect(
    client: StorageClient, site: SciServer
) -> None:
    await client.put_bytes("results/model.bin", b"abc")

    assert files_in(site) == ["results/model.bin"]
    grant = await client.grant("results/model.bin", "GET", expires_s=60)
    assert grant.path == "/Storage/alice/deepforge_data/results/model.bin"
    assert client.file_space == f"sciserver:{site.url.removeprefix('http://')}"
    assert client.file_root == "/Storage/alice/deepforge_data"


async def test_files_of_users_are_objects(client: StorageClient, site: SciServer) -> None:
    volume = site.state.volume("Storage", "alice", "deepforge_data")
    assert volume is not None
    (volume.folder / "survey").mkdir()
    (volume.folder / "survey" / "a b%20c.csv").write_bytes(b"1,2")

    assert [one.key async for one in client.list("survey/")] == ["survey/a b%20c.csv"]
    assert b"1,2" == await client.get_bytes("survey/a b%20c.csv", limit_bytes=10)


async def test_a_missing_file_is_not_an_empty_one(client: StorageClient, site: SciServer) -> None:
    """The service answers 200 without bytes to both."""
    await client.put_bytes("empty", b"")
    await client.put_bytes("folder/file", b"x")

    assert b"" == await client.get_bytes("empty", limit_bytes=1)
    for key in ("nothing", "folder"):
        with pytest.raises(NotFound):
            await client.get_bytes(key, limit_bytes=1)
        with pytest.raises(NotFound):
            await client.stat(key)


async def test_deleting_never_takes_a_folder_along(client: StorageClient, site: SciServer) -> None:
    await client.put_bytes("folder/file", b"x")

    await client.delete(["folder"])
    await client.delete(["folder", "other", "more", "still more", "and more"])

    assert files_in(site) == ["folder/file"]


async def test_nothing_is_ever_written_quietly(client: StorageClient, site: SciServer) -> None:
    """A quiet PUT on a folder removes it with all in it."""
    for key in ("a/b", "a", "a/b"):
        await client.put_bytes(key, b"x")

    puts = [one for one in site.requests if one.method == "PUT" and "/api/file/" in one.path]
    assert puts
    assert all("quiet" not in one.query for one in puts)
    assert all("/.deepforge/parts/" in one.path for one in puts)


async def test_a_put_of_a_small_object_costs_three_requests(
    client: StorageClient, site: SciServer
) -> None:
    await client.put_bytes("folder/first", b"x")
    site.requests.clear()

    await client.put_bytes("folder/second", b"x")

    told = [(one.method, one.path.split("/")[3]) for one in site.requests]
    assert told == [("PUT", "file"), ("GET", "file"), ("PUT", "data")]


async def test_a_stat_costs_one_request_however_full_the_folder_is(
    client: StorageClient, site: SciServer
) -> None:
    for number in range(9):
        await client.put_bytes(f"folder/{number}", b"x")
    site.requests.clear()

    await client.stat("folder/7")

    assert ["HEAD"] == [one.method for one in site.requests]


async def test_what_is_small_is_read_again_and_what_is_large_is_measured(
    client: StorageClient, site: SciServer
) -> None:
    """The service knows no digests."""
    site.faults.add("corrupt", method="PUT", path="/api/file/", after_bytes=77_777)

    small = await client.put_bytes("small", CONTENT)

    assert CONTENT == await client.get_bytes(small, limit_bytes=2 * MIB)
    assert files_in(site) == ["small"]

    content = bytes(5 * MIB)
    site.requests.clear()
    site.faults.add("corrupt", method="PUT", path="/api/file/", after_bytes=77_777)
    large = await client.put_bytes("large", content)
    assert [one for one in site.requests if one.method == "GET" and "/file/" in one.path] == []
    with pytest.raises(Corrupt):
        await client.get_bytes(large, limit_bytes=9 * MIB)


async def test_at_most_four_requests_are_under_way(
    adapter: SciServerFilesAdapter, site: SciServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        await adapter.put(f"{number}", once(CONTENT))
    now, most = 0, 0
    real = session.Session.stream

    def counted(*arguments: object, **more: object) -> object:
        return _Counted(real(*arguments, **more))  # type: ignore[arg-type]  # passed on as they are

    class _Counted:
        def __init__(self, inner: object) -> None:
            self.inner = inner

        async def __aenter__(self) -> object:
            nonlocal now, most
            now += 1
            most = max(most, now)
            return await self.inner.__aenter__()  # type: ignore[attr-defined]

        async def __aexit__(self, *exception: object) -> object:
            nonlocal now
            now -= 1
            return await self.inner.__aexit__(*exception)  # type: ignore[attr-defined]

    monkeypatch.setattr(session.Session, "stream", counted)

    await asyncio.gather(*(adapter.stat(f"{number}") for number in range(10)))

    assert most == 4


async def test_copying_through_us_does_not_lock_itself(
    adapter: SciServerFilesAdapter, site: SciServer
) -> None:
    """More copies than transfers: who waits for bytes of another request holds no place."""
    for number in range(8):
        await adapter.put(f"from/{number}", once(CONTENT))

    async def copy(number: int) -> None:
        async with aclosing(adapter.get(f"from/{number}")) as stream:
            await adapter.put(f"to/{number}", stream)

    async with asyncio.timeout(30):
        await asyncio.gather(*map(copy, range(8)))

    assert CONTENT == await content_of(adapter, "to/7")


async def test_idle_readers_hold_up_nobody(adapter: SciServerFilesAdapter) -> None:
    await adapter.put("large", once(CONTENT * 8))
    readers = [adapter.get("large") for _ in range(6)]
    async with asyncio.timeout(30):
        for one in readers:
            await anext(one)
        await adapter.put("small", once(b"x"))
        for one in readers:
            await one.aclose()


def put(client: StorageClient) -> Awaitable[object]:
    return client.put_bytes("object", CONTENT)


def get(client: StorageClient) -> Awaitable[object]:
    return client.get_bytes("object", limit_bytes=2 * MIB)


def stat(client: StorageClient) -> Awaitable[object]:
    return client.stat("object")


@pytest.mark.parametrize("fault", ["status", "reset_before", "reset_after", "error"])
@pytest.mark.parametrize("path", ["/api/file/", "/api/data/", "/api/folder/"])
async def test_what_passes_is_tried_again_and_nothing_is_left_behind(
    client: StorageClient, site: SciServer, path: str, fault: str
) -> None:
    site.faults.add(fault, method="PUT", path=path)  # type: ignore[arg-type]

    ref = await client.put_bytes("folder/object", CONTENT)

    assert not site.faults.waiting
    assert files_in(site) == ["folder/object"]
    assert CONTENT == await client.get_bytes(ref, limit_bytes=2 * MIB)


async def test_a_move_whose_answer_is_lost_is_looked_up(
    adapter: SciServerFilesAdapter, site: SciServer
) -> None:
    site.faults.add("reset_after", method="PUT", path="/api/data/")

    await adapter.put("object", once(CONTENT))

    assert [one.method for one in site.requests if "/api/data/" in one.path] == ["PUT"]
    assert CONTENT == await content_of(adapter, "object")


async def test_who_came_first_stays_after_a_lost_answer(
    client: StorageClient, site: SciServer
) -> None:
    site.faults.add("reset_after", method="PUT", path="/api/data/")
    await client.put_bytes("object", b"first", only_if_absent=True)

    with pytest.raises(AlreadyExists):
        await client.put_bytes("object", b"second", only_if_absent=True)

    assert b"first" == await client.get_bytes("object", limit_bytes=9)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Missing required permissions on volume", Forbidden),
        ("Volume does not exist", ConfigError),
        ("Error.  Disk quota exceeded", StorageFull),
        ("/srv/x: No space left on device", StorageFull),
        ("Attempted to access a path outside of the requested volume", InvalidRequest),
    ],
)
async def test_what_does_not_pass_is_told_at_once(
    client: StorageClient, site: SciServer, text: str, kind: type[DeepForgeError]
) -> None:
    site.faults.add("error", method="PUT", path="/api/file/", text=text)

    with pytest.raises(kind):
        await put(client)

    assert len([one for one in site.requests if one.method == "PUT"]) <= 1
    assert files_in(site) == []


async def test_a_full_disk_leaves_the_former_object(client: StorageClient, site: SciServer) -> None:
    await client.put_bytes("object", b"former")
    site.faults.add("quota", method="PUT", path="/api/file/", after_bytes=1000)

    with pytest.raises(StorageFull):
        await put(client)

    assert files_in(site) == ["object"]
    assert b"former" == await client.get_bytes("object", limit_bytes=9)


async def test_what_does_not_fit_is_refused_before_it_is_sent(site: SciServer, alice: User) -> None:
    alice.quota_bytes = 1000
    async with SciServerFilesAdapter(settings(site)) as adapter:
        for size_bytes in (600, 400):
            await adapter.put(f"{size_bytes}", once(b"x" * size_bytes), size_bytes=size_bytes)
        site.requests.clear()

        with pytest.raises(StorageFull, match=": 0 are free") as caught:
            await adapter.put("more", once(b"x"), size_bytes=1)

        assert "Temporary" in (caught.value.hint or "")
        assert not [one for one in site.requests if one.method == "PUT"]
        alice.quota_bytes = 2000
        await adapter.put("more", once(b"x"), size_bytes=1)


async def test_proxies_that_want_smaller_bodies_are_believed(
    client: StorageClient, site: SciServer
) -> None:
    site.faults.add("status", method="PUT", path="/api/file/", status=413, times=9)

    with pytest.raises(InvalidRequest, match="too large"):
        await put(client)

    assert len([one for one in site.requests if one.status == 413]) == 1


@pytest.mark.parametrize("at", [0, 1, 500_000])
async def test_a_download_that_breaks_off_is_never_data(
    client: StorageClient, site: SciServer, at: int
) -> None:
    ref = await client.put_bytes("object", CONTENT)
    site.faults.add("truncate", method="GET", path="/api/file/", after_bytes=at, times=9)

    with pytest.raises(Unavailable):
        await get(client)

    site.faults.clear()
    site.faults.add("truncate", method="GET", path="/api/file/", after_bytes=at)
    assert CONTENT == await client.get_bytes(ref, limit_bytes=2 * MIB)


async def test_one_changed_byte_is_seen(client: StorageClient, site: SciServer) -> None:
    ref = await client.put_bytes("object", CONTENT)
    site.faults.add("corrupt", method="GET", path="/api/file/", after_bytes=77_777)

    with pytest.raises(Corrupt):
        await client.get_bytes(ref, limit_bytes=2 * MIB)


async def test_a_silent_service_is_given_up_but_a_slow_one_is_not(
    site: SciServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time-out is for each silence."""
    monkeypatch.setattr(session, "QUIET_S", 0.5)
    async with SciServerFilesAdapter(settings(site)) as adapter:
        await adapter.put("object", once(CONTENT[:1000]))
        site.faults.add("hang", method="GET", path="/api/file/", after_bytes=500)
        with pytest.raises(Unavailable, match="in time"):
            await content_of(adapter, "object")
        site.faults.add("trickle", method="GET", path="/api/file/", after_bytes=100, after_s=0.1)
        assert CONTENT[:1000] == await content_of(adapter, "object")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
async def test_a_login_page_is_no_data(client: StorageClient, site: SciServer, method: str) -> None:
    await put(client)
    site.faults.add("login_page", method=method, path="/api/(file|data)/", times=9)

    with pytest.raises(ConfigError, match="web page"):
        await {"GET": get, "PUT": put, "HEAD": stat}[method](client)


async def test_a_link_that_ends_is_told_as_such(site: SciServer) -> None:
    token = Secret(site.users.add_token("alice"))
    async with SciServerFilesAdapter(settings(site, password=None, token=token)) as adapter:
        await adapter.put("object", once(b"x"))
        site.users.revoke()
        for act in (adapter.stat("object"), adapter.put("object", once(b"y"))):
            with pytest.raises(AuthError) as caught:
                await act
            assert caught.value.expired


async def test_a_cancelled_put_leaves_no_part(
    adapter: SciServerFilesAdapter, site: SciServer
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield CONTENT
            sent.set()

    sent = asyncio.Event()
    task = asyncio.create_task(adapter.put("object", endless()))
    await sent.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    deadline = asyncio.get_running_loop().time() + 10
    while files_in(site):
        assert asyncio.get_running_loop().time() < deadline, files_in(site)
        await asyncio.sleep(0.02)


async def test_parts_that_a_crash_left_are_removed_a_day_later(site: SciServer) -> None:
    async with SciServerFilesAdapter(settings(site)) as adapter:
        await adapter.check()
    volume = site.state.volume("Storage", "alice", "deepforge_data")
    assert volume is not None
    parts = volume.folder / ".deepforge" / "parts"
    for name, age_s in (("old", 90_000), ("young", 1000)):
        (parts / name).write_bytes(b"x")
        _age(parts / name, age_s)

    async with SciServerFilesAdapter(settings(site)) as adapter:
        await adapter.check()

    assert [path.name for path in parts.iterdir()] == ["young"]


def _age(path: Path, age_s: float) -> None:
    then = path.stat().st_mtime - age_s
    os.utime(path, (then, then))


async def test_own_volumes_are_made_and_those_of_others_are_not(site: SciServer) -> None:
    async with SciServerFilesAdapter(settings(site, pool="Temporary", volume="new_one")) as adapter:
        await adapter.put("object", once(b"x"))
    assert files_in(site, "Temporary", "new_one") == ["object"]

    site.users.add_user("bob")
    async with SciServerFilesAdapter(settings(site, volume="bob/data")) as adapter:
        with pytest.raises(ConfigError, match="Storage/bob/data") as caught:
            await adapter.stat("object")
    assert "Storage/alice/persistent" in (caught.value.hint or "")
    assert set(caught.value.fields) == {"volume"}


async def test_a_volume_that_is_shared_for_reading_can_be_read(
    site: SciServer, alice: User
) -> None:
    bob = site.users.add_user("bob")
    volume = site.state.add_volume("Storage", bob, "survey")
    (volume.folder / "a.csv").write_bytes(b"1,2")
    volume.shares["alice"] = ("read",)

    async with SciServerFilesAdapter(settings(site, volume="bob/survey")) as adapter:
        assert b"1,2" == await content_of(adapter, "a.csv")
        with pytest.raises(Forbidden):
            await adapter.put("b.csv", once(b"x"))
        with pytest.raises(Forbidden):
            await adapter.delete(["a.csv"])


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"site": "apps.sciserver.org"}, "site"),
        ({"volume": "a/b/c/d"}, "volume"),
        ({"volume": "../x"}, "volume"),
        ({"volume": ""}, "volume"),
        ({"folder": "../other"}, "folder"),
        ({"folder": ".deepforge/parts"}, "folder"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    site: SciServer, wrong: dict[str, str], field: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        SciServerFilesAdapter(settings(site, **wrong))

    assert set(caught.value.fields) == {field}


async def test_the_room_is_told(adapter: SciServerFilesAdapter) -> None:
    await adapter.put("object", once(b"12345"))

    room = await adapter.room()

    assert room is not None
    assert room.used_bytes == 5
    assert room.limit_bytes == 10 * 2**30


async def test_an_object_without_size_is_stored_whole(client: StorageClient) -> None:
    ref = await client.put_stream("object", once(b"a" * MIB, b"", b"b"))

    assert ref.size_bytes == MIB + 1
    assert isinstance(ref, ObjectRef)


async def test_a_login_that_ends_between_two_uploads_is_renewed(
    client: StorageClient, site: SciServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_TOO_YOUNG_S", 0.0)
    await put(client)
    site.users.revoke()

    ref = await client.put_bytes("other", CONTENT)

    assert CONTENT == await client.get_bytes(ref, limit_bytes=2 * MIB)


@pytest.mark.parametrize("key", ["x" * 300, ".deepforge/parts/x", "a/.deepforge-draft", "ü" * 200])
async def test_what_no_file_can_be_called_lies_aside(
    client: StorageClient, site: SciServer, key: str
) -> None:
    ref = await client.put_bytes(key, b"content")

    assert b"content" == await client.get_bytes(ref, limit_bytes=9)
    assert [key] == [one.key async for one in client.list(key[:3])]
    assert all(name.startswith(".deepforge/objects/") for name in files_in(site))
    await client.delete([key])
    assert files_in(site) == []
