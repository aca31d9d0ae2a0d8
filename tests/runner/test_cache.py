"""The data cache keeps its limit, and never gives out or removes what it should not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deepforge.runner.cache import SEAL, Cache, hex_of
from not_root import not_root, own_folder
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
        (folder / SEAL).write_text("100\n")
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


def unpacked(cache: Cache, name: bytes, size_bytes: int = 100, age_s: float = 0) -> Path:
    folder = Path(cache.code_path(digest(name)))
    (folder / "operations").mkdir(parents=True)
    (folder / SEAL).write_text(f"{size_bytes}\nand what was unpacked")
    os.utime(folder, (time.time() - age_s,) * 2)
    return folder


def test_code_counts_and_goes_in_turn(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), limit_bytes=250)
    oldest = unpacked(cache, b"oldest", 100, age_s=900)
    middle = kept(cache, b"m" * 100, 600)
    newest = unpacked(cache, b"newest", 100, age_s=300)

    cache.trim()

    assert (False, True, True) == (oldest.exists(), middle.exists(), newest.exists())
    Cache(str(tmp_path), limit_bytes=150).trim()
    assert (False, True) == (middle.exists(), newest.exists())
    assert [newest] == list((tmp_path / "code").iterdir())


def test_code_that_a_job_runs_from_stays_however_old_it_is(tmp_path: Path) -> None:
    running, other = Cache(str(tmp_path)), Cache(str(tmp_path), limit_bytes=0)
    folder = unpacked(running, b"code", age_s=10**8)
    assert running.hold(str(folder))

    other.trim()
    assert folder.exists()
    running.trim()
    assert folder.exists()

    running.close()
    other.trim()
    assert not folder.exists()


def test_code_of_a_runner_that_was_killed_goes(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), limit_bytes=0)
    folder = unpacked(cache, b"code", age_s=1000)
    script = (
        "import sys, time\nfrom deepforge.runner.cache import Cache\n"
        "assert Cache(sys.argv[1]).hold(sys.argv[2])\nprint('held', flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path, folder], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert "held\n" == holder.stdout.readline()
        cache.trim()
        assert folder.exists()
        holder.kill()

    cache.trim()

    assert not folder.exists()


def test_code_that_was_removed_just_now_is_not_held(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path))
    folder = unpacked(cache, b"code")
    folder.rename(tmp_path / "away")

    assert not cache.hold(str(folder))
    cache.close()


def test_code_that_nobody_will_use_goes_before_the_limit(tmp_path: Path) -> None:
    """An operation wrote into it, or closed it."""
    with own_folder() as root, not_root():
        cache = Cache(str(root))
        written, closed, fresh = (unpacked(cache, name, age_s=100) for name in (b"a", b"b", b"c"))
        (written / SEAL).unlink()
        (closed / "operations").chmod(0)
        closed.chmod(0)
        (fresh / SEAL).unlink()
        os.utime(fresh)
        for folder in (written, closed):
            os.utime(folder, (time.time() - 100,) * 2)

        cache.trim()

        assert [fresh] == list((root / "code").iterdir())
