"""The project as one object: equal files are equal bytes, stored once."""

from __future__ import annotations

import io
import time
import zipfile

import pytest

from deepforge.connections.store import LOCAL_OWNER
from deepforge.errors import Unavailable
from deepforge.execution.bundle import Bundles, pack
from deepforge.ids import digest, utc_now
from deepforge.projects.objects import TreeEntry
from deepforge.storage.client import StorageClient
from deepforge.storage.memory import MemoryAdapter, MemorySettings
from deepforge.storage.retry import Retry
from deepforge.testing.faults import FaultyStorage
from execution.rig import Rig

FILES = {"pipelines/a.py": b"x = 1\n", "a name with \xc3\xbc.txt": b"", "deep/er/b.bin": bytes(9)}


def faulty(shelf: str) -> tuple[FaultyStorage, StorageClient]:
    adapter = FaultyStorage(MemoryAdapter(MemorySettings(shelf)))
    return adapter, StorageClient(adapter, shelf, retry=Retry(attempts=1))


def test_equal_files_are_equal_bytes_whatever_the_order_and_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = pack(FILES)
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(2_000_000_000))
    again = pack(dict(reversed(FILES.items())))

    assert first == again
    assert pack({**FILES, "c": b""}) != first


def test_what_is_packed_comes_out_again() -> None:
    with zipfile.ZipFile(io.BytesIO(pack(FILES))) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}

    assert found == FILES


async def test_a_bundle_lies_under_its_digest_and_is_put_once(rig: Rig) -> None:
    adapter, storage = faulty("once")
    project = await rig.record()
    commit = await rig.history.head(project)
    assert commit is not None
    bundles = Bundles(rig.history)

    first = await bundles.put(storage, project, commit)
    again = await bundles.put(storage, project, commit)
    other_process = await Bundles(rig.history).put(storage, project, commit)
    data = await storage.get_bytes(first.key, limit_bytes=10**6)

    assert first == again == other_process
    assert adapter.calls.count("put") == 1
    assert (first.digest, first.size_bytes) == (digest(data), len(data))
    assert first.digest.removeprefix("sha256:") in first.key


async def test_a_bundle_that_could_not_be_put_is_put_the_next_time(rig: Rig) -> None:
    adapter, storage = faulty("next-time")
    project = await rig.record()
    commit = await rig.history.head(project)
    assert commit is not None
    bundles = Bundles(rig.history)
    adapter.fail("put", Unavailable("down"))

    with pytest.raises(Unavailable):
        await bundles.put(storage, project, commit)
    bundle = await bundles.put(storage, project, commit)

    assert (await storage.stat(bundle.key)).size_bytes == bundle.size_bytes


async def test_half_a_bundle_is_replaced(rig: Rig) -> None:
    adapter, storage = faulty("half")
    project = await rig.record()
    commit = await rig.history.head(project)
    assert commit is not None
    bundle = await Bundles(rig.history).put(storage, project, commit)
    await storage.put_bytes(bundle.key, b"cut short")

    await Bundles(rig.history).put(storage, project, commit)

    assert (await storage.stat(bundle.key)).size_bytes == bundle.size_bytes
    assert adapter.calls.count("put") == 3


async def test_a_storage_that_was_emptied_gets_it_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, storage = faulty("emptied")
    project = await rig.record()
    commit = await rig.history.head(project)
    assert commit is not None
    bundles = Bundles(rig.history)
    bundle = await bundles.put(storage, project, commit)
    await storage.delete([bundle.key])
    monkeypatch.setattr("deepforge.execution.bundle.TRUSTED_S", 0.0)

    await bundles.put(storage, project, commit)

    assert (await storage.stat(bundle.key)).size_bytes == bundle.size_bytes


async def test_another_storage_of_the_same_name_gets_its_own(rig: Rig) -> None:
    """A storage may be removed and added again with another bucket."""
    project = await rig.record()
    commit = await rig.history.head(project)
    assert commit is not None
    bundles = Bundles(rig.history)
    for shelf in ("before", "afterwards"):
        storage = StorageClient(MemoryAdapter(MemorySettings(shelf)), "lab")
        bundle = await bundles.put(storage, project, commit)

        assert (await storage.stat(bundle.key)).size_bytes == bundle.size_bytes


async def test_files_that_git_calls_executable_are_so_in_the_bundle(rig: Rig) -> None:
    project = (await rig.projects.create_or_get(LOCAL_OWNER, "trial")).id
    (sha,) = await rig.history.put_blobs(project, [b"#!/bin/sh\n"])
    commit = await rig.history.commit(
        project,
        {"run.sh": TreeEntry(sha, executable=True), "text": TreeEntry(sha)},
        message="m",
        author="a",
        when=utc_now(),
        parent=None,
    )
    _, storage = faulty("modes")
    bundle = await Bundles(rig.history).put(storage, project, commit)
    data = await storage.get_bytes(bundle.key, limit_bytes=10**6)

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        modes = {one.filename: one.external_attr >> 16 for one in archive.infolist()}
    assert modes == {"run.sh": 0o755, "text": 0o644}
