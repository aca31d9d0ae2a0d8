"""The exam of the storage port: every promise of `StorageAdapter` as something that can be tried.

With pytest, subclass `StorageContract` and give one fixture:

    class TestMyStorage(StorageContract):
        @pytest.fixture
        def opener(self, tmp_path):
            return lambda: MyAdapter(MySettings(...))

Without pytest, against live credentials, `examine` tries the same promises under a scratch prefix.
Which promises are tried depends on the declared capabilities.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal

from deepforge.ids import new_id
from deepforge.storage.port import StorageAdapter
from deepforge.testing import storage_grants, storage_promises
from deepforge.testing.storage_exam import Exam, Opener, Promise, PromiseBroken

PROMISES: tuple[Promise, ...] = (*storage_promises.PROMISES, *storage_grants.PROMISES)
"""Every promise, in the order in which failures explain each other best."""

TRIED_AT_MOST_S = 120.0
"""A promise that is not kept within this time is broken."""


@dataclass(frozen=True)
class Verdict:
    """What came of one promise. `message` says what was wrong, or which capability is missing."""

    promise: str
    sentence: str
    outcome: Literal["kept", "broken", "not asked"]
    seconds: float = 0.0
    message: str | None = None


async def examine(opener: Opener) -> AsyncIterator[Verdict]:
    """Try every promise in a scratch prefix, one verdict each, and leave nothing behind that the
    storage can find and remove.

    Errors on opening the adapter are raised; whatever happens later is a verdict.
    """
    async with opener() as adapter:
        for promise in PROMISES:
            lacking = promise.missing(adapter)
            if lacking is not None:
                reason = f"the adapter does not declare {lacking}"
                yield Verdict(promise.name, promise.sentence, "not asked", message=reason)
                continue
            began = time.monotonic()
            try:
                await attempt(promise, adapter, opener)
                outcome: Literal["kept", "broken"] = "kept"
                message = None
            except Exception as error:  # the exam goes on, whatever an adapter raises
                outcome, message = "broken", f"{type(error).__name__}: {error}"
            seconds = time.monotonic() - began
            yield Verdict(promise.name, promise.sentence, outcome, seconds, message)


async def attempt(promise: Promise, adapter: StorageAdapter, opener: Opener) -> None:
    """Try one promise under a prefix of its own. Raises `PromiseBroken`, or what escaped."""
    exam = Exam(adapter, opener, f"deepforge-exam/{new_id()}")
    try:
        async with asyncio.timeout(TRIED_AT_MOST_S):
            await promise.attempt(exam)
    except TimeoutError as error:
        raise PromiseBroken(f"took more than {TRIED_AT_MOST_S:.0f} s") from error
    finally:
        able = adapter.capabilities
        if able.chosen_keys and able.listing and able.deletion:
            left = [info.key async for info in adapter.list(exam.prefix + "/")]
            await adapter.delete(left)


class StorageContract:
    """The exam for pytest. A subclass gives the fixture `opener`: a callable that makes an adapter
    with the same settings each time, to be opened with `async with`."""

    def pytest_generate_tests(self, metafunc: Any) -> None:  # pytest.Metafunc; pytest is optional
        if "promise" in metafunc.fixturenames:
            metafunc.parametrize("promise", PROMISES, ids=[one.name for one in PROMISES])

    async def test_promise(self, promise: Promise, opener: Opener) -> None:
        async with opener() as adapter:
            lacking = promise.missing(adapter)
            if lacking is not None:
                import pytest

                pytest.skip(f"the adapter does not declare {lacking}")
            await attempt(promise, adapter, opener)
