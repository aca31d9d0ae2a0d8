"""The data cache keeps its limit, and never gives out or removes what it should not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from deepforge.runner.cache import Cache, hex_of
from runner.far_side import digest


def kept(cache: Cache, data: bytes, age_s: float = 0) -> Path:
    path = cache.new_path(digest(data))
    Path(path).write_bytes(data)
    found = Path(cache.keep(path, digest(data)))
    os.utime(found, (time.time() - age_s,) * 2)
    return found


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), limit_bytes=250)
    old, middle, new = (
        kept(cache, c * 100, age) for c, age in ((b"a", 900), (b"b", 600), (b"c", 300))
    )
    assert cache.find(digest(b"a" * 100), 100) is not None  # used again

    cache.trim()

    assert (True, False, True) == (old.exists(), middle.exists(), new.exists())


def test_what_somebody_may_be_opening_stays(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), limit_bytes=0)
    fresh = kept(cache, b"just now")

    cache.trim()

    assert fresh.exists()


def test_parts_of_dead_writers_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path))
    dead, living = (Path(cache.new_path(digest(data))) for data in (b"x", b"y"))
    dead.write_bytes(b"x")
    living.write_bytes(b"y")
    os.utime(dead, (0, 0))

    cache.trim()

    assert (False, True) == (dead.exists(), living.exists())


def test_code_that_was_not_used_for_a_month_goes(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path))
    old, new = (Path(cache.code_path(digest(data))) for data in (b"old", b"new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "x.py").touch()
    os.utime(old, (0, 0))

    cache.trim()

    assert (False, True) == (old.exists(), new.exists())


def test_only_whole_data_of_the_right_size_are_found(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path))
    path = kept(cache, b"data")

    assert str(path) == cache.find(digest(b"data"), 4)
    assert str(path) == cache.find(digest(b"data"), None)
    assert cache.find(digest(b"other"), 5) is None
    path.write_bytes(b"dada")
    assert cache.find(digest(b"data"), 4) is None
    assert not path.exists()


@pytest.mark.parametrize("bad", ["", "md5:00", "sha256:../../x", "sha256:" + "A" * 64])
def test_a_digest_becomes_no_other_path(bad: str) -> None:
    with pytest.raises(ValueError, match="not a digest"):
        hex_of(bad)
