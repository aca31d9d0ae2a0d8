from __future__ import annotations

import asyncio
import contextlib
import resource
import sqlite3
import stat
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepforge.documents import sqlite_file
from deepforge.documents.port import Collection, Document
from deepforge.documents.sqlite import SqliteStore
from deepforge.documents.sqlite_file import SCHEMA_VERSION
from deepforge.errors import (
    AlreadyExists,
    ConfigError,
    Corrupt,
    NotFound,
    StorageFull,
    Unavailable,
)
from deepforge.testing.documents import CONTRACT_COLLECTIONS


def _store(path: Path, *, busy_timeout_s: float = 20.0) -> SqliteStore:
    return SqliteStore(path, CONTRACT_COLLECTIONS, busy_timeout_s=busy_timeout_s)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the write lock, as another process in a long transaction would."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("begin immediate")
        yield
        connection.execute("rollback")


@contextlib.contextmanager
def _no_room() -> Iterator[None]:
    """Let no file grow: as on a full disk. SIGXFSZ is ignored by Python."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def _data(path: Path) -> list[bytes]:
    """What the files hold that matter; the others may come and go."""
    wal = path.with_name(f"{path.name}-wal")
    return [path.read_bytes(), wal.read_bytes() if wal.exists() else b""]


async def _crash_after_writing(path: Path, id: str) -> None:
    program = (
        "import asyncio, os, sys; from pathlib import Path\n"
        "from deepforge.documents.sqlite import SqliteStore\n"
        "from deepforge.testing.documents import CONTRACT_COLLECTIONS\n"
        "async def main():\n"
        "    store = await SqliteStore(Path(sys.argv[1]), CONTRACT_COLLECTIONS).__aenter__()\n"
        "    await store.insert('notes', sys.argv[2], {})\n"
        "    os._exit(9)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(path), id)
    assert await process.wait() == 9


async def test_file_and_folder_are_for_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "home" / "deepforge.db"
    async with _store(path) as store:
        await store.insert("notes", "a", {})
        modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()}

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {"deepforge.db", "deepforge.db-wal", "deepforge.db-shm"} == modes.keys()
    assert set(modes.values()) == {0o600}


async def test_nothing_is_left_beside_the_file_after_closing(tmp_path: Path) -> None:
    async with _store(tmp_path / "a.db") as store:
        await store.insert("notes", "a", {})

    assert [tmp_path / "a.db"] == list(tmp_path.iterdir())


async def test_writes_that_wait_share_one_commit(tmp_path: Path) -> None:
    async with _store(tmp_path / "a.db") as store:
        before = _commits(tmp_path / "a.db-wal")
        await asyncio.gather(*(store.insert("notes", f"{n}", {"rank": n}) for n in range(200)))
        after = _commits(tmp_path / "a.db-wal")

    assert 1 <= after - before <= 20


async def test_a_database_that_stays_locked_is_unavailable_to_writers_alone(
    tmp_path: Path,
) -> None:
    async with _store(tmp_path / "a.db", busy_timeout_s=0.1) as store:
        await store.insert("notes", "a", {"rank": 1})
        with _locked(tmp_path / "a.db"):
            writes = [asyncio.create_task(store.insert("notes", f"{n}", {})) for n in range(3)]
            assert (await store.get("notes", "a")).body == {"rank": 1}
            assert len(await store.find("notes", {"rank": 1})) == 1
            for write in writes:
                with pytest.raises(Unavailable, match="locked by another process"):
                    await write
        await store.insert("notes", "b", {})

        assert ["a", "b"] == [one.id for one in await store.find("notes")]


async def test_a_lock_that_ends_in_time_is_only_waited_for(tmp_path: Path) -> None:
    async with _store(tmp_path / "a.db") as store:
        with _locked(tmp_path / "a.db"):
            write = asyncio.create_task(store.insert("notes", "a", {}))
            with pytest.raises(NotFound):
                await store.get("notes", "a")
        assert (await write).revision == 1


async def test_a_file_that_cannot_grow_is_full_for_large_documents_alone(tmp_path: Path) -> None:
    """A limit on file sizes stands for a quota and a full disk: SQLite takes the transaction back,
    and the requests that were in it are answered one by one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with _store(tmp_path / "a.db") as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, hard))
        try:
            outcomes = await asyncio.gather(
                store.insert("notes", "before", {}),
                store.insert("notes", "large", {}, bytes(2 * 1024 * 1024)),
                store.insert("notes", "after", {}),
                return_exceptions=True,
            )
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

        assert [Document, StorageFull, Document] == [type(one) for one in outcomes]
        await store.insert("notes", "large", {}, bytes(2 * 1024 * 1024))
        assert ["after", "before", "large"] == [one.id for one in await store.find("notes")]


