"""A job's record: everybody appends, the first line that says a thing counts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from deepforge.compute.server import wire
from deepforge.compute.server.folder import NOBODY, Folder, JobFolder, Process
from not_root import not_root, own_folder


@pytest.fixture
def job(tmp_path: Path) -> JobFolder:
    folder = Folder(tmp_path / "host")
    folder.make()
    job = folder.job("job-1")
    job.root.mkdir()
    job.begin_record({"command": ["x"]})
    return job


def test_the_folder_is_closed_to_others(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "host")
    folder.make()
    folder.make()
    assert folder.root.stat().st_mode & 0o777 == 0o700


def test_a_new_record_says_only_what_to_run(job: JobFolder) -> None:
    recorded = job.read()
    assert recorded is not None
    assert recorded.request == {"command": ["x"]}
    assert (recorded.process, recorded.ended_by, recorded.exit) == (None, None, None)


def test_the_first_claim_counts(job: JobFolder) -> None:
    assert job.claim(Process(1, 2, "boot"), 3.5)
    assert not job.claim(NOBODY, 4.0)
    recorded = job.read()
    assert recorded is not None
    assert recorded.process == Process(1, 2, "boot")
    assert recorded.since == 3.5


def test_of_many_that_claim_at_once_exactly_one_has_it(job: JobFolder) -> None:
    start, won = threading.Barrier(16), []

    def claim(number: int) -> None:
        start.wait()
        if job.claim(Process(number, 0, ""), 0.0):
            won.append(number)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(1, 17)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorded = job.read()
    assert recorded is not None
    assert recorded.process is not None
    assert won == [recorded.process.pid]


def test_a_line_cut_short_says_nothing_and_spoils_nothing(job: JobFolder) -> None:
    with (job.root / ".deepforge-record").open("ab") as file:
        file.write(b'\n{"process": [1, 2')
    assert job.claim(Process(5, 6, "boot"), 0.0)
    job.record(exit={"code": 3})
    recorded = job.read()
    assert recorded is not None
    assert recorded.process == Process(5, 6, "boot")
    assert recorded.exit == {"code": 3}


@pytest.mark.parametrize("text", [b"", b"\0" * 100, b"{}", b'["a"]', b"\xff\xfe"])
def test_a_record_without_a_request_is_none(job: JobFolder, text: bytes) -> None:
    (job.root / ".deepforge-record").write_bytes(text)
    assert job.read() is None


def test_a_released_job_gets_no_new_record(job: JobFolder) -> None:
    (job.root / ".deepforge-record").unlink()
    with pytest.raises(FileNotFoundError):
        job.record(exit={"code": 0})
    assert job.read() is None


def test_messages_come_out_whole_however_they_arrive() -> None:
    sent = [{"op": "poll", "keys": ["é\n"] * number} for number in range(3)]
    stream = b"".join(wire.pack(message) for message in sent)
    buffer, received = bytearray(), []
    for byte in stream:
        buffer.append(byte)
        while (message := wire.take(buffer)) is not None:
            received.append(message)
    assert received == [{"v": wire.VERSION, **message} for message in sent]


def test_a_length_beyond_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        wire.take(bytearray(b"\xff\xff\xff\xff"))


def test_a_job_that_closes_its_folder_does_not_close_it_to_us() -> None:
    """A supervisor that cannot read a record would end, and the next one too."""
    with own_folder() as root, not_root():
        job = JobFolder(root / "job-1")
        job.root.mkdir()
        job.begin_record({"command": ["x"]})
        (job.root / ".deepforge-record").chmod(0)
        job.root.chmod(0)

        job.record(exit={"code": 3})
        job.root.chmod(0)
        recorded = job.read()

    assert recorded is not None
    assert recorded.exit == {"code": 3}


def test_what_a_usual_job_leaves_is_emptied_for_the_next(job: JobFolder) -> None:
    job.log.write_text("said")
    (job.root / "work").mkdir(mode=0o700)

    assert job.empty()

    assert job.read() is None
    assert job.log.read_bytes() == b""
    assert sorted(one.name for one in job.root.iterdir()) == [
        ".deepforge-log",
        ".deepforge-record",
        "work",
    ]


def _leave_a_file(job: JobFolder) -> None:
    (job.root / "left").write_text("x")


def _leave_work(job: JobFolder) -> None:
    (job.root / "work").mkdir(mode=0o700)
    (job.root / "work" / "left").mkdir()


def _open_work(job: JobFolder) -> None:
    (job.root / "work").mkdir(mode=0o700)
    (job.root / "work").chmod(0o777)


def _link_work(job: JobFolder) -> None:
    (job.root / "work").symlink_to("/")


def _link_the_log(job: JobFolder) -> None:
    (job.root.parent / "elsewhere").write_text("of somebody else")
    job.log.symlink_to(job.root.parent / "elsewhere")


def _keep_the_log(job: JobFolder) -> None:
    job.log.write_text("said")
    (job.root.parent / "elsewhere").hardlink_to(job.log)


@pytest.mark.parametrize(
    "leave",
    [_leave_a_file, _leave_work, _open_work, _link_work, _link_the_log, _keep_the_log],
)
def test_a_folder_that_a_job_changed_is_not_used_again(
    job: JobFolder, leave: Callable[[JobFolder], None]
) -> None:
    leave(job)

    assert not job.empty()

    elsewhere = job.root.parent / "elsewhere"
    assert not elsewhere.exists() or elsewhere.read_text() in ("of somebody else", "said")
