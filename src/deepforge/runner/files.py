"""Reading, hashing and placing files."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Callable, Iterator, Tuple

from deepforge.runner.wire import BLOCK


def no_check() -> None:
    pass


def blocks(path: str, start: int, size_bytes: int) -> Iterator[memoryview]:
    """Give `size_bytes` of a file in blocks that share one buffer: use each before the next.

    A file that is shorter than that raises `OSError`.
    """
    buffer = memoryview(bytearray(max(1, min(BLOCK, size_bytes))))
    with open(path, "rb", buffering=0) as file:
        if start:
            file.seek(start)
        left = size_bytes
        while left:
            count = file.readinto(buffer[: min(left, len(buffer))])
            if not count:
                raise OSError(None, "%s became shorter while it was read" % path)
            left -= count
            yield buffer[:count]


def hash_file(path: str, check: Callable[[], None] = no_check) -> Tuple[int, str]:
    """Return size and digest of a file."""
    size_bytes = os.stat(path).st_size
    sha = hashlib.sha256()
    for block in blocks(path, 0, size_bytes):
        sha.update(block)
        check()
    return size_bytes, digest_text(sha)


def digest_text(sha: Any) -> str:
    return "sha256:" + str(sha.hexdigest())


def beside(path: str) -> str:
    """A name nobody else uses, in the same folder, for what is not complete yet.

    The storage `local` takes files whose names begin like this for no objects.
    """
    name = ".deepforge-%d-%s.part" % (os.getpid(), os.urandom(8).hex())
    return os.path.join(os.path.dirname(path), name)


def place(source: str, target: str, check: Callable[[], None] = no_check) -> Tuple[int, str]:
    """Move a file to where it is granted, all or nothing; return its size and digest.

    Within one file system the file itself moves. It is not forced to the disk: after a power cut
    the last seconds may be missing, which the digest tells.
    """
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.stat(source).st_dev == os.stat(os.path.dirname(target)).st_dev:
        found = hash_file(source, check)
        os.replace(source, target)
        return found
    temporary = beside(target)
    sha = hashlib.sha256()
    size_bytes = os.stat(source).st_size
    try:
        with open(temporary, "wb", buffering=0) as file:
            for block in blocks(source, 0, size_bytes):
                sha.update(block)
                write_all(file, block)
                check()
        os.replace(temporary, target)
    except BaseException:
        discard(temporary)
        raise
    os.remove(source)
    return size_bytes, digest_text(sha)


def write_whole(target: str, data: bytes) -> None:
    """Write a file all or nothing, with its parent folders."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    temporary = beside(target)
    try:
        with open(temporary, "wb", buffering=0) as file:
            write_all(file, memoryview(data))
        os.replace(temporary, target)
    except BaseException:
        discard(temporary)
        raise


def write_all(file: Any, view: memoryview) -> None:
    """Write to an unbuffered file, which may take less than it is given."""
    while len(view):
        view = view[file.write(view) :]


def discard(path: str) -> None:
    """Remove a file if that can be done: what stays is only in the way."""
    try:
        os.remove(path)
    except OSError:
        pass
