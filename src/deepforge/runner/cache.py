"""The data cache: inputs and unpacked code that stay on a machine, found by digest.

Many runners share the folder: what is new is written beside and renamed, what is found is verified
before use, and what was used within the last minute is never removed. Data that a job reads stay
while it does, by a link of its own; code that it runs from stays by a lock on the folder, which ends
with the runner however that ends.

    data/<hex>      inputs
    code/<hex>/     unpacked projects
    runner/<hex>/   the runner itself, for the interpreters that run operations
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import Callable, List, Optional, Tuple

from deepforge.runner.files import beside, discard, hash_file, no_check, remove_tree

DEFAULT_LIMIT_BYTES = 20 * 1024**3
FRESH_S = 60.0  # somebody may just be opening it
FORGOTTEN_S = 24 * 3600.0  # a part nobody completes; its writer is gone
CODE_S = 30 * 24 * 3600.0

SEAL = ".deepforge-seal"  # in unpacked code: how many bytes it has, and whether it is untouched


class Cache:
    """What one runner sees of the cache. `close` lets others remove what it held."""

    def __init__(self, folder: str, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.folder = os.path.abspath(folder)
        self.limit_bytes = limit_bytes
        self._held: List[int] = []

    def close(self) -> None:
        """Let go of the code that was held. Safe to repeat."""
        while self._held:
            os.close(self._held.pop())

    def find(
        self, digest: str, size_bytes: Optional[int], check: Callable[[], None] = no_check
    ) -> Optional[str]:
        """Return the path of these data if they are here and whole; what is not whole is removed."""
        path = self._data_path(digest)
        try:
            os.utime(path)
            if (
                size_bytes not in (None, os.stat(path).st_size)
                or hash_file(path, check)[1] != digest
            ):
                os.remove(path)
                return None
        except OSError:
            return None  # not here, or another runner removed it just now
        return path

    def new_path(self, digest: str) -> str:
        """Where to write data that are not here yet; `keep` takes them over from there."""
        path = self._data_path(digest)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return beside(path)

    def keep(self, temporary: str, digest: str) -> str:
        """Take over verified data. What they push out is removed by the next `trim`."""
        path = self._data_path(digest)
        os.replace(temporary, path)
        return path

    def code_path(self, digest: str) -> str:
        return os.path.join(self.folder, "code", hex_of(digest))

    def hold(self, folder: str) -> bool:
        """Have unpacked code stay until `close`. False if it is gone, or just going.

        Where the disk knows no locks it stays as long as code stays that nobody uses.
        """
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            return False
        self._held.append(lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
        except OSError:
            pass
        try:
            return os.path.samestat(os.fstat(lock), os.stat(folder))
        except FileNotFoundError:
            return False

    def trim(self) -> None:
        """Remove what was used longest ago until the limit is kept, and what nobody will use."""
        now = time.time()
        data, code = (os.path.join(self.folder, name) for name in ("data", "code"))
        entries = [(used_at, size, path, False) for used_at, size, path in _listing(data)]
        for used_at, _, path in _listing(code):
            entries.append((used_at, _unpacked_bytes(path), path, True))
        total = sum(size_bytes for _, size_bytes, _, _ in entries)
        for used_at, size_bytes, path, is_code in sorted(entries):
            age_s = now - used_at
            if path.endswith(".part"):
                unused = age_s > FORGOTTEN_S
            else:
                useless = is_code and (size_bytes == 0 or age_s > CODE_S)
                unused = age_s > FRESH_S and (useless or total > self.limit_bytes)
            if not unused:
                continue
            if not is_code:
                discard(path)
            elif not _give_up(path, age_s):
                continue
            total -= size_bytes

    def _data_path(self, digest: str) -> str:
        return os.path.join(self.folder, "data", hex_of(digest))


def _unpacked_bytes(folder: str) -> int:
    """How much the code had when it was unpacked; 0 if its seal is broken: nobody will use it."""
    try:
        with open(os.path.join(folder, SEAL), "rb") as seal:
            size = seal.readline(20).strip()
    except OSError:
        return 0
    return int(size) if size.isdigit() else 0


def _give_up(folder: str, age_s: float) -> bool:
    """Remove unpacked code, unless a job runs from it. False if it stays."""
    try:
        try:
            lock = os.open(folder, os.O_RDONLY)
        except PermissionError:  # an operation closed it
            os.chmod(folder, 0o700)
            lock = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    going = beside(folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(folder, going)  # from here on nobody finds it
    except BlockingIOError:
        return False
    except OSError:  # no locks on this disk
        if age_s <= CODE_S:
            return False
        going = folder
    finally:
        os.close(lock)
    try:
        remove_tree(going)
    except OSError:
        return False
    return True


def hex_of(digest: str) -> str:
    """Return the 64 digits of `sha256:<hex>`. Raises `ValueError`: it becomes part of a path."""
    kind, _, digits = digest.partition(":")
    if kind != "sha256" or len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
        raise ValueError("not a digest: %.100r" % digest)
    return digits


def _listing(folder: str) -> List[Tuple[float, int, str]]:
    """When each entry was used last, its size, its path."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue  # another runner removed it
                found.append((status.st_mtime, status.st_size, entry.path))
    except FileNotFoundError:
        pass
    return found
