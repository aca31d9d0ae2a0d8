"""Runners on the disk, under their digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from deepforge.runner.build import runner_archive
from deepforge.worker.runners import Runners
from deepforge.worker.trouble import Trouble

OTHER = b"another runner"
DIGEST = hashlib.sha256(OTHER).hexdigest()


@pytest.fixture
def runners(tmp_path: Path) -> Runners:
    return Runners(str(tmp_path))


def test_our_own_is_there(runners: Runners) -> None:
    starter, runner = runners.files(runners.own)

    assert runners.has(runners.own)
    assert runner_archive() == Path(runner).read_bytes()
    assert b"standard input" in Path(starter).read_bytes()


def test_another_is_kept_if_it_is_what_was_asked_for(runners: Runners) -> None:
    assert not runners.has(DIGEST)
    with pytest.raises(Trouble, match="not the one"):
        runners.keep(DIGEST, b"cut")
    assert not runners.has(DIGEST)
    runners.keep(DIGEST, OTHER)

    assert runners.has(DIGEST)
    assert OTHER == Path(runners.files(DIGEST)[1]).read_bytes()


def test_others_go_when_a_worker_starts(runners: Runners, tmp_path: Path) -> None:
    runners.files(runners.own)
    runners.keep(DIGEST, OTHER)
    runners.clear()

    assert [tmp_path / runners.own] == list(tmp_path.iterdir())


@pytest.mark.parametrize("digest", ["..", "../x", "", "None", "A" * 64])
def test_a_digest_is_never_a_path(runners: Runners, digest: str) -> None:
    with pytest.raises(Trouble, match="no digest"):
        runners.has(digest)
