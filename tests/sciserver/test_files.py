"""Calls of the file service against the stand-in, and what its words mean."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from deepforge.errors import (
    AlreadyExists,
    DeepForgeError,
    Forbidden,
    InvalidRequest,
    NotFound,
    StorageFull,
    Unavailable,
)
from deepforge.sciserver.files import FileService, NoVolume, error_of
from deepforge.sciserver.hosts import Hosts
from deepforge.sciserver.session import Session
from deepforge.settings import Secret

HOME = "Storage/alice/persistent"


@pytest.fixture
async def files(hosts: Hosts) -> AsyncIterator[FileService]:
    async with Session(hosts, "alice", Secret("wonderland")) as session:
        yield FileService(session)


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def read(files: FileService, path: str) -> bytes | None:
    async with files.read(path) as download:
        if download is None:
            return None
        return b"".join([chunk async for chunk in download.chunks()])


async def test_files_are_written_read_moved_and_removed(files: FileService) -> None:
    await files.write(f"{HOME}/a/one", once(b"content"), 7)
    await files.move(f"{HOME}/a/one", f"{HOME}/b/two %41")
    await files.move(f"{HOME}/b/two %41", f"{HOME}/three", copy=True)

    assert await read(files, f"{HOME}/a/one") is None
    assert b"content" == await read(files, f"{HOME}/b/two %41")
    info = await files.stat(f"{HOME}/three")
    assert info is not None
    assert info.size_bytes == 7
    tree = await files.listing(HOME, whole=True)
    assert tree is not None
    assert tree.folders["b"].files["two %41"].size_bytes == 7
    await files.remove(f"{HOME}/b")
    await files.remove(f"{HOME}/b")
    assert await files.listing(f"{HOME}/b") is None


async def test_nothing_is_replaced_unless_asked(files: FileService) -> None:
    for name in ("one", "two"):
        await files.write(f"{HOME}/{name}", once(name.encode()))

    with pytest.raises(AlreadyExists):
        await files.write(f"{HOME}/one", once(b"other"))
    with pytest.raises(AlreadyExists):
        await files.move(f"{HOME}/two", f"{HOME}/one")
    assert b"one" == await read(files, f"{HOME}/one")
    await files.move(f"{HOME}/two", f"{HOME}/one", replace=True)
    assert b"two" == await read(files, f"{HOME}/one")


@pytest.mark.parametrize("path", ["", "Storage", "Storage/alice", HOME, f"{HOME}/", f"{HOME}//"])
async def test_a_volume_is_never_removed_as_a_whole(files: FileService, path: str) -> None:
    await files.write(f"{HOME}/kept", once(b"x"))

    with pytest.raises(InvalidRequest):
        await files.remove(path)

    assert b"x" == await read(files, f"{HOME}/kept")


async def test_a_volume_that_is_not_there_is_no_empty_folder(files: FileService) -> None:
    for act in (
        files.listing("Storage/alice/none/x"),
        files.stat("Storage/alice/none/x"),
        files.listing("Storage/bob/persistent"),
    ):
        with pytest.raises(NoVolume) as caught:
            await act
        assert "share" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Error when creating 'Storage/alice/v/x'.  File already exists.", AlreadyExists),
        ("Destination directory already exists.", AlreadyExists),
        ("User volume 'x' already exists in root volume 'Storage'", AlreadyExists),
        ("Error when deleting 'x'. It does not exist.", NotFound),
        ("Path does not exist.", NotFound),
        ("Source file or directory does not exist.", NotFound),
        ("Volume does not exist", NoVolume),
        ("Missing required permissions on volume", Forbidden),
        ("Attempted to access a path outside of the requested volume", InvalidRequest),
        ("/srv/x (Is a directory)", InvalidRequest),
        ("/srv/x (Not a directory)", InvalidRequest),
        ("Disk quota exceeded", StorageFull),
        ("No space left on device", StorageFull),
        ("Path variable 'userVolume' was not provided", InvalidRequest),
        ("something that nobody has seen", Unavailable),
    ],
)
def test_only_the_words_tell_what_a_500_means(text: str, kind: type[DeepForgeError]) -> None:
    error = error_of(text, "Storage/alice/v/x")

    assert type(error) is kind
    assert text in error.message
