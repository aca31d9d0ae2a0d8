"""Getting the inputs and the code: granted files in place, everything else over HTTP, verified."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from deepforge.runner.addresses import WireError
from deepforge.runner.cache import Cache
from deepforge.runner.crew import WORKERS, MakeClient, each
from deepforge.runner.failures import (
    TRANSIENT_STATUS,
    AttemptOver,
    JobFailed,
    failed,
    of_disk,
    of_status,
)
from deepforge.runner.files import digest_text, discard, hash_file
from deepforge.runner.protocol import Grant
from deepforge.runner.sink import Sink, ThreadSink
from deepforge.runner.watch import PATIENCE_S, Patience, Watch, pause
from deepforge.runner.wire import Answer, Client

LARGE = 8 * 1024 * 1024  # from here on another thread is worth its start

Renew = Callable[[Client, str], Grant]
"""Asks for a fresh grant of the object of this name."""


@dataclass(frozen=True)
class Item:
    """One object to fetch. `name` as in the protocol: `code`, `inputs/images`."""

    name: str
    grant: Grant
    size_bytes: Optional[int] = None
    digest: Optional[str] = None


@dataclass(frozen=True)
class Fetched:
    """Where an object lies now, whole and verified."""

    path: str
    size_bytes: int
    digest: str
    cached: bool = False


def fetch_many(
    items: Sequence[Item],
    folder: str,
    *,
    workers: int = WORKERS,
    cache: Optional[Cache] = None,
    make_client: MakeClient = Client,
    renew: Optional[Renew] = None,
    watch: Optional[Watch] = None,
    patience_s: float = PATIENCE_S,
) -> List[Fetched]:
    """Fetch all items, in parallel where there is more than one to move; results in their order.

    A granted file is verified where it lies and not copied. Others go to the cache if there is one
    and their digest is known, else to `folder`, under their number. A transfer that is cut goes on
    where it was; `patience_s` is for a network that is gone, and begins anew with each new byte. Raises
    `JobFailed` (transfer, corrupt, grants_expired, storage_full), `Cancelled`
    and `AttemptOver`.
    """
    remote = sum(item.grant.kind != "file" for item in items)
    if remote:
        os.makedirs(folder, exist_ok=True)
    heavy = sum(item.grant.kind == "file" and (item.size_bytes or 0) >= LARGE for item in items)
    if remote + heavy <= 1:
        workers = 1
    fetcher = _Fetcher(os.path.abspath(folder), cache, renew, patience_s, alone=workers == 1)
    return each(list(enumerate(items)), fetcher.fetch, make_client, watch or Watch(), workers)


class _Fetcher:
    def __init__(
        self,
        folder: str,
        cache: Optional[Cache],
        renew: Optional[Renew],
        patience_s: float,
        *,
        alone: bool,
    ) -> None:
        self._alone = alone
        self._folder = folder
        self._cache = cache
        self._renew = renew
        self._patience_s = patience_s

    def fetch(self, client: Client, numbered: Tuple[int, Item]) -> Fetched:
        number, item = numbered
        if item.grant.kind == "file":
            return _verify_in_place(item, client.check)
        cache = self._cache if item.digest else None
        path = os.path.join(self._folder, str(number))
        try:
            if cache is not None and item.digest:
                found = cache.find(item.digest, item.size_bytes, client.check)
                if found is not None:
                    path = _pinned(found, path)
                    return Fetched(path, os.stat(path).st_size, item.digest, cached=True)
                temporary = cache.new_path(item.digest)
            else:
                temporary = path  # in a folder of our own nobody mistakes a part for the whole
            try:
                size_bytes, digest = self._download(client, item, temporary)
                if cache is not None:
                    path = _pinned(cache.keep(temporary, digest), path)
            except BaseException:
                discard(temporary)
                raise
        except OSError as error:
            raise of_disk("%s cannot be kept on this machine" % item.name, error) from error
        return Fetched(path, size_bytes, digest)

    def _download(self, client: Client, item: Item, temporary: str) -> Tuple[int, str]:
        grant = item.grant
        patience = Patience(self._patience_s)
        renewed_at = -1
        with open(temporary, "wb", buffering=0) as file:
            alone = self._alone and (item.size_bytes or 0) >= LARGE
            partial = _Partial(item, file, beside=alone)
            while True:
                before = partial.have_bytes
                try:
                    status, said = partial.receive(client, grant)
                    if status == 0:
                        return partial.have_bytes, digest_text(partial.sha)
                    trouble = "the storage answered %d %.300r" % (status, said)
                except WireError as error:
                    status, trouble = 0, str(error)
                    if not error.transient:
                        raise failed("transfer", "%s: %s." % (item.name, error)) from error
                if status == 410:
                    raise AttemptOver(trouble)
                if status in (400, 401, 403) and self._renew and renewed_at < partial.have_bytes:
                    renewed_at = partial.have_bytes
                    grant = self._renew(client, item.name)
                    continue
                if status not in (0, 416, *TRANSIENT_STATUS) and b"RequestTimeout" not in said:
                    raise of_status("%s cannot be read" % item.name, status, said, grant)
                if partial.have_bytes > before:
                    patience = Patience(self._patience_s)
                wait_s = patience.next_pause(answered=status != 0)
                if wait_s is None:
                    raise failed(
                        "transfer",
                        "%s cannot be read: %s." % (item.name, trouble),
                        transient=True,
                        hint="Check that this machine reaches the storage.",
                    )
                pause(wait_s, client.check)


class _Partial:
    """A file that grows, its hash, and how to go on after a cut."""

    def __init__(self, item: Item, file: Any, beside: bool) -> None:
        self.have_bytes = 0
        self.sha = hashlib.sha256()
        self._item = item
        self._file = file
        self._beside = beside
        self._mismatched = False

    def receive(self, client: Client, grant: Grant) -> Tuple[int, bytes]:
        """Receive what is missing. Returns 0 when it is whole, else the status and what was said."""
        headers: Dict[str, str] = dict(grant.headers)
        if self.have_bytes:
            headers["Range"] = "bytes=%d-" % self.have_bytes
        answer = client.send("GET", grant.url or "", headers)
        goes_on = answer.headers.get("content-range", "").startswith("bytes %d-" % self.have_bytes)
        if answer.status == 416 or (answer.status == 206 and self.have_bytes and not goes_on):
            self._begin_again()
            return 416, answer.read(2000)
        if answer.status not in (200, 206):
            return answer.status, answer.read(2000)
        if answer.status == 200 and self.have_bytes:
            self._begin_again()
        expected = self._item.size_bytes
        sink = (ThreadSink if self._beside else Sink)(self._file, self.sha, client)
        try:
            while expected is None or self.have_bytes <= expected:
                if not self._fill(answer, sink):
                    break
        finally:
            sink.close()
        digest = digest_text(self.sha)
        if expected not in (None, self.have_bytes) or self._item.digest not in (None, digest):
            corrupt = _corrupt(self._item, self.have_bytes, digest)
            if self._mismatched:
                raise corrupt
            self._mismatched = True  # perhaps it was the way: once more, from the start
            self._begin_again()
            client.close()
            return self.receive(client, grant)
        return 0, b""

    def _fill(self, answer: Answer, sink: Sink) -> bool:
        """Receive one block. False at the end; after a cut what had come is kept."""
        block, filled = sink.block(), 0
        try:
            while filled < len(block):
                count = answer.readinto(block[filled:])
                if not count:
                    return False
                filled += count
        finally:
            sink.take(block[:filled])
            self.have_bytes += filled
        return True

    def _begin_again(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self.sha = hashlib.sha256()
        self.have_bytes = 0


def _verify_in_place(item: Item, check: Callable[[], None]) -> Fetched:
    path = item.grant.path or ""
    try:
        size_bytes, digest = hash_file(path, check)
    except FileNotFoundError as error:
        raise failed(
            "transfer",
            "%s is not there: %s." % (item.name, path),
            hint="The file was removed, or its storage is not mounted on this machine.",
        ) from error
    except OSError as error:
        raise of_disk("%s cannot be read" % item.name, error) from error
    if item.size_bytes not in (None, size_bytes) or item.digest not in (None, digest):
        raise _corrupt(item, size_bytes, digest)
    return Fetched(path, size_bytes, digest)


def _corrupt(item: Item, size_bytes: int, digest: str) -> JobFailed:
    return failed(
        "corrupt",
        "%s is not what was stored: %d bytes with digest %s were expected, %d bytes with %s are there."
        % (item.name, item.size_bytes or 0, item.digest, size_bytes, digest),
        hint="It was cut short or altered in its storage. Run again the job that made it.",
    )


def _pinned(cached: str, path: str) -> str:
    """Keep cached data for this job even if the cache gives them up, where the disk can do that."""
    try:
        os.link(cached, path)
    except OSError:  # another file system, or one without links: the cache spares what is fresh
        return cached
    return path
