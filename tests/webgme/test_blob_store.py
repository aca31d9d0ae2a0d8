from __future__ import annotations

import asyncio
import hashlib
import io
import zipfile
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path

import pytest

from deepforge.documents.port import DocumentStore
from deepforge.documents.registry import open_documents
from deepforge.errors import Corrupt, InvalidRequest, NotFound
from deepforge.storage.client import StorageClient
from deepforge.storage.registry import open_storage
from deepforge.webgme import blobs
from deepforge.webgme.blob_store import COLLECTIONS, MOST_LINKS, Blob, BlobStore
from deepforge.webgme.blobs import Entry, Metadata

ABC = hashlib.sha1(b"abc").hexdigest()
JOB = {"executor_config.json": b"{}", "job.json": b"secret"}
JOB_HASH = blobs.metadata_hash(blobs.of_files(blobs.JOB_NAME, JOB))


class Rig:
    """A blob store, and each owner's storage: a folder of their own."""

    def __init__(self, documents: DocumentStore, folder: Path) -> None:
        self.documents = documents
        self.folder = folder
        self.opened: dict[str, StorageClient] = {}
        self.store = BlobStore(documents, self.open, storage="local", job_files=self.job_files)

    async def open(self, name: str, owner: str) -> StorageClient:
        assert name == "local"
        return self.opened[owner]

    async def job_files(self, owner: str, hash: str) -> Mapping[str, bytes]:
        if (owner, hash) != ("ada", JOB_HASH):
            raise NotFound("there is no such job")
        return JOB

    async def add(self, name: str, data: bytes, owner: str = "ada") -> Blob:
        return await self.store.add_file(owner, name, once(data))

    async def link(self, hash: str, name: str = "link") -> Blob:
        return await self.store.add_metadata("ada", Metadata(name, content=hash, kind="softLink"))

    async def artifact(self, **entries: Entry) -> Blob:
        metadata = Metadata("art.zip", content=entries, kind="complex")
        return await self.store.add_metadata("ada", metadata)

    async def read(self, hash: str, path: str = "", *, start: int = 0, owner: str = "ada") -> bytes:
        content = await self.store.open(owner, hash, path)
        async with aclosing(content.read(start)) as chunks:
            data = b"".join([chunk async for chunk in chunks])
        assert content.size_bytes in (None, start + len(data))
        return data

    def objects(self, owner: str = "ada") -> list[Path]:
        return [one for one in (self.folder / owner).rglob("blobs/*") if one.is_file()]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_documents(f"sqlite:///{tmp_path / 'documents.db'}", COLLECTIONS) as documents:
        rig = Rig(documents, tmp_path)
        async with (
            open_storage("local", "local", {"folder": str(tmp_path / "ada")}) as ada,
            open_storage("local", "local", {"folder": str(tmp_path / "bob")}) as bob,
        ):
            rig.opened = {"ada": ada, "bob": bob}
            yield rig


async def test_a_file_is_known_by_the_hash_of_its_metadata(rig: Rig) -> None:
    blob = await rig.add("a.txt", b"abc")

    assert "d9094bde64c3a9506264600b4c7b0f5f25158730" == blob.hash
    assert blob == await rig.store.get("ada", blob.hash)
    assert b"abc" == await rig.read(blob.hash)
    assert b"bc" == await rig.read(blob.hash, start=1)


async def test_equal_bytes_are_kept_once(rig: Rig) -> None:
    first = await rig.add("a.txt", b"abc")
    second = await rig.add("b.txt", b"abc")
    again = await rig.add("a.txt", b"abc")

    assert 1 == len(rig.objects())
    assert first.hash == again.hash != second.hash
    assert first.modified_at < again.modified_at
    assert b"abc" == await rig.read(second.hash)


async def test_many_uploads_of_the_same_file_at_once_leave_one(rig: Rig) -> None:
    added = await asyncio.gather(*(rig.add("a.txt", b"abc" * 1000) for _ in range(10)))

    assert 1 == len({blob.hash for blob in added})
    assert 1 == len(rig.objects())
    assert b"abc" * 1000 == await rig.read(added[0].hash)


async def test_an_upload_that_breaks_leaves_nothing(rig: Rig) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield b"abc"
        raise InvalidRequest("the upload ended before its last byte")

    with pytest.raises(InvalidRequest, match="ended before"):
        await rig.store.add_file("ada", "a.txt", breaks())
    with pytest.raises(NotFound):
        await rig.store.get("ada", "d9094bde64c3a9506264600b4c7b0f5f25158730")

    assert [] == rig.objects()


async def test_a_hash_is_worth_nothing_to_who_did_not_store_it(rig: Rig) -> None:
    """Not even by metadata of one's own that refer to somebody's content or blob."""
    theirs = await rig.add("plans.txt", b"abc", owner="bob")
    by_content = await rig.store.add_metadata("ada", Metadata("a.txt", 3, content=ABC))
    by_link = await rig.link(theirs.hash)
    zipped = await rig.artifact(a=Entry(ABC), b=Entry(theirs.hash, "softLink"))

    with pytest.raises(NotFound, match="who stored them"):
        await rig.store.get("ada", theirs.hash)
    for hash, path in (
        (theirs.hash, ""), (by_content.hash, ""), (by_link.hash, ""),
        (zipped.hash, ""), (zipped.hash, "a"), (zipped.hash, "b"),
    ):  # fmt: skip
        with pytest.raises(NotFound):
            await rig.read(hash, path)
    assert b"abc" == await rig.read(theirs.hash, owner="bob")


