"""The exam of the compute port: what every adapter must do, against the real service.

With pytest, subclass and give one fixture:

    class TestMyCompute(ComputeContract):
        @pytest.fixture
        def opener(self, tmp_path: Path) -> Opener:
            return lambda: MyCompute(MySettings(...), Host(tmp_path))

Every call of it opens one more adapter on the same settings and the same host. Without pytest,
`await examine(opener)`. Tests are chosen by what `capabilities` declares. The jobs are small
Python programs; they print, and the exam reads `log` (an adapter without a log is asked less).
"""

from __future__ import annotations

import time
import unittest
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

from deepforge.testing.compute_dealings import Dealings
from deepforge.testing.compute_endings import Endings
from deepforge.testing.compute_tools import Opener, new_key, python

__all__ = ["ComputeContract", "Opener", "Verdict", "examine", "new_key", "python"]


class ComputeContract(Endings, Dealings):
    """Subclass it, give the fixture `opener`, and all tests apply."""


@dataclass(frozen=True)
class Verdict:
    """What came of one test. `message` says what was wrong, or why it was not asked."""

    promise: str
    outcome: Literal["kept", "broken", "not asked"]
    seconds: float = 0.0
    message: str | None = None


async def examine(
    opener: Opener, contract: type[ComputeContract] = ComputeContract
) -> AsyncIterator[Verdict]:
    """Take the exam without pytest, test by test. Its jobs end, and stay as `exam-…` unreleased.

    As with pytest, a test that a subclass sets to None is left out.
    """
    exam = contract()
    for name in dir(exam):
        test = getattr(exam, name)
        if not name.startswith("test_") or test is None:
            continue
        promise = name.removeprefix("test_").replace("_", " ")
        began = time.monotonic()
        try:
            await test(opener)
        except unittest.SkipTest as reason:
            yield Verdict(promise, "not asked", message=str(reason))
        except Exception as error:  # the exam goes on, whatever an adapter raises
            seconds = time.monotonic() - began
            yield Verdict(promise, "broken", seconds, f"{type(error).__name__}: {error}")
        else:
            yield Verdict(promise, "kept", time.monotonic() - began)