async def test_a_full_disk_is_said_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    async with _store(path):
        pass
    original = sqlite_file._connect

    def small(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
        connection = original(path, busy_timeout_s)
        connection.execute("pragma max_page_count = 40")  # SQLite answers as for a full disk
        return connection

    monkeypatch.setattr(sqlite_file, "_connect", small)
    async with _store(path) as store:
        await store.insert("notes", "a", {})
        with pytest.raises(StorageFull, match="cannot grow"):
            await store.insert("notes", "b", {}, bytes(1024 * 1024))
        await store.insert("notes", "c", {})

        assert ["a", "c"] == [one.id for one in await store.find("notes")]


@pytest.mark.parametrize("left_by", ["a good end", "a crash"])
async def test_what_is_on_a_full_disk_can_be_read_where_that_suffices(
    tmp_path: Path, left_by: str
) -> None:
    """Not one byte fits any more: not even the files that SQLite keeps while it reads."""
    path = tmp_path / "a.db"
    async with _store(path) as store:
        await store.insert("notes", "a", {"rank": 1})
    if left_by == "a crash":
        await _crash_after_writing(path, "b")
    before = _data(path)

    with _no_room():
        with pytest.raises(StorageFull):
            await _store(path).__aenter__()
        async with SqliteStore(path, CONTRACT_COLLECTIONS, reading_suffices=True) as full:
            found = [one.id for one in await full.find("notes")]
            assert (await full.get("notes", "a")).body == {"rank": 1}
            for _ in range(2):
                with pytest.raises(StorageFull, match="cannot grow"):
                    await full.insert("notes", "c", {})

    assert ["a", "b"][: 1 + (left_by == "a crash")] == found
    assert before == _data(path)
    async with SqliteStore(path, CONTRACT_COLLECTIONS, reading_suffices=True) as roomy:
        await roomy.insert("notes", "c", {})


async def test_a_file_that_lacks_something_is_not_opened_for_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with SqliteStore(path, [Collection("notes")]):
        pass

    with _no_room(), pytest.raises(StorageFull):
        await SqliteStore(
            path, [Collection("notes"), Collection("more")], reading_suffices=True
        ).__aenter__()


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Sir or Madam, " * 100)

    with pytest.raises(ConfigError, match="not a database"):
        await _store(path).__aenter__()
    assert path.read_text() == "Dear Sir or Madam, " * 100


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        (f"pragma user_version = {SCHEMA_VERSION + 1}", "format 2; this DeepForge knows 1"),
        ("create table bookmarks (url text)", "another program"),
    ],
)
async def test_a_database_that_is_not_ours_is_refused_and_left_alone(
    tmp_path: Path, statement: str, why: str
) -> None:
    path = tmp_path / "a.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
    before = path.read_bytes()

    with pytest.raises(ConfigError, match=why):
        await _store(path).__aenter__()
    assert before == path.read_bytes()


async def test_a_place_that_cannot_hold_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.db").mkdir()

    for path in (tmp_path / "folder.db", tmp_path / "file" / "a.db", Path("/proc/a.db")):
        with pytest.raises(ConfigError, match="cannot be opened"):
            await _store(path).__aenter__()


async def test_a_damaged_file_is_corrupt_not_data(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with _store(path) as store:
        for n in range(50):
            await store.insert("notes", f"{n:02}", {"text": "x" * 2000})
    content = bytearray(path.read_bytes())
    page_bytes = 4096
    for start in range(page_bytes * 8, len(content), page_bytes):
        content[start : start + 16] = b"\xff" * 16
    path.write_bytes(content)

    async with _store(path) as store:
        with pytest.raises(Corrupt, match="damaged"):
            await store.find("notes")


async def test_an_index_may_be_added_to_documents_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with SqliteStore(path, [Collection("notes")]) as store:
        await store.insert_missing("notes", [])
        for n in range(5):
            await store.insert("notes", f"{n}", {"rank": n % 2, "name": f"{n}", "same": 1})

    grown = Collection("notes", unique=(("name",),), indexes=(("rank",),))
    async with SqliteStore(path, [grown, Collection("new")]) as store:
        assert ["1", "3"] == [one.id for one in await store.find("notes", {"rank": 1})]
        with pytest.raises(AlreadyExists):
            await store.insert("notes", "5", {"name": "4"})
        await store.insert("new", "a", {})
    with pytest.raises(ConfigError, match="unique group forbids"):
        await SqliteStore(path, [Collection("notes", unique=(("same",),))]).__aenter__()


async def test_a_single_write_costs_little_more_than_the_disk(tmp_path: Path) -> None:
    """The hand-over to the thread and back, not the SQL, is what can go wrong. A generous bound,
    for the machine is shared; a thread pool and a poll would be above it."""
    async with _store(tmp_path / "a.db") as store:
        durations = []
        for n in range(200):
            began = time.perf_counter()
            await store.insert("notes", f"{n}", {"rank": n})
            durations.append(time.perf_counter() - began)

    assert sorted(durations)[100] < 0.010


async def test_a_store_that_nobody_closed_does_not_keep_the_program(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys; from pathlib import Path\n"
        "from deepforge.documents.sqlite import SqliteStore\n"
        "from deepforge.testing.documents import CONTRACT_COLLECTIONS\n"
        "async def main():\n"
        "    store = await SqliteStore(Path(sys.argv[1]), CONTRACT_COLLECTIONS).__aenter__()\n"
        "    await store.insert('notes', 'a', {})\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(tmp_path / "a.db")
    )

    assert await asyncio.wait_for(process.wait(), 30) == 0
    async with _store(tmp_path / "a.db") as store:
        assert (await store.get("notes", "a")).revision == 1


def _commits(wal: Path) -> int:
    """Count the commits in a write-ahead log: frames that say how large the database is now."""
    content = wal.read_bytes()
    page_bytes = struct.unpack(">I", content[8:12])[0]
    frames = range(32, len(content), 24 + page_bytes)
    return sum(struct.unpack_from(">I", content, at + 4)[0] > 0 for at in frames)
