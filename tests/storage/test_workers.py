from __future__ import annotations

import asyncio
import threading

import pytest

from deepforge.storage.workers import Workers


async def test_a_cancelled_caller_waits_for_what_its_thread_still_does() -> None:
    """Else a write that was given up could land behind the next one."""
    workers = Workers(1, "test")
    began, goes_on = threading.Event(), threading.Event()
    done: list[str] = []

    def slow() -> None:
        began.set()
        goes_on.wait(30)
        done.append("slow")

    task = asyncio.create_task(workers.run(slow))
    await asyncio.to_thread(began.wait, 30)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    goes_on.set()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["slow"]
    await workers.close()


async def test_closing_waits_for_what_was_begun() -> None:
    workers = Workers(2, "test")
    done: list[int] = []
    futures = [workers.begin(done.append, number) for number in range(20)]

    await workers.close()

    assert sorted(done) == list(range(20))
    await asyncio.gather(*futures)


async def test_what_a_call_raises_comes_out() -> None:
    workers = Workers(1, "test")

    with pytest.raises(ValueError, match="invalid literal"):
        await workers.run(int, "x")
    await workers.close()


async def test_a_call_that_no_thread_has_begun_is_not_made_for_a_cancelled_caller() -> None:
    workers = Workers(1, "test")
    began, goes_on = threading.Event(), threading.Event()
    done: list[str] = []

    def slow() -> None:
        began.set()
        goes_on.wait(30)

    first = workers.begin(slow)
    await asyncio.to_thread(began.wait, 30)
    task = asyncio.create_task(workers.run(done.append, "second"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    goes_on.set()
    await first
    await workers.close()

    assert done == []
