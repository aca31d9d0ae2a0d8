"""The log is found among all else that a platform shows, wherever its pieces are cut."""

from __future__ import annotations

import random

import pytest

from deepforge.execution import platform_log
from deepforge.execution.platform_log import LogFinder
from deepforge.runner.protocol import log_marks

KEY = "e-job-1"
FIRST, LAST = log_marks(KEY)


def found(shown: bytes, *, piece_bytes: int, passed_bytes: int | None = None) -> bytes:
    """Everything that is found of what a platform shows in pieces of this size."""
    finder = LogFinder(KEY, passed_bytes)
    pieces = (shown[at : at + piece_bytes] for at in range(0, len(shown), piece_bytes))
    return b"".join(map(finder.feed, pieces)) + finder.rest()


@pytest.mark.parametrize(
    ("shown", "log"),
    [
        (b"", b""),
        (b"a warning\nno mark\n", b""),
        (FIRST, b""),
        (FIRST + b"one\ntwo", b"one\ntwo"),
        (b"no newline" + FIRST + b"one\n" + LAST + b"exception: no\n", b"one\n"),
        (b"\n\n" + FIRST + b"\r1%\r2%\xff\x00\n" + LAST, b"\r1%\r2%\xff\x00\n"),
        (FIRST[:-2] + FIRST + b"one" + LAST[:-1], b"one" + LAST[:-1]),
        (FIRST + b"[" + LAST, b"["),
        (FIRST + LAST[:9] + LAST, LAST[:9]),
        (FIRST + b"one" + FIRST + LAST + LAST, b"one" + FIRST),
        (log_marks("e-job-11")[0] + b"another's", b""),
        (FIRST + log_marks("e-job-11")[1] + b"x", log_marks("e-job-11")[1] + b"x"),
    ],
)
@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 7, len(FIRST), 10_000])
def test_the_log_is_what_stands_between_the_marks(
    shown: bytes, log: bytes, piece_bytes: int
) -> None:
    assert found(shown, piece_bytes=piece_bytes) == log


@pytest.mark.parametrize("seed", range(20))
def test_a_log_that_is_read_on_and_on_is_the_same(seed: int) -> None:
    """Cut anywhere, and gone on with behind what was found, as a file that grows is."""
    chance = random.Random(seed)
    words = [b"[", b"\n", b"[deepforge] ", b"x", b"\r", LAST[:-2], FIRST[1:-1], b"\xff"]
    log = b"".join(chance.choices(words, k=60))
    shown = b"container noise\n" + FIRST + log + LAST + b"more noise\n"
    before_bytes, kept = None, b""
    for end in [*sorted(chance.choices(range(len(shown) + 1), k=9)), len(shown)]:
        if before_bytes is None:
            finder, start = LogFinder(KEY), 0
        else:
            finder, start = LogFinder(KEY, len(kept)), before_bytes + len(kept)
        kept += finder.feed(shown[start:end])
        assert finder.size_bytes == len(kept)
        before_bytes = finder.before_bytes if before_bytes is None else before_bytes

    assert kept == log


def test_whole_lines_do_not_wait_for_more() -> None:
    finder = LogFinder(KEY)
    finder.feed(FIRST)

    assert finder.feed(b"a line\n") == b"a line\n"


def test_no_more_is_taken_than_a_log_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform_log, "LONGEST_LOG_BYTES", 10)

    assert found(FIRST + b"x" * 100, piece_bytes=7) == b"x" * 10
    assert found(b"x" * 100, piece_bytes=7, passed_bytes=8) == b"xx"
