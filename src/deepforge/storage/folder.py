"""Where in a folder an object lies: the layout of the local storage, and the system calls on it.

An object whose key is an ordinary path is the file of that path, and any regular file of the folder
is an object, so people and programs that know nothing of us can read and add data. What cannot lie
there (`a` when there is `a/b`, names that file systems refuse or change) lies *aside*: escaped, under
`.deepforge/objects`. An object stays where it is until it is deleted.

Symbolic links are not followed, so no key leads out of the folder.
"""

# ruff: noqa: PTH102, PTH103, PTH105, PTH106, PTH108, PTH110, PTH120
# The line above: thousands of small objects a second, so plain system calls on text.

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from heapq import merge
from itertools import groupby

from deepforge.errors import AlreadyExists, Conflict
from deepforge.ids import new_id, timestamp
from deepforge.storage.aside import escape, unescape
from deepforge.storage.keys import is_key
from deepforge.storage.port import ObjectInfo

OWN_NAME = ".deepforge"
"""Our folder. Names that begin so are never objects: `.deepforge-…` is a draft of a writer."""

_STALE_AFTER_S = 24 * 3600
_LONGEST_NAME_BYTES = 110  # of 143 on encrypting file systems; a writer's draft beside needs some
_UNUSUAL = re.compile(r'[:*?"<>|]|[. ](/|$)')  # refused or changed by some file systems
_OWN = re.compile(r"(^|/)\.deepforge", re.IGNORECASE)


class Folder:
    """The blocking half of the local storage. Raises `OSError` as the system does.

    On a file system that does not tell `A` from `a`, keys with capitals always lie aside.
    """

    def __init__(self, root: str) -> None:
        """Make the folder if it is not there; remove drafts that a crash left behind."""
        os.makedirs(root, exist_ok=True)
        self.root = os.path.realpath(root)
        self._drafts = f"{self.root}/{OWN_NAME}/drafts"
        self._aside = f"{self.root}/{OWN_NAME}/objects"
        os.makedirs(self._drafts, exist_ok=True)
        os.makedirs(self._aside, exist_ok=True)
        self._folds_names = os.path.exists(f"{self.root}/{OWN_NAME.upper()}")
        self._remove_stale_drafts()

    def new_draft(self) -> str:
        """A path for a new file, on the same file system."""
        return f"{self._drafts}/{new_id()}"

    def find(self, key: str) -> tuple[str, os.stat_result] | None:
        """Where the object lies, or None if there is no such object."""
        for start, path in self._read_places(key):
            found = _regular(start, path)
            if found is not None:
                return f"{start}/{path}", found
        return None

    def place(self, key: str) -> str:
        """Where the object lies or, if there is none, where it would be put just now."""
        found = self.find(key)
        if found is not None:
            return found[0]
        for start, path in self._write_places(key):
            if _is_free(start, path):
                return f"{start}/{path}"
        raise self._no_place(key)

    def publish(self, draft: str, key: str, *, only_if_absent: bool) -> ObjectInfo:
        """Make a written draft the object, at once for everybody and to last.

        Raises `AlreadyExists` with `only_if_absent`; the draft is gone afterwards only on success.
        """
        with self._lock():
            found = self.find(key)
            if found is not None and only_if_absent:
                raise _exists(key)
            target = found[0] if found is not None else self._make_place(key)
            info = info_of(key, os.lstat(draft))
            if only_if_absent:
                _link(draft, target, key)
            else:
                os.replace(draft, target)
        _sync_folder(os.path.dirname(target))
        return info

    def remove(self, key: str) -> None:
        """Remove the object if it is there, and folders that become empty."""
        with self._lock():
            for start, path in reversed(list(self._read_places(key))):
                # aside first: a reader must not meet an older object behind the one removed
                if _regular(start, path) is None:
                    continue
                os.unlink(f"{start}/{path}")
                while path := os.path.dirname(path):
                    try:
                        os.rmdir(f"{start}/{path}")
                    except OSError:  # not empty
                        break

    def walk(self, prefix: str, after: str | None) -> Iterator[ObjectInfo]:
        """Every object, as the port's `list` wants them."""
        plain = self._walk_plain(self.root, "", prefix, after)
        aside = iter(sorted(self._walk_aside(prefix, after), key=_key_of))
        for _, same in groupby(merge(plain, aside, key=_key_of), key=_key_of):
            yield next(same)

    def _read_places(self, key: str) -> Iterator[tuple[str, str]]:
        """Where an object may lie, as (folder, path in it), in the order readers look."""
        if self._reads(key):
            yield self.root, key
        yield self._aside, escape(key)

    def _reads(self, key: str) -> bool:
        """Whether the file of that path is the object."""
        return (
            is_key(key) and not _OWN.search(key) and (not self._folds_names or self._is_usual(key))
        )

    def _write_places(self, key: str) -> Iterator[tuple[str, str]]:
        """Where a new object may be put, the best place first."""
        if self._is_usual(key):
            yield self.root, key
        yield self._aside, escape(key)

    def _is_usual(self, key: str) -> bool:
        return (
            not _UNUSUAL.search(key)
            and not _OWN.search(key)
            and not (self._folds_names and key != key.lower())
            and all(len(part.encode()) <= _LONGEST_NAME_BYTES for part in key.split("/"))
        )

    def _make_place(self, key: str) -> str:
        for start, path in self._write_places(key):
            if _make_folders(start, os.path.dirname(path)) and _is_free(start, path):
                return f"{start}/{path}"
        raise self._no_place(key)

    def _no_place(self, key: str) -> Conflict:
        return Conflict(
            f"there is no place for object {key!r} in {self.root!r}",
            hint=f"something that is not ours lies in {self._aside!r}",
        )

    def _walk_plain(
        self, folder: str, start: str, prefix: str, after: str | None
    ) -> Iterator[ObjectInfo]:
        for name, entry in _entries(folder):
            key = start + name
            if name.endswith("/"):
                below = key.startswith(prefix) or prefix.startswith(key)
                if below and (after is None or after < key or after.startswith(key)):
                    yield from self._walk_plain(entry.path, key, prefix, after)
            elif key.startswith(prefix) and (after is None or key > after) and self._reads(key):
                with suppress(FileNotFoundError):
                    yield info_of(key, entry.stat(follow_symlinks=False))

    def _walk_aside(self, prefix: str, after: str | None) -> Iterator[ObjectInfo]:
        for folder, _, names in os.walk(self._aside):
            for name in names:
                path = f"{folder}/{name}"
                key = unescape(path[len(self._aside) + 1 :])
                if key is not None and key.startswith(prefix) and (after is None or key > after):
                    with suppress(FileNotFoundError):
                        yield info_of(key, os.lstat(path))

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the folder against other processes and threads while names change."""
        file = os.open(f"{self.root}/{OWN_NAME}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)

    def _remove_stale_drafts(self) -> None:
        with os.scandir(self._drafts) as entries:
            for entry in entries:
                with suppress(OSError):  # a disk that cannot be written can be read all the same
                    if entry.stat(follow_symlinks=False).st_mtime < time.time() - _STALE_AFTER_S:
                        os.unlink(entry.path)


def info_of(key: str, status: os.stat_result) -> ObjectInfo:
    etag = f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"
    return ObjectInfo(key, status.st_size, timestamp(status.st_mtime), etag)


def _regular(start: str, path: str) -> os.stat_result | None:
    """The file's status if it is a regular one and only real folders lead to it."""
    try:
        status = os.lstat(f"{start}/{path}")
        if not stat.S_ISREG(status.st_mode):
            return None
        reached = start
        for part in path.split("/")[:-1]:
            reached = f"{reached}/{part}"
            if not stat.S_ISDIR(os.lstat(reached).st_mode):
                return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise
    return status


