from __future__ import annotations

import socket
import time
from pathlib import Path

import pymongo
import pytest

from deepforge.documents.mongo import MongoStore
from deepforge.documents.port import Document, Draft
from deepforge.errors import AuthError, ConfigError, OutcomeUnknown, Unavailable
from deepforge.testing.documents import CONTRACT_COLLECTIONS
from mongo_gate import gate
from mongo_server import (
    MISSING,
    MongoServer,
    is_ferretdb,
    server_command,
    started,
    with_database,
)


def _store(uri: str) -> MongoStore:
    return MongoStore(uri, CONTRACT_COLLECTIONS)


async def test_documents_can_be_read_with_any_other_client(mongo_server: MongoServer) -> None:
    uri = mongo_server.new_database()
    async with _store(uri) as store:
        body = {"code": 1.0, "owner": "me", "name": "ü", "state": None, "plan": [[{"a.b": 1}]]}
        await store.insert("notes", "a", body, b"\0")
        await store.insert("others", "b", {})

    with pymongo.MongoClient[dict[str, object]](uri) as client:
        database = client.get_default_database()
        assert database["notes"].find_one({"body.name": "ü"}) == {
            "_id": "a",
            "revision": 1,
            "body": {**body, "plan": {"json": '[[{"a.b":1}]]'}},
            "unique": {"owner-name": '["me","ü"]', "code": "[1]"},
            "data": b"\0",
        }
        assert database["others"].find_one() == {"_id": "b", "revision": 1, "body": {}}
        assert {"by_owner", "by_state-rank", "by_rank", "unique_code", "unique_owner-name"} <= set(
            database["notes"].index_information()
        )


async def test_a_uri_without_a_database_means_deepforge(mongo_server: MongoServer) -> None:
    uri = mongo_server.new_database()
    bare = uri.replace(f"/{mongo_server.databases[-1]}", "/")

    async with _store(bare) as store:
        await store.insert("others", "only-a-test", {})
        with pymongo.MongoClient[dict[str, object]](bare) as client:
            assert client["deepforge"]["others"].find_one({"_id": "only-a-test"}) is not None
        await store.delete("others", "only-a-test")


@pytest.mark.usefixtures("forgotten_sockets")
async def test_a_server_that_is_not_there_is_unavailable_within_the_deadline() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        uri = f"mongodb://me:s3cret@127.0.0.1:{port}/x?serverSelectionTimeoutMS=300"
        began = time.monotonic()
        with pytest.raises(Unavailable, match=f"127.0.0.1:{port} cannot be reached") as caught:
            await _store(uri).__aenter__()

    assert time.monotonic() - began < 5
    assert "s3cret" not in str(caught.value) + repr(caught.value.__cause__)


async def test_a_wrong_password_is_said_without_showing_it(tmp_path: Path) -> None:
    command = server_command()
    if command is None or not is_ferretdb(command):
        pytest.skip(f"needs a FerretDB, which can be started with a password: {MISSING}")
    password = ("--setup-username=me", "--setup-password=s3cret", "--setup-database=admin")
    with started(tmp_path, "--test-enable-new-auth", *password) as server:
        place = with_database(server.uri, "x").removeprefix("mongodb://")
        async with _store(f"mongodb://me:s3cret@{place}?authSource=admin") as store:
            await store.insert("others", "a", {})

        for who in ("me:wr0ng@", "you:s3cret@", ""):
            with pytest.raises(AuthError, match="refuses us") as caught:
                await _store(f"mongodb://{who}{place}?authSource=admin").__aenter__()
            shown = str(caught.value) + repr(caught.value.__cause__)
            assert "wr0ng" not in shown
            assert "s3cret" not in shown


@pytest.mark.usefixtures("forgotten_sockets")
async def test_a_server_that_dies_is_unavailable_until_it_comes_back(tmp_path: Path) -> None:
    with started(tmp_path) as server:
        uri = with_database(server.uri, "x") + "?serverSelectionTimeoutMS=700"
        async with _store(uri) as store:
            await store.insert("notes", "a", {"rank": 1})
            server.kill()

            with pytest.raises((OutcomeUnknown, Unavailable)):
                await store.replace("notes", "a", {}, if_revision=1)
            with pytest.raises(Unavailable):
                await store.get("notes", "a")
            with pytest.raises(Unavailable):
                await store.insert_missing("notes", [Draft("c", {})])

            server.start()
            assert await store.get("notes", "a") == Document("a", 1, {"rank": 1})
            assert await store.insert_missing("notes", [Draft("c", {})]) == 1


async def test_a_write_whose_answer_is_lost_is_unknown_and_may_have_happened(
    tmp_path: Path,
) -> None:
    lost = (b"update", b"insert", b"delete")
    with (
        started(tmp_path) as server,
        gate(
            server.port, lose=lambda command: any(name in command[20:40] for name in lost)
        ) as port,
    ):
        async with _store(server.uri) as sure:
            await sure.insert("notes", "a", {"n": 1})
            await sure.insert("notes", "b", {"n": 1})
            async with _store(f"mongodb://127.0.0.1:{port}") as store:
                with pytest.raises(OutcomeUnknown, match="read the document"):
                    await store.replace("notes", "a", {"n": 2}, if_revision=1)
                with pytest.raises(OutcomeUnknown):
                    await store.insert("notes", "c", {})
                with pytest.raises(OutcomeUnknown):
                    await store.delete("notes", "b", if_revision=1)
                with pytest.raises(Unavailable):  # what may be repeated needs no second look
                    await store.insert_missing("notes", [Draft("d", {})])

                assert await store.find("notes") == [
                    Document("a", 2, {"n": 2}),
                    Document("c", 1, {}),
                    Document("d", 1, {}),
                ]


async def test_documents_that_a_new_group_forbids_are_found_at_opening(
    mongo_server: MongoServer,
) -> None:
    uri = mongo_server.new_database()
    with pymongo.MongoClient[dict[str, object]](uri) as client:
        notes = client.get_default_database()["notes"]
        for id in "ab":
            notes.insert_one({"_id": id, "revision": 1, "body": {}, "unique": {"code": "[1]"}})

    with pytest.raises(ConfigError, match="unique group forbids"):
        await _store(uri).__aenter__()


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("mongodb://h", "mongodb://h/new"),
        ("mongodb://h:1,i:2/", "mongodb://h:1,i:2/new"),
        ("mongodb://h/old?a=b", "mongodb://h/new?a=b"),
        ("mongodb://u:p@h", "mongodb://u:p@h/new?authSource=admin"),
        ("mongodb://u:p@h/old", "mongodb://u:p@h/new?authSource=old"),
        ("mongodb://u:p@h/old?authSource=x", "mongodb://u:p@h/new?authSource=x"),
    ],
)
def test_the_tests_find_a_database_of_their_own(uri: str, expected: str) -> None:
    assert with_database(uri, "new") == expected
