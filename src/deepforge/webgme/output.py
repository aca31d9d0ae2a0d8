"""What jobs of workers print, in numbered segments, kept in pieces that fit in documents."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence

from deepforge.compute.port import Record, Records
from deepforge.documents.port import Collection
from deepforge.errors import AlreadyExists, InvalidRequest

MAX_OUTPUT_BYTES = 64 * 1024 * 1024
"""How much a job may print in all."""

COLLECTION = Collection("worker_output", indexes=(("job",),))

_PIECE_BYTES = 4 * 1024 * 1024
_READ_AT_ONCE = 16


class Output:
    """Over records that were opened with `COLLECTION`. `job` is the id of a job's document.

    Bytes that are no text come as lone surrogates (Python's `surrogateescape`), and are bytes again.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._printed_bytes: dict[str, int] = {}
        self._last: dict[str, int] = {}

    async def add(self, job: str, number: int, text: str) -> None:
        """Keep a segment. The same number again takes the place of the earlier one.

        Raises `InvalidRequest` beyond `MAX_OUTPUT_BYTES` for the job: what is there stays.
        """
        data = _bytes(text)
        if job not in self._printed_bytes:
            found = await self._pieces(job)
            self._printed_bytes.setdefault(job, sum(one.body["bytes"] for one in found))
        if self._printed_bytes[job] + len(data) > MAX_OUTPUT_BYTES:
            raise InvalidRequest(
                f"the job has printed more than {MAX_OUTPUT_BYTES // 2**20} MiB",
                part="output",
                hint="its whole output is in its log",
            )
        try:
            await self._insert(job, number, data)
        except AlreadyExists:
            await self.forget(job, number)
            await self._insert(job, number, data)
        self._printed_bytes[job] = self._printed_bytes.get(job, 0) + len(data)
        self._last[job] = number

    async def segments(
        self, job: str, *, start: int, end: int | None = None
    ) -> list[tuple[int, str]]:
        """Segments with `start <= number < end`, in order."""
        wanted = [
            one
            for one in await self._pieces(job)
            if start <= one.body["number"] and (end is None or one.body["number"] < end)
        ]
        whole: dict[int, bytes] = {}
        async for number, data in self._read(wanted):
            whole[number] = whole.get(number, b"") + data
        return [(number, data.decode("utf-8", "replace")) for number, data in whole.items()]

    async def read(self, job: str, *, start: int = 0) -> AsyncIterator[bytes]:
        """All of it, from byte `start`."""
        wanted: list[Record] = []
        skip_bytes = start
        for one in await self._pieces(job):
            if wanted or skip_bytes < one.body["bytes"]:
                wanted.append(one)
            else:
                skip_bytes -= one.body["bytes"]
        async for _, data in self._read(wanted):
            if piece := data[skip_bytes:]:
                yield piece
            skip_bytes = 0

    async def last(self, job: str) -> int | None:
        """The number of the segment that came last, or None without any."""
        if job in self._last:
            return self._last[job]
        found = await self._records.find(COLLECTION.name, {"job": job}, descending=True, limit=1)
        return found[0].body["number"] if found else None

    async def forget(self, job: str, number: int | None = None) -> None:
        """Delete one segment, or all. Safe to repeat."""
        for one in await self._pieces(job):
            if number in (None, one.body["number"]):
                await self._records.delete(COLLECTION.name, one.id)
        self._printed_bytes.pop(job, None)
        self._last.pop(job, None)

    def done(self, job: str) -> None:
        """The job is over: forget what only is there to make `add` quick."""
        self._printed_bytes.pop(job, None)
        self._last.pop(job, None)

    async def _pieces(self, job: str) -> Sequence[Record]:
        return await self._records.find(COLLECTION.name, {"job": job})

    async def _read(self, pieces: Sequence[Record]) -> AsyncIterator[tuple[int, bytes]]:
        for first in range(0, len(pieces), _READ_AT_ONCE):
            ids = [one.id for one in pieces[first : first + _READ_AT_ONCE]]
            for one in await self._records.get_many(COLLECTION.name, ids):
                yield one.body["number"], one.data or b""

    async def _insert(self, job: str, number: int, data: bytes) -> None:
        name = hashlib.sha256(job.encode()).hexdigest()
        for place, first in enumerate(range(0, max(1, len(data)), _PIECE_BYTES)):
            piece = data[first : first + _PIECE_BYTES]
            await self._records.insert(
                COLLECTION.name,
                f"{name}+{number:012d}+{place:03d}",
                {"job": job, "number": number, "bytes": len(piece)},
                piece,
            )


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair of surrogates
        return text.encode("utf-8", "replace")
