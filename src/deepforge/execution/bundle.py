"""The project at a commit as one stored object: what the far side gets instead of a folder."""

from __future__ import annotations

import asyncio
import io
import time
import zipfile
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

from deepforge.errors import NotFound
from deepforge.ids import digest
from deepforge.projects.history import History
from deepforge.storage.client import StorageClient

TRUSTED_S = 30.0
"""How long a bundle that was seen in a storage is taken to be there: somebody may empty it."""

_FIRST_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Bundle:
    """Where the bundle lies in an execution's storage."""

    key: str
    size_bytes: int
    digest: str


class Bundles:
    """Makes bundles of commits and puts each into a storage once."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._known: dict[tuple[StorageClient, str], tuple[Bundle, float]] = {}
        self._putting: defaultdict[tuple[StorageClient, str], asyncio.Lock] = defaultdict(
            asyncio.Lock
        )

    async def put(self, storage: StorageClient, project: str, commit: str) -> Bundle:
        """Return the commit's bundle, after it is in the storage. Safe to repeat.

        The same files always make the same bytes, so a bundle is shared by every commit and every
        execution with the same files. Raises what the storage raises.
        """
        bundle = self._trusted(storage, commit)
        if bundle is not None:
            return bundle
        async with self._putting[storage, commit]:  # many jobs ask at once; one makes sure
            bundle = self._trusted(storage, commit)
            if bundle is None:
                bundle = await self._made_sure(storage, project, commit)
            return bundle

    def _trusted(self, storage: StorageClient, commit: str) -> Bundle | None:
        bundle, seen_at = self._known.get((storage, commit), (None, 0.0))
        return bundle if time.monotonic() - seen_at < TRUSTED_S else None

    async def _made_sure(self, storage: StorageClient, project: str, commit: str) -> Bundle:
        bundle, _ = self._known.get((storage, commit), (None, 0.0))
        if bundle is None or not await _is_there(storage, bundle):
            files, tree = await asyncio.gather(
                self._history.read_files(project, commit), self._history.read_tree(project, commit)
            )
            data = pack(files, {path for path, one in tree.files.items() if one.executable})
            name = digest(data)
            bundle = Bundle(f"bundles/{name.removeprefix('sha256:')}.zip", len(data), name)
            if not await _is_there(storage, bundle):
                await storage.put_bytes(bundle.key, data)
        self._known[storage, commit] = bundle, time.monotonic()
        return bundle


def pack(files: Mapping[str, bytes], executables: Collection[str] = ()) -> bytes:
    """Zip the files; equal files make equal bytes, whatever the clock and the order.

    `executables` are the paths of those that may be executed.
    """
    buffer = io.BytesIO()
    new_entry = partial(zipfile.ZipInfo, date_time=_FIRST_ZIP_DATE)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(files):
            entry = new_entry(path)
            entry.create_system = 3  # Unix, wherever this runs: part of the bytes
            entry.external_attr = (0o755 if path in executables else 0o644) << 16
            archive.writestr(entry, files[path], zipfile.ZIP_DEFLATED, 6)
    return buffer.getvalue()


async def _is_there(storage: StorageClient, bundle: Bundle) -> bool:
    try:
        found = await storage.stat(bundle.key)
    except NotFound:
        return False
    return found.size_bytes == bundle.size_bytes
