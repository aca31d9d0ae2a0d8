"""Kill -9, the writer and the server: nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deepforge.documents.port import DocumentStore
from deepforge.documents.registry import open_documents
from deepforge.errors import OutcomeUnknown, Unavailable
from deepforge.testing.documents import CONTRACT_COLLECTIONS
from mongo_server import MongoServer, started, with_database

WORKER = Path(__file__).with_name("worker.py")


async def test_a_killed_writer_on_sqlite_loses_nothing_acknowledged(tmp_path: Path) -> None:
    for round in range(5):
        path = tmp_path / f"{round}.db"
        printed = _write_until_killed(f"sqlite://{path}", after_s=random.uniform(0, 0.1))

        async with open_documents(f"sqlite://{path}", CONTRACT_COLLECTIONS) as store:
            await _check_acknowledged(store, printed)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]


async def test_a_killed_writer_on_mongo_loses_nothing_acknowledged(
    mongo_server: MongoServer,
) -> None:
    for _ in range(3):
        uri = mongo_server.new_database()
        printed = _write_until_killed(uri, after_s=random.uniform(0, 0.1))

        async with open_documents(uri, CONTRACT_COLLECTIONS) as store:
            await _check_acknowledged(store, printed)


@pytest.mark.usefixtures("forgotten_sockets")
async def test_a_killed_server_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Kill -9 of a server started here, in the middle of writes, then again on the same data.

    FerretDB keeps them in SQLite with `synchronous=FULL`, so its promise is the one we give for our
    own SQLite. What a machine that loses power keeps cannot be tested here, for either.
    """
    with started(tmp_path) as server:
        uri = with_database(server.uri, "crash") + "?serverSelectionTimeoutMS=2000"
        async with open_documents(uri, CONTRACT_COLLECTIONS) as store:
            for round in range(2):
                acknowledged: list[str] = []
                unknown: list[str] = []
                tasks = [
                    asyncio.create_task(_insert(store, f"{round}-{n}", acknowledged, unknown))
                    for n in range(5)
                ]
                await _until_some(acknowledged)
                await asyncio.sleep(random.uniform(0, 0.05))
                await asyncio.to_thread(server.kill)
                await asyncio.gather(*tasks)
                await asyncio.to_thread(server.start)

                kept = {one.id for one in await store.get_many("notes", acknowledged)}
                assert set(acknowledged) == kept
                for id in unknown:  # whichever it is, it is whole, and the question is answered
                    for found in await store.get_many("notes", [id]):
                        assert (found.revision, found.data) == (1, id.encode())


async def test_processes_that_share_a_new_file_lose_no_increment(tmp_path: Path) -> None:
    await _add_in_three_processes(f"sqlite://{tmp_path}/new folder/new.db")


async def test_processes_that_share_a_mongo_lose_no_increment(mongo_server: MongoServer) -> None:
    await _add_in_three_processes(mongo_server.new_database())


async def _add_in_three_processes(url: str) -> None:
    command = [sys.executable, str(WORKER), "add", url]
    running = [await asyncio.create_subprocess_exec(*command) for _ in range(3)]
    codes = [await asyncio.wait_for(one.wait(), 60) for one in running]

    assert [0, 0, 0] == codes
    async with open_documents(url, CONTRACT_COLLECTIONS) as store:
        assert (await store.get("others", "counter")).body == {"n": 75}


def _write_until_killed(url: str, after_s: float) -> list[list[str]]:
    """Run the writer, kill it some time after its first insert, and return what it said."""
    command = [sys.executable, str(WORKER), "write", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [""]
        while not lines[-1].startswith("inserted"):
            lines.append(process.stdout.readline())
            assert lines[-1], "the writer ended by itself"
        time.sleep(after_s)
        process.kill()
        lines += process.stdout.readlines()
    assert process.returncode == -signal.SIGKILL
    return [line.split() for line in lines if line.startswith(("inserted", "counted"))]


async def _check_acknowledged(store: DocumentStore, printed: list[list[str]]) -> None:
    inserted = [line[1] for line in printed if line[0] == "inserted"]
    counted = {line[1]: int(line[2]) for line in printed if line[0] == "counted"}
    assert inserted

    found = await store.get_many("notes", inserted)

    assert [(id, id.encode()) for id in inserted] == [(one.id, one.data) for one in found]
    found_by_index = {one.id for one in await store.find("notes", {"state": "new"})}
    assert set(inserted) <= found_by_index
    for counter in await store.get_many("notes", list(counted)):
        assert counter.revision >= counted[counter.id]
        assert counter.body == {"rank": counter.revision}


async def _insert(
    store: DocumentStore, prefix: str, acknowledged: list[str], unknown: list[str]
) -> None:
    """Insert until the server is gone."""
    for number in range(1_000_000):
        id = f"{prefix}-{number}"
        try:
            await store.insert("notes", id, {}, id.encode())
        except (OutcomeUnknown, Unavailable):
            unknown.append(id)
            return
        acknowledged.append(id)


async def _until_some(acknowledged: list[str]) -> None:
    deadline = time.monotonic() + 30
    while len(acknowledged) < 20:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
