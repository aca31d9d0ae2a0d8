"""Putting the outputs where they were granted: a file moved into place, one PUT, or parts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from deepforge.runner.addresses import WireError
from deepforge.runner.channel import Line
from deepforge.runner.crew import WORKERS, MakeClient, each
from deepforge.runner.failures import TRANSIENT_STATUS, AttemptOver, failed, of_disk, of_status, say
from deepforge.runner.fetch import Renew
from deepforge.runner.files import blocks, digest_text, hash_file, place, take_over, write_whole
from deepforge.runner.protocol import Grant
from deepforge.runner.watch import PATIENCE_S, Patience, Watch, pause
from deepforge.runner.wire import BLOCK, Blocks, Body, Client, FilePart

MakeLine = Callable[[Client], Line]


@dataclass(frozen=True)
class Upload:
    """One file to store. `name` as in the protocol: `outputs/model`, `log`."""

    name: str
    path: str
    grant: Optional[Grant] = None
    max_grant_bytes: Optional[int] = None
    part_above_bytes: Optional[int] = None


@dataclass(frozen=True)
class Stored:
    size_bytes: int
    digest: str


def store_many(
    uploads: Sequence[Upload],
    *,
    workers: int = WORKERS,
    make_client: MakeClient = Client,
    make_line: Optional[MakeLine] = None,
    renew: Optional[Renew] = None,
    watch: Optional[Watch] = None,
    patience_s: float = PATIENCE_S,
) -> List[Stored]:
    """Store all files, in parallel where there is more than one to move; results in their order.

    For a granted file the given one itself may move there. A large one is sent in parts if there is
    a line to the server. Raises `JobFailed` (transfer, storage_full, grants_expired), `Cancelled`
    and `AttemptOver`; what was stored before stays.
    """
    store = _Store(make_client, make_line, renew, watch or Watch(), workers, patience_s)
    single = [upload for upload in uploads if not store.wants_parts(upload)]
    sent = sum(upload.grant is not None and upload.grant.kind == "http" for upload in single)
    found = each(single, store.single, make_client, store.watch, workers if sent > 1 else 1)
    stored = dict(zip((upload.name for upload in single), found))
    for upload in uploads:
        if upload.name not in stored:
            stored[upload.name] = store.large(upload)
    return [stored[upload.name] for upload in uploads]


def put_bytes(
    client: Client,
    name: str,
    data: bytes,
    grant: Grant,
    renew: Optional[Renew] = None,
    patience_s: float = PATIENCE_S,
) -> None:
    """Store a small object from memory, all or nothing. Raises as `store_many`."""
    if grant.kind == "file":
        try:
            write_whole(grant.path or "", data)
        except OSError as error:
            raise of_disk("%s cannot be written" % name, error) from error
    else:
        _put(client, name, grant, data, len(data), renew, patience_s)


class _Store:
    def __init__(
        self,
        make_client: MakeClient,
        make_line: Optional[MakeLine],
        renew: Optional[Renew],
        watch: Watch,
        workers: int,
        patience_s: float,
    ) -> None:
        self.watch = watch
        self._make_client = make_client
        self._make_line = make_line
        self._renew = renew
        self._workers = workers
        self._patience_s = patience_s

    def wants_parts(self, upload: Upload) -> bool:
        """Whether to ask the server how. Raises `JobFailed` if that is needed and it cannot be."""
        if upload.grant is not None and upload.grant.kind == "file":
            return False
        size_bytes = _size(upload)
        limit = upload.max_grant_bytes
        too_large = upload.grant is None or (limit is not None and size_bytes > limit)
        if self._make_line is not None:
            above = upload.part_above_bytes
            return too_large or (above is not None and size_bytes > above)
        if too_large:
            raise failed(
                "transfer",
                "%s has %d bytes; one request to its storage may write %d at most."
                % (upload.name, size_bytes, limit or 0),
                hint="Larger objects need a compute that reaches this server, so that they can be"
                " written in parts. Or return smaller outputs.",
            )
        return False

    def single(self, client: Client, upload: Upload) -> Stored:
        grant = upload.grant
        assert grant is not None  # else it wants parts
        try:
            if grant.kind == "file":
                return Stored(*place(upload.path, grant.path or "", client.check))
            body = _Hashed(upload.path, _size(upload))
            _put(client, upload.name, grant, body, body.size_bytes, self._renew, self._patience_s)
            return Stored(body.size_bytes, body.digest)
        except OSError as error:
            raise of_disk("%s cannot be stored" % upload.name, error) from error

    def large(self, upload: Upload) -> Stored:
        assert self._make_line is not None  # else it does not want parts
        client = self._make_client(self.watch.check)
        try:
            line = self._make_line(client)
            size_bytes = _size(upload)
            answer = line.parts(upload.name, size_bytes, self._patience_s)
            if isinstance(answer, Grant):
                return self.single(client, Upload(upload.name, upload.path, answer))
            number, part_bytes, grants = answer
            try:
                etags, digest = self._send_parts(upload, size_bytes, part_bytes, grants)
                line.complete(upload.name, number, etags, self._patience_s)
            except BaseException:
                _give_up(line, upload.name, number)
                raise
            return Stored(size_bytes, digest)
        except OSError as error:
            raise of_disk("%s cannot be stored" % upload.name, error) from error
        finally:
            client.close()

    def _send_parts(
        self, upload: Upload, size_bytes: int, part_bytes: int, grants: Sequence[Grant]
    ) -> Tuple[List[str], str]:
        """Send all parts while another thread hashes the whole; return etags and digest."""
        starts = range(0, max(size_bytes, 1), part_bytes)

        def work(client: Client, number: int) -> str:
            if number < 0:
                return hash_file(upload.path, client.check)[1]
            start = starts[number]
            length = min(part_bytes, size_bytes - start)
            headers = _put(
                client,
                "part %d of %s" % (number + 1, upload.name),
                grants[number],
                lambda: [FilePart(upload.path, start, length)],
                length,
                None,
                self._patience_s,
            )
            return headers.get("etag", "")

        numbers = [-1, *range(len(starts))]
        digest, *etags = each(numbers, work, self._make_client, self.watch, self._workers + 1)
        return etags, digest


class _Hashed:
    """The content of a file, hashed while it is sent; a second sending hashes anew."""

    def __init__(self, path: str, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._path = path
        self._sha = hashlib.sha256()

    def __call__(self) -> Blocks:
        self._sha = hashlib.sha256()
        if self.size_bytes > BLOCK:
            return [FilePart(self._path, 0, self.size_bytes, self._sha)]
        data = b"".join(blocks(self._path, 0, self.size_bytes))
        self._sha.update(data)
        return [data]

    @property
    def digest(self) -> str:
        return digest_text(self._sha)


def _put(
    client: Client,
    name: str,
    grant: Grant,
    body: Body,
    size_bytes: int,
    renew: Optional[Renew],
    patience_s: float,
) -> Dict[str, str]:
    """PUT until it is stored; return the headers of the answer.

    `patience_s` is for a network that is gone; who answers with trouble is not asked for longer than
    usual.
    """
    patience = Patience(patience_s)
    renewed = renew is None
    while True:
        try:
            answer = client.send("PUT", grant.url or "", grant.headers, body, size_bytes)
            status, said = answer.status, answer.read(2000)
            if 200 <= status < 300:
                return answer.headers
            trouble = "the storage answered %d %.300r" % (status, said)
        except WireError as error:
            status, said, trouble = 0, b"", str(error)
            if not error.transient:
                raise failed("transfer", "%s: %s." % (name, error)) from error
        if status == 410:
            raise AttemptOver(trouble)
        if status in (400, 401, 403) and not renewed and renew is not None:
            renewed = True
            grant = renew(client, name)
            continue
        if status not in (0, *TRANSIENT_STATUS) and b"RequestTimeout" not in said:
            raise of_status("%s cannot be stored" % name, status, said, grant)
        wait_s = patience.next_pause(answered=status != 0)
        if wait_s is None:
            raise failed(
                "transfer",
                "%s cannot be stored: %s." % (name, trouble),
                transient=True,
                hint="Check that this machine reaches the storage.",
            )
        pause(wait_s, client.check)


def _size(upload: Upload) -> int:
    try:
        return take_over(upload.path).st_size
    except OSError as error:
        raise of_disk("%s cannot be read" % upload.name, error) from error


def _give_up(line: Line, name: str, upload: str) -> None:
    try:
        line.abort(name, upload)
    except Exception as error:  # the server forgets unfinished uploads by itself
        say("the upload of %s was not given up: %s" % (name, error))
