"""The data cache: inputs and unpacked code that stay on a machine, found by digest.

Many runners share the folder without locks: what is new is written beside and renamed, what is
found is verified before use, and what was used within the last minute is never removed.

    data/<hex>      inputs
    code/<hex>/     unpacked projects
    runner/<hex>/   the runner itself, for the interpreters that run operations
"""

from __future__ import annotations

import os
import time
from typing import Callable, List, Optional, Tuple

from deepforge.runner.files import beside, discard, hash_file, no_check

DEFAULT_LIMIT_BYTES = 20 * 1024**3
FRESH_S = 60.0  # somebody may just be opening it
FORGOTTEN_S = 24 * 3600.0  # a part nobody completes; its writer is gone
CODE_S = 30 * 24 * 3600.0


class Cache:
    def __init__(self, folder: str, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.folder = os.path.abspath(folder)
        self.limit_bytes = limit_bytes

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

    def trim(self) -> None:
        """Remove what was used longest ago until the limit is kept, and what nobody will use."""
        now = time.time()
        files = _listing(os.path.join(self.folder, "data"))
        total = sum(size_bytes for _, size_bytes, _ in files)
        for used_at, size_bytes, path in sorted(files):
            age_s = now - used_at
            if path.endswith(".part"):
                unused = age_s > FORGOTTEN_S
            else:
                unused = total > self.limit_bytes and age_s > FRESH_S
            if unused:
                discard(path)
                total -= size_bytes
        for used_at, _, path in _listing(os.path.join(self.folder, "code")):
            if now - used_at > (FORGOTTEN_S if path.endswith(".part") else CODE_S):
                import shutil

                shutil.rmtree(path, ignore_errors=True)

    def _data_path(self, digest: str) -> str:
        return os.path.join(self.folder, "data", hex_of(digest))


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
