"""What a worker keeps on the disk."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from deepforge.worker.folder import Folder, remove_tree
from deepforge.worker.trouble import WorkerError


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with closing(Folder(str(tmp_path / "worker"))) as made:
        made.open()
        yield made


def test_it_is_closed_to_others(folder: Folder) -> None:
    assert 0o700 == stat.S_IMODE(Path(folder.root).stat().st_mode)


def test_the_name_is_kept_for_a_server(folder: Folder) -> None:
    name = folder.client_id("http://one")

    assert name == folder.client_id("http://one")
    assert name != folder.client_id("http://two")


def test_jobs_of_another_server_must_be_reported_first(folder: Folder) -> None:
    folder.client_id("http://one")
    folder.job("aa").begin({"hash": "aa"})

    with pytest.raises(WorkerError, match="holds jobs of http://one"):
        folder.client_id("http://two")


@pytest.mark.parametrize("hash", ["..", "a/b", "", "x" * 500, "é", "a\0b"])
def test_no_job_id_leads_out_of_the_folder(folder: Folder, hash: str) -> None:
    job = folder.job(hash)
    job.begin({"hash": hash})

    assert Path(folder.jobs) == Path(job.root).parent
    assert [hash] == [one.record()["hash"] for one in folder.held()]


def test_what_was_not_written_whole_is_removed(folder: Folder) -> None:
    job = folder.job("aa")
    Path(job.work).mkdir(parents=True)
    Path(job.root, "record.json").write_text('{"hash": "a')

    assert [] == folder.held()
    assert not Path(job.root).exists()


def test_a_start_is_claimed_or_given_up_once(folder: Folder) -> None:
    job = folder.job("aa")
    job.begin({"hash": "aa"})

    assert job.give_up_start()
    assert not job.give_up_start()
    assert job.process() is None


def test_what_a_job_closed_is_removed_too(tmp_path: Path) -> None:
    inner = tmp_path / "job" / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    (tmp_path / "job" / "link").symlink_to(tmp_path)
    inner.chmod(0)
    inner.parent.chmod(0)
    remove_tree(str(tmp_path / "job"))

    assert [] == list(tmp_path.iterdir())