async def test_metadata_that_do_not_match_their_content_are_refused(rig: Rig) -> None:
    await rig.add("a.txt", b"abc")

    with pytest.raises(InvalidRequest, match="do not match"):
        await rig.store.add_metadata("ada", Metadata("a.txt", 4, content=ABC))


async def test_an_artifact_gives_its_files_and_all_of_them_zipped(rig: Rig) -> None:
    linked = await rig.add("b.txt", b"linked")
    await rig.add("a.txt", b"abc")
    artifact = await rig.artifact(
        **{"dir/a.txt": Entry(ABC), "b": Entry((await rig.link(linked.hash)).hash, "softLink")}
    )

    assert b"abc" == await rig.read(artifact.hash, "dir/a.txt")
    assert b"linked" == await rig.read(artifact.hash, "b")
    with zipfile.ZipFile(io.BytesIO(await rig.read(artifact.hash))) as archive:
        assert {"b": b"linked", "dir/a.txt": b"abc"} == {
            one: archive.read(one) for one in archive.namelist()
        }
    for path in ("dir", "a.txt", "dir/a.txt/x", "../b"):
        with pytest.raises(NotFound, match="no file"):
            await rig.read(artifact.hash, path)


async def test_an_artifact_that_lacks_a_file_is_not_half_a_zip(rig: Rig) -> None:
    await rig.add("a.txt", b"abc")
    artifact = await rig.artifact(a=Entry(ABC), z=Entry("1" * 40))

    with pytest.raises(NotFound):
        await rig.store.open("ada", artifact.hash)


async def test_links_end_somewhere(rig: Rig) -> None:
    hash = (await rig.add("a.txt", b"abc")).hash
    for number in range(MOST_LINKS):
        hash = (await rig.link(hash, f"link-{number}")).hash
    assert b"abc" == await rig.read(hash)

    with pytest.raises(InvalidRequest, match="soft links"):
        await rig.read((await rig.link(hash, "one too many")).hash)
    nowhere = await rig.store.add_metadata("ada", Metadata("nowhere", kind="softLink"))
    with pytest.raises(NotFound, match="nowhere"):
        await rig.read(nowhere.hash)


async def test_links_within_an_artifact_end_somewhere(rig: Rig) -> None:
    hash = (await rig.add("a.txt", b"abc")).hash
    for number in range(MOST_LINKS + 1):
        hash = (await rig.link(hash, f"link-{number}")).hash
    nowhere = await rig.store.add_metadata("ada", Metadata("nowhere", kind="softLink"))
    artifact = await rig.artifact(
        long=Entry(hash, "softLink"), nowhere=Entry(nowhere.hash, "softLink")
    )

    with pytest.raises(InvalidRequest, match="soft links"):
        await rig.read(artifact.hash, "long")
    with pytest.raises(NotFound, match="no content"):
        await rig.read(artifact.hash, "nowhere")


async def test_an_artifact_of_thousands_of_files_is_zipped(rig: Rig) -> None:
    one = await rig.add("a.txt", b"abc")
    entries = {f"{number:05d}": Entry(one.hash, "softLink") for number in range(2000)}
    artifact = await rig.artifact(**entries)

    with zipfile.ZipFile(io.BytesIO(await rig.read(artifact.hash))) as archive:
        assert sorted(entries) == archive.namelist()
        assert b"abc" == archive.read("01999")


async def test_an_artifact_within_an_artifact_is_refused(rig: Rig) -> None:
    """Zips of zips of zips would make a small request as large as one likes."""
    await rig.add("a.txt", b"abc")
    inner = await rig.artifact(a=Entry(ABC))
    outer = await rig.artifact(inner=Entry(inner.hash, "softLink"))

    with pytest.raises(InvalidRequest, match="within an artifact"):
        await rig.read(outer.hash)


async def test_a_job_that_waits_for_a_worker_is_a_blob_of_its_owner(rig: Rig) -> None:
    blob = await rig.store.get("ada", JOB_HASH)

    assert set(JOB) == set(blob.metadata.entries)
    assert JOB["job.json"] == await rig.read(JOB_HASH, "job.json")
    with zipfile.ZipFile(io.BytesIO(await rig.read(JOB_HASH))) as archive:
        assert set(JOB) == set(archive.namelist())
    with pytest.raises(NotFound, match="no file"):
        await rig.read(JOB_HASH, "other")
    with pytest.raises(NotFound):
        await rig.store.get("bob", JOB_HASH)
    assert [] == rig.objects()


async def test_content_that_was_lost_comes_back_with_the_next_upload(rig: Rig) -> None:
    blob = await rig.add("a.txt", b"abc")
    rig.objects()[0].unlink()
    with pytest.raises(NotFound):
        await rig.read(blob.hash)

    await rig.add("other.txt", b"abc")

    assert b"abc" == await rig.read(blob.hash)


async def test_content_that_was_changed_is_noticed(rig: Rig) -> None:
    blob = await rig.add("a.txt", b"abc")
    (path,) = rig.objects()
    path.chmod(0o600)
    path.write_bytes(b"abd")

    with pytest.raises(Corrupt):
        await rig.read(blob.hash)


@pytest.mark.parametrize("name", ["\ud800", "a" * 5000])
async def test_a_name_that_is_no_text_is_refused_before_anything_is_stored(
    name: str, rig: Rig
) -> None:
    with pytest.raises(InvalidRequest):
        await rig.add(name, b"abc")

    assert [] == rig.objects()


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data
