from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deepforge.errors import AlreadyExists, ConfigError, NotFound, StorageFull
from deepforge.machine import machine_space
from deepforge.storage.client import StorageClient
from deepforge.storage.folder import Folder
from deepforge.storage.local import LocalAdapter, LocalSettings
from deepforge.storage.registry import open_storage
from deepforge.testing.storage import StorageContract
from deepforge.testing.storage_exam import Opener, stream


class TestLocal(StorageContract):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return lambda: LocalAdapter(LocalSettings(str(tmp_path)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "storage"


@pytest.fixture
async def client(folder: Path) -> AsyncIterator[StorageClient]:
    async with open_storage("here", "local", {"folder": str(folder)}) as client:
        yield client


async def keys(client: StorageClient, prefix: str = "") -> list[str]:
    return [info.key async for info in client.list(prefix)]


def files(folder: Path) -> set[str]:
    """Every file that holds data."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return found - {".deepforge/lock"}


async def test_ordinary_keys_are_plain_paths(client: StorageClient, folder: Path) -> None:
    for key in ("executions/e1/train/1/outputs/model", "data/2026-11/run 3.csv", "ünï/😀"):
        await client.put_bytes(key, key.encode())

        assert (folder / key).read_text() == key


async def test_files_that_others_put_there_are_objects(client: StorageClient, folder: Path) -> None:
    names = ["plain", "v1.2/x.csv", "when 12:30?.txt", "dot.", "w" * 250]
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)

    assert await keys(client) == sorted(names)
    for name in names:
        assert await client.get_bytes(name, limit_bytes=1000) == name.encode()
        grant = await client.grant(name, "GET", expires_s=1)
        assert grant.path == str(folder / name)
        await client.put_bytes(name, b"new")
        assert (folder / name).read_text() == "new"
    await client.delete(names)
    assert files(folder) == set()


async def test_names_that_are_not_keys_are_no_objects(client: StorageClient, folder: Path) -> None:
    for name in (b"new\nline", b"back\\slash", b"not utf-8 \xff", "e\u0301".encode()):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"")
    (folder / ".deepforge-draft").write_bytes(b"somebody is still writing this")
    os.mkfifo(folder / "pipe")

    assert await keys(client) == []
    with pytest.raises(NotFound):
        await client.get_bytes("pipe", limit_bytes=1)


async def test_very_long_names_work(client: StorageClient, folder: Path) -> None:
    long = ["w" * 900, "x/" * 449 + "x", "日" * 300, "A" * 300 + "/" + "a" * 300, "😀" * 225]
    for key in long:
        await client.put_bytes(key, key.encode())

    assert await keys(client) == sorted(long)
    for key in long:
        assert await client.get_bytes(key, limit_bytes=1000) == key.encode()
    await client.delete(long)
    assert files(folder) == set()


async def test_our_own_names_are_keys_like_others(client: StorageClient, folder: Path) -> None:
    own = [".deepforge/lock", ".deepforge/objects/a=", ".DeepForge", "a/.deepforge-x"]
    for key in own:
        await client.put_bytes(key, key.encode())

    assert await keys(client) == sorted(own)
    for key in own:
        assert await client.get_bytes(key, limit_bytes=100) == key.encode()


async def test_an_object_stays_where_it_is_while_its_neighbours_change(
    client: StorageClient,
) -> None:
    await client.put_bytes("a/b", b"1")
    await client.put_bytes("a", b"aside")
    await client.delete(["a/b"])
    await client.put_bytes("a", b"replaced")

    assert await client.get_bytes("a", limit_bytes=10) == b"replaced"
    assert await keys(client) == ["a"]
    with pytest.raises(AlreadyExists):
        await client.put_bytes("a", b"", only_if_absent=True)
    await client.delete(["a"])
    assert await keys(client) == []
    with pytest.raises(NotFound):
        await client.stat("a")


async def test_no_key_leads_out_of_the_folder(
    client: StorageClient, folder: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (folder / "link").symlink_to(outside)
    (folder / "file").symlink_to(outside / "secret")

    for key in ("link/secret", "file"):
        with pytest.raises(NotFound):
            await client.get_bytes(key, limit_bytes=10)
        await client.put_bytes(key, b"ours")
        grant = await client.grant(key, "PUT", expires_s=1)
        assert grant.path is not None
        assert not grant.path.startswith(str(folder / "link"))
        assert await client.get_bytes(key, limit_bytes=10) == b"ours"
        await client.delete([key])
    await client.put_bytes("link/new/deep", b"ours")

    assert await keys(client) == ["link/new/deep"]
    assert {one.name: one.read_text() for one in outside.iterdir()} == {"secret": "secret"}
    assert (folder / "link").is_symlink()


async def test_a_grant_of_a_taken_place_names_another(client: StorageClient) -> None:
    await client.put_bytes("a", b"1")

    below = await client.grant("a/b", "PUT", expires_s=1)

    assert below.path is not None
    Path(below.path).write_bytes(b"2")
    assert await client.get_bytes("a/b", limit_bytes=10) == b"2"
    assert await client.get_bytes("a", limit_bytes=10) == b"1"


async def test_empty_folders_go_with_their_last_object(client: StorageClient, folder: Path) -> None:
    await client.put_bytes("a/b/c", b"")
    await client.put_bytes("a/d", b"")

    await client.delete(["a/b/c"])

    assert sorted(one.name for one in (folder / "a").iterdir()) == ["d"]
    await client.delete(["a/d"])
    assert not (folder / "a").exists()
    assert folder.exists()


async def test_writers_and_cleaners_of_one_folder_do_not_disturb_each_other(
    client: StorageClient,
) -> None:
    async def use(number: int) -> None:
        for turn in range(15):
            ref = await client.put_bytes(f"shared/folder/{number}", str(turn).encode())
            assert await client.get_bytes(ref, limit_bytes=10) == str(turn).encode()
            await client.delete([ref.key])

    await asyncio.gather(*(use(number) for number in range(8)))


async def test_what_a_reader_opened_stays_as_it_was(client: StorageClient) -> None:
    ref = await client.put_bytes("key", b"x" * 10_000_000)
    chunks = client.get_stream(ref)
    first = await anext(chunks)
    await client.put_bytes("key", b"y")

    rest = b"".join([chunk async for chunk in chunks])

    assert first + rest == b"x" * 10_000_000


async def test_its_files_are_those_of_this_machine(client: StorageClient) -> None:
    assert client.file_space == machine_space()


@pytest.mark.parametrize("wrong", ["relative/folder", "", "\x01\0"])
async def test_a_folder_must_be_a_full_path(wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        async with open_storage("here", "local", {"folder": wrong}):
            pass

    assert "folder" in caught.value.fields


async def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")

    for wrong in (path, path / "below"):
        with pytest.raises(ConfigError) as caught:
            async with open_storage("here", "local", {"folder": str(wrong)}):
                pass
        assert "folder" in caught.value.fields


async def test_a_full_disk_is_said_and_leaves_nothing(
    client: StorageClient, folder: Path, tmp_path: Path
) -> None:
    """A limit on the size of files stands for the full disk; it holds for this process alone."""
    await client.put_bytes("key", b"former")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000_000, hard))
    try:
        for data in (bytes(10_000_000), bytes(30_000_000)):
            with pytest.raises(StorageFull, match="no room for folder"):
                await client.put_bytes("key", data)
            with pytest.raises(StorageFull):
                await client.put_stream("new", stream([data]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert await client.get_bytes("key", limit_bytes=10) == b"former"
    assert await keys(client) == ["key"]
    assert files(folder) == {"key"}

    ref = await client.put_bytes("large", bytes(10_000_000))
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000_000, hard))
    try:
        with pytest.raises(StorageFull, match="no room for file"):
            await client.get_file(ref, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "out").exists()


async def test_a_killed_writer_leaves_nothing_that_is_seen(
    client: StorageClient, folder: Path
) -> None:
    await client.put_bytes("key", b"former")
    code = """
import asyncio, sys
from deepforge.storage.registry import open_storage
async def endless():
    while True:
        yield bytes(8_000_000)
        print("wrote", flush=True)
        await asyncio.sleep(0.01)
async def main():
    async with open_storage("here", "local", {"folder": sys.argv[1]}) as client:
        await client.put_stream("key", endless())
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(folder), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    for _ in range(3):
        assert await process.stdout.readline() == b"wrote\n"
    process.kill()
    await process.wait()

    assert await client.get_bytes("key", limit_bytes=10) == b"former"
    assert await keys(client) == ["key"]
    drafts = list((folder / ".deepforge" / "drafts").iterdir())
    assert len(drafts) == 1

    Folder(str(folder))
    assert drafts[0].exists()  # it may still be written, by another process
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(drafts[0], (two_days_ago, two_days_ago))
    Folder(str(folder))
    assert not drafts[0].exists()


async def test_of_several_processes_one_makes_the_object(folder: Path) -> None:
    code = """
import asyncio, sys
from deepforge.errors import AlreadyExists
from deepforge.storage.registry import open_storage
async def main():
    async with open_storage("here", "local", {"folder": sys.argv[1]}) as client:
        input()
        won = []
        for number in range(30):
            try:
                await client.put_bytes(f"a/b/{number}", sys.argv[2].encode(), only_if_absent=True)
                won.append(number)
            except AlreadyExists:
                pass
        print(*won)
asyncio.run(main())
"""
    pipe = subprocess.PIPE
    command = (sys.executable, "-c", code, str(folder))
    processes = [
        await asyncio.create_subprocess_exec(*command, name, stdin=pipe, stdout=pipe)
        for name in "abc"
    ]
    results = await asyncio.gather(*(process.communicate(b"\n") for process in processes))

    won = sorted(int(number) for output, _ in results for number in output.split())
    assert won == list(range(30))


async def test_a_file_system_that_folds_names_keeps_alike_keys_apart(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only pretended: what such a folder needs is that nothing with capitals is a plain path."""
    opened = Folder(str(folder))
    monkeypatch.setattr(opened, "_folds_names", True)

    assert opened.place("plain/key") == f"{folder}/plain/key"
    for key in ("Plain/key", "plain/Key", "plain.", "a:b"):
        place = opened.place(key)
        assert place.startswith(f"{folder}/.deepforge/objects/")
        assert place.lower() == place or str(folder).lower() != str(folder)
    assert opened.place("Plain/key").lower() != opened.place("plain/Key").lower()
