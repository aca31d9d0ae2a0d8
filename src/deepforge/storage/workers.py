"""Threads for libraries and system calls that block."""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_M_ARENA_MAX = -8  # from malloc.h


class Workers:
    """A few threads of one adapter. `close` waits for what was begun."""

    def __init__(self, count: int, name: str) -> None:
        _share_one_heap()
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, function: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> T:
        """Call the function on a thread and return what it returns.

        A thread cannot be interrupted: when the caller is cancelled, this still waits until the
        call has ended, so that nothing of it happens later, behind what the caller does next. A
        call that no thread has begun yet is not made.
        """
        return await _ended(self._pool.submit(function, *arguments, **named))

    def begin(
        self, function: Callable[P, T], /, *arguments: P.args, **named: P.kwargs
    ) -> asyncio.Future[T]:
        """Start the call; the caller must await the future."""
        return asyncio.wrap_future(self._pool.submit(function, *arguments, **named))

    async def close(self) -> None:
        """Wait for running calls, then end the threads."""
        await asyncio.to_thread(self._pool.shutdown)


async def on_thread(function: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> T:
    """Call the function on one of a few threads that all share; otherwise as `Workers.run`."""
    return await _ended(_shared_pool().submit(function, *arguments, **named))


async def _ended(call: Future[T]) -> T:
    try:
        return await asyncio.wrap_future(call)
    except asyncio.CancelledError:
        if not call.cancelled():  # it runs
            late = asyncio.wrap_future(call)
            await asyncio.wait([late])
            late.exception()  # nobody else will ask for it
        raise


@cache
def _shared_pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(8, thread_name_prefix="files")


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
