"""What is done about an adapter that fails: our errors pass, others are wrapped, some tried again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from deepforge.errors import AdapterBug, DeepForgeError, NoCapacity, RateLimited
from deepforge.storage.port import StorageAdapter

T = TypeVar("T")


@dataclass(frozen=True)
class Retry:
    """How often a transient failure is tried again. Pauses double and vary by half."""

    attempts: int = 4
    first_pause_s: float = 0.2
    longest_pause_s: float = 5.0
    longest_wish_s: float = 30.0
    """A service that asks for a longer pause than this gets none; the error is raised."""

    def pause_s(self, failures: int, error: DeepForgeError, chance: float) -> float | None:
        """How long to wait after so many failures in a row; None: give up.

        `chance` is a random number from 0 to 1.
        """
        wish_s = (
            error.retry_after_s if isinstance(error, RateLimited | NoCapacity) else 0.0
        ) or 0.0
        if not error.transient or failures >= self.attempts or wish_s > self.longest_wish_s:
            return None
        pause_s = min(self.longest_pause_s, self.first_pause_s * 2.0 ** (failures - 1))
        return max(wish_s, pause_s * (0.5 + chance / 2))


async def try_again(
    retry: Retry,
    call: Callable[[], Awaitable[T]],
    *,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    chance: Callable[[], float] = random.random,
) -> T:
    """Call until it succeeds; raise the last error when there shall be no further attempt."""
    failures = 0
    while True:
        try:
            return await call()
        except DeepForgeError as error:
            failures += 1
            pause_s = retry.pause_s(failures, error, chance())
            if pause_s is None:
                raise
        await sleep(pause_s)


@contextmanager
def discipline(adapter: StorageAdapter, method: str) -> Iterator[None]:
    """Let errors of our tree pass, and wrap whatever else escapes an adapter in `AdapterBug`."""
    try:
        yield
    except (DeepForgeError, StopAsyncIteration):
        raise
    except Exception as error:
        raise AdapterBug(
            f"{type(adapter).__name__}.{method} raised {type(error).__name__}: {error}",
            hint="this is a defect of the adapter; please report it",
        ) from error
