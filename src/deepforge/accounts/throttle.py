"""Growing pauses for whoever keeps guessing."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from deepforge.errors import RateLimited

FREE_TRIES = 4
LONGEST_PAUSE_S = 300.0
FORGOTTEN_AFTER_S = 3600.0
_MOST_KEYS = 10_000


class Throttle:
    """Counts tries that did not succeed, for each key, in this process.

    After `FREE_TRIES` of them the pause before the next is 1 s, then 2, 4, … `LONGEST_PAUSE_S`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tries: OrderedDict[str, _Tries] = OrderedDict()  # the longest untouched first

    def attempt(self, key: str) -> None:
        """Count a try. Raises `RateLimited` with the rest of the pause, and counts nothing then."""
        now = self._clock()
        known = self._tries.get(key)
        count = 0 if known is None or now - known.at > FORGOTTEN_AFTER_S else known.count
        if known is not None and now < known.next_at:
            raise RateLimited(
                f"too many wrong passwords; wait {known.next_at - now:.0f} s",
                retry_after_s=known.next_at - now,
            )
        count += 1
        pause_s = 0.0
        if count >= FREE_TRIES:
            pause_s = min(LONGEST_PAUSE_S, 2.0 ** min(count - FREE_TRIES, 20))
        self._tries[key] = _Tries(count, now, now + pause_s)
        self._tries.move_to_end(key)
        if len(self._tries) > _MOST_KEYS:
            self._tries.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """Forget what was counted."""
        self._tries.pop(key, None)


@dataclass(frozen=True)
class _Tries:
    count: int
    at: float
    next_at: float
