"""The log keeps what was printed, and of a progress bar what a reader wants."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepforge.runner.spool import Spool


def spooled(path: Path, *steps: tuple[float, bytes], limit_bytes: int = 10**6) -> bytes:
    """Feed each piece at its time; an empty piece only lets time pass."""
    spool = Spool(str(path / "log"), limit_bytes)
    for now_s, data in steps:
        if data:
            spool.feed(data, now_s)
        spool.flush(now_s)
    spool.close()
    return (path / "log").read_bytes() if spool.size_bytes else b""


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(0, b"a\nb\n")], b"a\nb\n"),
        ([(0, b"no newline")], b"no newline"),
        ([(0, b"a\r\nb\r\n")], b"a\nb\n"),
        ([(0, b"a\r"), (0, b"\nb\r\r"), (0, b"\n")], b"a\nb\n"),
        ([(0, b"\xff\x00"), (9, b"\n")], b"\xff\x00\n"),
        ([(0, b"1%\r2%\r3%\ndone\n")], b"3%\ndone\n"),
        ([(0, b"\r1%"), (0.1, b"\r2%"), (0.2, b"\r3%\n")], b"3%\n"),
        ([(0, b"\r1%"), (0.6, b""), (0.7, b"\r2%"), (0.8, b"\r3%\n")], b"1%\r3%\n"),
        ([(0, b"1%\r"), (0.6, b""), (0.7, b"2%\r"), (1.3, b""), (1.4, b"3%\r\n")], b"1%\r2%\r3%\n"),
        ([(0, b"Epoch 1"), (0.1, b"\rEpoch 1: 5%"), (0.2, b"\n")], b"Epoch 1\rEpoch 1: 5%\n"),
        ([(0, b"\r")], b""),
        ([(0, b"a\r"), (0, b"b")], b"b"),
    ],
)
def test_what_is_kept(tmp_path: Path, steps: list[tuple[float, bytes]], expected: bytes) -> None:
    assert expected == spooled(tmp_path, *steps)


def test_an_hour_of_a_progress_bar_leaves_some_hundred_states(tmp_path: Path) -> None:
    bar = b"\r%5.1f%%|" + b"#" * 80
    steps = [(n / 10, bar % (n / 360)) for n in range(36_000)]

    kept = spooled(tmp_path, *steps, (3600.1, b"\n"))

    assert 100 < kept.count(b"%") < 500
    assert kept.rstrip().endswith(steps[-1][1].lstrip(b"\r"))


def test_a_state_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "log"), 10**8)
    spool.feed(b"start\r", 0)
    for _ in range(100):
        spool.feed(b"x" * 65536, 0)
    assert spool.size_bytes > 5_000_000
    spool.close()


def test_the_limit_counts_what_is_dropped_and_notes_still_fit(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "log"), 4)
    spool.feed(b"abcdef\n", 0)
    spool.note("stopped")
    spool.close()

    text = (tmp_path / "log").read_bytes()
    assert text.startswith(b"abcd\n[deepforge] stopped\n[deepforge] 3 more bytes")
    assert 3 == spool.dropped_bytes
    assert 3 == spool.lines


def test_what_is_kept_is_printed_between_the_marks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spool = Spool(str(tmp_path / "log"), 12, marks=(b"<", b">"))
    assert capfd.readouterr().out == ""
    spool.feed(b"one\r", 0)
    spool.feed(b"two\rthree\n", 0)
    spool.note("stopped")
    spool.feed(b"far too long", 0)
    spool.close()

    text = (tmp_path / "log").read_text()
    assert text.startswith("three\n[deepforge] stopped\n")
    assert capfd.readouterr().out == f"<{text}>"


def test_what_a_full_disk_does_not_take_is_not_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is printed must be the beginning of what is stored."""
    spool = Spool(str(tmp_path / "missing" / "log"), 100, marks=(b"<", b">"))
    spool.feed(b"abc\n", 0)
    (tmp_path / "missing").mkdir()
    spool.feed(b"def\n", 0)
    spool.close()

    text = (tmp_path / "missing" / "log").read_text()
    assert text.startswith("def\n")
    assert capfd.readouterr().out == f"<{text}>"


def test_nothing_printed_leaves_no_file(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "log"), 4)
    spool.close()

    assert not (tmp_path / "log").exists()


def test_a_full_disk_loses_log_but_not_the_job(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "missing" / "log"), 100)
    spool.feed(b"abc\n", 0)

    assert (0, 4) == (spool.size_bytes, spool.dropped_bytes)
