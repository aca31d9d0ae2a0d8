from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import sys
import termios
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from deepforge.errors import DeepForgeError, Forbidden, NotFound, StorageFull, Unavailable
from deepforge.storage.streams import (
    BLOCK_BYTES,
    Digest,
    blocks,
    from_os_error,
    part_of,
    read_blocks,
    read_small,
    slices,
)


async def give(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([], []),
        ([b""], []),
        ([b"a", b"", b"bc"], [b"abc"]),
        ([b"abcd"], [b"abcd"]),
        ([b"abcde", b"fgh"], [b"abcd", b"efgh"]),
        ([b"a", b"bcdefghij", b"k"], [b"abcd", b"efgh", b"ijk"]),
        ([b"abcd", b"efgh", b"i"], [b"abcd", b"efgh", b"i"]),
    ],
)
async def test_blocks_have_one_size_but_for_the_last(
    chunks: list[bytes], expected: list[bytes]
) -> None:
    assert [block async for block in blocks(give(*chunks), 4)] == expected


async def test_a_chunk_of_the_right_size_is_not_copied() -> None:
    chunk = bytes(4)

    assert await anext(blocks(give(chunk), 4)) is chunk


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1])
async def test_files_and_bytes_are_streams_of_blocks(size: int, tmp_path: Path) -> None:
    data = bytes(size)
    path = tmp_path / "file"
    path.write_bytes(data)

    for stream in (slices(data), read_blocks(path)):
        found = [block async for block in stream]

        assert b"".join(found) == data
        assert all(0 < len(block) <= BLOCK_BYTES for block in found)


async def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="missing"):
        await anext(read_blocks(tmp_path / "missing"))
    with pytest.raises(Unavailable, match="directory"):
        await anext(read_blocks(tmp_path))


async def test_a_digest_counts_and_hashes_small_and_large_chunks() -> None:
    chunks = [b"small", b"x" * 1_000_000, b"", b"y" * 300_000, b"end"]
    digest = Digest()

    for chunk in chunks:
        await digest.feed(chunk)

    data = b"".join(chunks)
    assert digest.size_bytes == len(data)
    assert await digest.result() == "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EFBIG, StorageFull),
        (errno.ENOENT, NotFound),
        (errno.EACCES, Forbidden),
        (errno.EROFS, Forbidden),
        (errno.EIO, Unavailable),
    ],
)
def test_what_the_system_says_becomes_one_of_our_errors(
    code: int, kind: type[DeepForgeError]
) -> None:
    error = from_os_error(OSError(code, "the reason"), "folder '/data'")

    assert type(error) is kind
    assert "folder '/data'" in error.message


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, None), (0, 0), (0, 3), (1, 4), (3, 6), (4, None), (8, 20), (9, None), (5, 2)],
)
async def test_a_part_of_a_stream_is_that_of_its_bytes(start: int, end: int | None) -> None:
    async def chunks() -> AsyncGenerator[bytes, None]:
        for chunk in (b"abc", b"", b"d", b"efghi"):
            yield chunk

    found = [chunk async for chunk in part_of(chunks(), start, end)]

    assert b"abcdefghi"[start:end] == b"".join(found)
    assert b"" not in found


async def test_another_hash_is_named_by_its_algorithm() -> None:
    digest = Digest("sha1")
    await digest.feed(b"abc")

    assert "sha1:" + hashlib.sha1(b"abc").hexdigest() == await digest.result()


@pytest.mark.parametrize("size_bytes", [0, 1, 99, 100])
def test_a_small_file_is_read_whole(tmp_path: Path, size_bytes: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * size_bytes)

    assert read_small(path, 100) == b"x" * size_bytes


def test_a_larger_file_is_left_to_others(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 101)

    assert read_small(path, 100) is None


def test_what_comes_in_pieces_is_read_to_its_end(tmp_path: Path) -> None:
    """As a pipe does, and some file systems."""
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            for piece in (b"one ", b"two"):
                pipe.write(piece)
                deadline = time.monotonic() + 10
                while pending(pipe.fileno()) and time.monotonic() < deadline:
                    time.sleep(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert read_small(path, 100) == b"one two"
    finally:
        writer.join()


def pending(pipe: int) -> int:
    """How many bytes nobody has read yet."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
