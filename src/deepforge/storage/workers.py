"""Threads of one adapter, for libraries and system calls that block."""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_M_ARENA_MAX = -8  # from malloc.h


class Workers:
    """A few threads. `close` waits for what was begun."""

    def __init__(self, count: int, name: str) -> None:
        _share_one_heap()
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, function: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> T:
        """Call the function on a thread and return what it returns.

        A thread cannot be interrupted: when the caller is cancelled, this still waits until the
        call has ended, so that nothing of it happens later, behind what the caller does next.
        """
        future = self.begin(function, *arguments, **named)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # nobody else will ask for it
            raise

    def begin(
        self, function: Callable[P, T], /, *arguments: P.args, **named: P.kwargs
    ) -> asyncio.Future[T]:
        """Start the call; the caller must await the future."""
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._pool, partial(function, *arguments, **named))

    async def close(self) -> None:
        """Wait for running calls, then end the threads."""
        await asyncio.to_thread(self._pool.shutdown)


@cache
def _share_one_heap() -> None:
    """Let all threads of this process allocate from one heap, where the C library is glibc.

    It gives each thread a heap of its own and keeps what is freed there. Blocks of megabytes that
    one thread makes and another frees then leave holes in every heap: up to 207 MiB at the peak of
    256 MiB transfers, against 115 MiB with one heap.
    """
    if sys.platform.startswith("linux"):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none, nor the trouble
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, 1)