def _is_free(start: str, path: str) -> bool:
    """Whether a new file could be made there, as things are."""
    reached = start
    *folders, name = path.split("/")
    for part in folders:
        reached = f"{reached}/{part}"
        try:
            if not stat.S_ISDIR(os.lstat(reached).st_mode):
                return False
        except FileNotFoundError:
            return True
    return not os.path.lexists(f"{reached}/{name}")


def _make_folders(start: str, path: str) -> bool:
    """Make the folders on the way, to last; False if something else is in the way."""
    reached = start
    for part in path.split("/") if path else ():
        parent, reached = reached, f"{reached}/{part}"
        try:
            os.mkdir(reached)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(reached).st_mode):
                return False
        else:
            _sync_folder(parent)
    return True


def _link(draft: str, target: str, key: str) -> None:
    """Give the draft its name unless that is taken, by a writer without our lock too."""
    try:
        os.link(draft, target)
    except FileExistsError:
        raise _exists(key) from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP):
            raise
        os.replace(draft, target)  # no hard links here: among ourselves the lock is enough
    else:
        os.unlink(draft)


def _exists(key: str) -> AlreadyExists:
    return AlreadyExists(f"there is an object {key!r} already")


def _sync_folder(path: str) -> None:
    file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _entries(folder: str) -> list[tuple[str, os.DirEntry[str]]]:
    """Files and folders, sorted as keys sort: a folder counts with its slash (`a-b` before `a/`)."""
    found = []
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.lower().startswith(OWN_NAME):
                continue
            if entry.is_dir(follow_symlinks=False):
                found.append((entry.name + "/", entry))
            elif entry.is_file(follow_symlinks=False):
                found.append((entry.name, entry))
    return sorted(found, key=lambda one: os.fsencode(one[0]))


def _key_of(info: ObjectInfo) -> str:
    return info.key  # sorted by code point, which is by UTF-8 bytes
