"""Taking turns with the other processes of this machine that ask for the same user."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from contextlib import suppress
from pathlib import Path

LONGEST_WAIT_S = 30.0


class Turns:
    """Files whose times say when anybody asked last. Nobody locks: two who look at once both ask.

    It is for politeness alone: nobody waits longer than `LONGEST_WAIT_S`, and where the folder cannot
    be written, or the clock jumps, everybody asks as often as alone.
    """

    def __init__(self, folder: Path, site: str, username: str) -> None:
        about = hashlib.sha256(f"{site.lower()}\0{username}".encode()).hexdigest()[:16]
        self._stem = folder / f".asked-{about}"

    async def wait(self, what: str, every_s: float) -> None:
        """Return when nobody asked for that long, or after `LONGEST_WAIT_S`. We ask then."""
        until_s = time.monotonic() + LONGEST_WAIT_S
        while True:
            left_s = self._left_s(what, every_s)
            if left_s <= 0 or time.monotonic() >= until_s:
                break
            await asyncio.sleep(left_s + random.random() * every_s / 10)  # not all at once
        self._note(what)

    def take(self, what: str, every_s: float) -> bool:
        """Whether nobody asked for that long. We ask then."""
        is_ours = self._left_s(what, every_s) <= 0
        if is_ours:
            self._note(what)
        return is_ours

    def _left_s(self, what: str, every_s: float) -> float:
        try:
            age_s = time.time() - self._file(what).stat().st_mtime
        except OSError:
            return 0.0
        return every_s - age_s if 0 <= age_s < every_s else 0.0  # the clock may have jumped

    def _note(self, what: str) -> None:
        with suppress(OSError):
            self._file(what).touch()

    def _file(self, what: str) -> Path:
        return self._stem.with_name(f"{self._stem.name}-{what}")
