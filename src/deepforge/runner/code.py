"""Unpacking the project's code, once for all attempts that run it."""

from __future__ import annotations

import os
import stat
from typing import List, Optional

from deepforge.runner.cache import SEAL, Cache
from deepforge.runner.failures import JobFailed, failed, of_disk
from deepforge.runner.files import beside, discard
from deepforge.runner.protocol import Code

LONGEST_CODE_BYTES = 1024**3
MOST_FILES = 100_000


def find_code(code: Code, cache: Optional[Cache]) -> Optional[str]:
    """Return the folder where this code is unpacked already, if the cache has one; it is held.

    A folder that an operation wrote into is left to those that still run from it, and not used again.
    """
    if cache is None:
        return None
    target = _place(cache.code_path(code.digest))
    try:
        os.utime(target)
        return target if cache.hold(target) else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise of_disk("The unpacked code cannot be used", error) from error


def unpack_code(code: Code, archive: str, folder: str, cache: Optional[Cache]) -> str:
    """Unpack a verified archive and return the folder. Raises `JobFailed` (import, storage_full).

    With a cache, the folder is shared by every attempt with the same code, so that its byte code is
    compiled once. It is held, and what it pushes out of the cache is removed.
    """
    target = _place(cache.code_path(code.digest)) if cache else os.path.join(folder, "code")
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        _unpack(archive, target)
        if cache is not None:
            cache.hold(target)  # new, so nobody removes it before
            cache.trim()
    except OSError as error:
        raise of_disk("The project's code cannot be unpacked", error) from error
    return target


def _unpack(archive: str, target: str) -> None:
    import shutil
    import zipfile
    import zlib

    temporary = beside(target)
    try:
        with zipfile.ZipFile(archive) as file:
            entries = file.infolist()
            total = sum(entry.file_size for entry in entries)
            if len(entries) > MOST_FILES or total > LONGEST_CODE_BYTES:
                raise _refused("%d files with %d bytes are too much code" % (len(entries), total))
            os.mkdir(temporary)
            for entry in entries:
                _refuse_odd(entry.filename, entry.external_attr >> 16)
                path = file.extract(entry, temporary)
                if entry.external_attr >> 16 & stat.S_IXUSR and not entry.is_dir():
                    mode = os.stat(path).st_mode
                    os.chmod(path, mode | (mode & 0o444) >> 2)  # for all who may read it
        _make_packages(temporary)
        with open(os.path.join(temporary, SEAL), "w", encoding="utf-8") as seal:
            seal.write("%d\n%s" % (max(1, total), _fingerprint(temporary)))
        try:
            os.rename(temporary, target)
        except OSError:
            if not os.path.isdir(target):  # else another runner was quicker
                raise
            shutil.rmtree(temporary)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _refused("it is not a proper zip file (%s)" % error) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _place(first: str) -> str:
    """The first folder that is as it was unpacked, or else the first name that is free."""
    number, place = 1, first
    while os.path.isdir(place) and not _is_untouched(place):
        discard(os.path.join(place, SEAL))  # it goes when nobody runs from it any more
        number += 1
        place = "%s-%d" % (first, number)
    return place


def _is_untouched(folder: str) -> bool:
    try:
        with open(os.path.join(folder, SEAL), encoding="utf-8") as seal:
            return seal.read().partition("\n")[2] == _fingerprint(folder)
    except (OSError, ValueError):
        return False


def _fingerprint(folder: str) -> str:
    """What shows whether any file but byte code was written, added or removed since."""
    lines: List[str] = []
    _look(folder, "", lines)
    return "\n".join(sorted(lines))


def _look(folder: str, below: str, lines: List[str]) -> None:
    """As `os.walk` would, in half the time: every job asks."""
    with os.scandir(folder) as entries:
        for entry in entries:
            path = "%s/%s" % (below, entry.name)
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "__pycache__":
                    _look(entry.path, path, lines)
            elif entry.name != SEAL:
                found = entry.stat(follow_symlinks=False)
                lines.append("%d %d %d %r" % (found.st_ino, found.st_size, found.st_ctime_ns, path))


def _make_packages(folder: str) -> None:
    """Make packages of the project's folders.

    Python prefers any installed package named `utils` to a mere folder of that name, and looks for
    one everywhere at every start.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir() and any(name.endswith(".py") for name in os.listdir(entry.path)):
                with open(os.path.join(entry.path, "__init__.py"), "ab"):
                    pass


def _refuse_odd(name: str, mode: int) -> None:
    """Refuse an entry that could end up anywhere but in the folder."""
    parts = name.replace("\\", "/").rstrip("/").split("/")
    if not all(part not in ("", ".", "..") for part in parts) or "\0" in name:
        raise _refused("it has an entry named %.200r" % name)
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refused("%.200r is neither a file nor a folder" % name)


def _refused(why: str) -> JobFailed:
    return failed(
        "import",
        "The project's code cannot be unpacked: %s." % why,
        hint="Record the project again; if it stays so, this is a fault of the server.",
    )
