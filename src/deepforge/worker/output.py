"""What a job prints, cut into the numbered segments that the server takes."""

from __future__ import annotations

import codecs
import json
import os
from typing import Any, Dict, Optional

from deepforge.worker.starter import write_whole

_READ_BYTES = 1024 * 1024


class Output:
    """The segments of one job's output file, in order.

    What was taken is written down in `sent`, so a worker that starts anew goes on there. A segment
    that is sent twice has the same number: the server keeps one.
    """

    def __init__(
        self,
        path: str,
        sent: str,
        *,
        hash: str,
        longest_bytes: int,
        first: int = 0,
        errors: str = "replace",
    ) -> None:
        """`errors` says what becomes of bytes that are no text, as `bytes.decode` understands it."""
        self._path = path
        self._sent = sent
        self._hash = hash
        self._longest_bytes = longest_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)
        self._start, self.number = _read_sent(sent, first)
        self._end = self._start

    def next(self, *, ended: bool) -> Optional[Dict[str, Any]]:
        """The next segment as the server wants it, or None if nothing is left to send.

        The last character stays back while it may be half of one, unless the job has `ended`.
        """
        try:
            with open(self._path, "rb") as file:
                file.seek(self._start)
                data = file.read(min(_READ_BYTES, self._longest_bytes))
                more = bool(file.read(1))
        except FileNotFoundError:
            return None
        decoder = self._decoder
        decoder.reset()
        text = decoder.decode(data, final=ended and not more)
        self._end = self._start + len(data) - len(decoder.getstate()[0])
        while True:
            body = {
                "hash": self._hash,
                "outputNumber": self.number,
                "output": text,
                "_id": "%s+%d" % (self._hash, self.number),
            }
            if len(json.dumps(body)) <= self._longest_bytes or len(text) < 2:
                break
            # as JSON some characters are six times as long
            data = data[: _bytes_of(data, len(text) // 2, decoder)]
            decoder.reset()
            text = decoder.decode(data)
            self._end = self._start + len(data) - len(decoder.getstate()[0])
        return body if text else None

    def took(self) -> None:
        """The server has the segment that `next` gave."""
        self._start, self.number = self._end, self.number + 1
        try:
            write_whole(self._sent, b"%d %d" % (self._start, self.number))
        except OSError:
            pass  # a full disk: at worst a segment is sent again

    @property
    def is_over(self) -> bool:
        """Whether everything there is now was taken."""
        try:
            return os.path.getsize(self._path) <= self._start
        except OSError:
            return True


def _bytes_of(data: bytes, characters: int, decoder: codecs.IncrementalDecoder) -> int:
    """How many bytes the first characters were read from."""
    low, high = 0, len(data)
    while low < high:  # the fewest bytes that give as many characters
        middle = (low + high) // 2
        decoder.reset()
        if len(decoder.decode(data[:middle])) >= characters:
            high = middle
        else:
            low = middle + 1
    return low


def _read_sent(path: str, first: int) -> "tuple[int, int]":
    try:
        with open(path, "rb") as file:
            start, number = file.read().split()
        return int(start), int(number)
    except (OSError, ValueError):
        return 0, first
