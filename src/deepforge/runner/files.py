"""Reading, hashing, placing and removing files."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from typing import Any, Callable, Iterator, List, Tuple

from deepforge.runner.wire import BLOCK

_umask = os.umask(0o077)
os.umask(_umask)
FILE_MODE = 0o666 & ~_umask  # of every file that we make


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


def take_over(path: str) -> os.stat_result:
    """Give a file that the operation wrote the mode of our own files; return its status.

    Until then it has what the operation's umask left, which may keep even us from reading it.
    """
    status = os.stat(path)
    if stat.S_IMODE(status.st_mode) != FILE_MODE:
        os.chmod(path, FILE_MODE)
    return status


def place(source: str, target: str, check: Callable[[], None] = no_check) -> Tuple[int, str]:
    """Move a file to where it is granted, all or nothing; return its size and digest.

    It has the mode of our own files there, whatever it had.
    Within one file system the file itself moves. It is not forced to the disk: after a power cut
    the last seconds may be missing, which the digest tells.
    """
    os.makedirs(os.path.dirname(target), exist_ok=True)
    status = take_over(source)
    if status.st_dev == os.stat(os.path.dirname(target)).st_dev:
        found = hash_file(source, check)
        try:
            os.replace(source, target)
            return found
        except OSError as error:
            if error.errno != errno.EXDEV:  # in containers one file system is mounted twice
                raise
    temporary = beside(target)
    sha = hashlib.sha256()
    size_bytes = status.st_size
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


def remove_tree(path: str) -> None:
    """Remove a folder with all that is in it, however deep it is and whatever modes it has.

    One that is not there is fine. Raises `OSError` for what is not ours to remove.
    """
    import shutil

    try:
        shutil.rmtree(path)
    except (OSError, RecursionError):
        if os.path.lexists(path):
            _flatten(path)


def _flatten(top: str) -> None:
    """Remove a folder by moving what lies deeper up into it, again and again: no path grows long."""
    os.chmod(top, 0o700)
    while True:
        folders = _emptied(top)
        if not folders:
            break
        for folder in folders:
            for inner in _emptied(folder):
                os.rename(inner, beside(folder))
            os.rmdir(folder)
    os.rmdir(top)


def _emptied(folder: str) -> List[str]:
    """Remove all files of a folder and return the folders in it, which can be entered now."""
    folders = []
    with os.scandir(folder) as scan:
        entries = list(scan)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            os.chmod(entry.path, 0o700)
            folders.append(entry.path)
        else:
            os.unlink(entry.path)
    return folders
