from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deepforge.connections.open import Opener
from deepforge.connections.secrets import SecretBox
from deepforge.connections.store import Connections
from deepforge.documents.port import DocumentStore
from deepforge.errors import ConfigError, NotFound


@pytest.fixture
def connections(documents: DocumentStore, box: SecretBox, tmp_path: Path) -> Connections:
    async def anybody(owner: str) -> bool:
        return True

    home = tmp_path / "home"
    return Connections(documents, box, home=home, environ={}, may_use_server=anybody)


@pytest.fixture
async def opener(connections: Connections, tmp_path: Path) -> AsyncIterator[Opener]:
    async with Opener(connections, computes=tmp_path / "computes") as opened:
        yield opened


async def test_the_default_storage_works_at_once(opener: Opener, tmp_path: Path) -> None:
    storage = await opener.storage("local")

    await storage.put_bytes("a/b", b"content")

    assert storage.name == "local"
    assert (tmp_path / "home" / "storage").is_dir()
    assert await (await opener.storage("local")).get_bytes("a/b", limit_bytes=99) == b"content"


async def test_a_storage_is_opened_once_however_many_ask(
    opener: Opener, connections: Connections
) -> None:
    await connections.add("storage", "lab", "memory", {"shelf": "once"}, owner="local")

    opened = await asyncio.gather(*(opener.storage("lab") for _ in range(20)))

    assert len({id(one) for one in opened}) == 1


async def test_a_storage_removed_and_added_again_is_another_one(
    opener: Opener, connections: Connections
) -> None:
    await connections.add("storage", "lab", "memory", {"shelf": "first"}, owner="local")
    first = await opener.storage("lab")
    await first.put_bytes("key", b"in the first")

    await connections.remove("storage", "lab", owner="local")
    with pytest.raises(NotFound, match="there is no storage 'lab'"):
        await opener.storage("lab")
    await connections.add("storage", "lab", "memory", {"shelf": "second"}, owner="local")
    second = await opener.storage("lab")

    with pytest.raises(NotFound):
        await second.get_bytes("key", limit_bytes=99)
    assert await first.get_bytes("key", limit_bytes=99) == b"in the first"  # nobody was cut off


async def test_owners_have_storages_of_their_own(opener: Opener, connections: Connections) -> None:
    await connections.add("storage", "lab", "memory", {"shelf": "of ada"}, owner="ada")
    await connections.add("storage", "lab", "memory", {"shelf": "of bob"}, owner="bob")
    await (await opener.storage("lab", owner="ada")).put_bytes("key", b"ada's")

    with pytest.raises(NotFound):
        await (await opener.storage("lab", owner="bob")).get_bytes("key", limit_bytes=99)
    with pytest.raises(NotFound, match="there is no storage 'lab'"):
        await opener.storage("lab")


async def test_the_default_storages_of_two_users_never_meet(opener: Opener) -> None:
    for owner in ("ada", "bob", "local"):
        storage = await opener.storage("local", owner=owner)
        await storage.put_bytes("artifacts/same", owner.encode())

    for owner in ("ada", "bob", "local"):
        storage = await opener.storage("local", owner=owner)
        assert await storage.get_bytes("artifacts/same", limit_bytes=99) == owner.encode()
        assert [one.key async for one in storage.list("")] == ["artifacts/same"]


async def test_a_failure_to_open_is_not_kept(
    documents: DocumentStore, connections: Connections, tmp_path: Path
) -> None:
    """The key file comes back, and the same opener goes on."""
    settings = {"endpoint_url": "http://127.0.0.1:9", "bucket": "lab-data", "access_key_id": "a"}
    await connections.add(
        "storage", "lab", "s3", {**settings, "secret_access_key": "s3cret"}, owner="local"
    )
    key = tmp_path / "secret.key"
    kept = key.read_bytes()
    key.chmod(0o644)
    later = Connections(documents, SecretBox(key, {}), home=tmp_path / "home", environ={})

    async with Opener(later, computes=tmp_path / "computes") as opener:
        with pytest.raises(ConfigError, match="can be used by others"):
            await opener.storage("lab")
        key.chmod(0o600)
        assert (await opener.storage("lab")).name == "lab"

    assert kept == key.read_bytes()


async def test_each_compute_keeps_its_own_folder(
    opener: Opener, connections: Connections, tmp_path: Path
) -> None:
    added = await connections.add("compute", "trial", "memory", {}, owner="local")

    compute = await opener.compute("trial")

    assert compute.name == "trial"
    assert compute is await opener.compute("trial")
    folder = tmp_path / "computes" / added.id
    assert folder.stat().st_mode & 0o777 == 0o700
    assert compute.adapter.host.folder == folder
    server = await opener.compute("server")
    assert server.adapter.host.folder == tmp_path / "computes" / "server"


async def test_what_the_environment_defines_runs_for_whoever_asks(
    documents: DocumentStore, box: SecretBox, tmp_path: Path
) -> None:
    """Jobs for workers must wait in the queue of their own user, who was not the first to ask."""
    defined = Connections(
        documents,
        box,
        home=tmp_path / "home",
        environ={"DEEPFORGE_COMPUTE_BOX__ADAPTER": "worker"},
    )
    async with Opener(defined, computes=tmp_path / "computes") as opener:
        opened = [await opener.compute("box", owner=owner) for owner in ("ada", "bob", "ada")]
        shared = [await opener.compute("server", owner=owner) for owner in ("ada", "bob")]

    assert ["ada", "bob", "ada"] == [one.adapter.host.owner for one in opened]
    assert opened[0] is opened[2]
    assert shared[0] is shared[1]  # its slots are the machine's


async def test_a_compute_without_room_for_its_folder_says_so(
    connections: Connections, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()

    async with Opener(connections, computes=tmp_path / "file") as opener:
        with pytest.raises(ConfigError, match="file/server cannot be made"):
            await opener.compute("server")


async def test_leaving_closes_what_was_opened(connections: Connections, tmp_path: Path) -> None:
    await connections.add("compute", "trial", "memory", {}, owner="local")
    closed: list[str] = []
    async with Opener(connections, computes=tmp_path / "computes") as opener:
        adapter = (await opener.compute("trial")).adapter
        leave = adapter.__aexit__

        async def noted(*exception: object) -> None:
            closed.append("trial")
            await leave(*exception)

        adapter.__aexit__ = noted  # type: ignore[method-assign]
        assert closed == []
    assert closed == ["trial"]


async def test_a_discarded_compute_is_closed_and_its_folder_is_gone(
    opener: Opener, connections: Connections, tmp_path: Path
) -> None:
    added = await connections.add("compute", "trial", "memory", {}, owner="local")
    folder = tmp_path / "computes" / added.id
    await opener.discard(added)  # one that was never opened
    adapter = (await opener.compute("trial")).adapter
    closed: list[bool] = []

    async def leave(*_: object) -> None:
        closed.append(folder.exists())

    adapter.__aexit__ = leave  # type: ignore[method-assign]
    await connections.remove("compute", "trial", owner="local")
    for _ in range(2):
        await opener.discard(added)

    assert closed == [True]
    assert list((tmp_path / "computes").iterdir()) == []
