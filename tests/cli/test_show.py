"""How things look on a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from deepforge.cli import show


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (3 * 1024**5, "3072.0 TiB"),
    ],
)
def test_sizes(size_bytes: int, text: str) -> None:
    assert show.size(size_bytes) == text


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0.0, "0.00 s"),
        (0.314, "0.31 s"),
        (9.999, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations(duration_s: float, text: str) -> None:
    assert show.seconds(duration_s) == text


def test_columns_align_whatever_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    show.print_table(("name", "x"), [("數字", 1), ("long name", 2), (None, 3), ("e\u0301", 4)])

    assert capsys.readouterr().out.splitlines() == [
        "NAME       X",
        "數字       1",
        "long name  2",
        "-          3",
        "e\u0301          4",
    ]


def test_a_cell_cannot_break_the_table_or_write_to_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show.print_table(("name",), [("a\nb\x1b[31m",)])

    assert capsys.readouterr().out.splitlines()[1] == "a\ufffdb\ufffd[31m"


def test_an_empty_table_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    show.print_table(("name",), [])

    assert capsys.readouterr().out == ""


def test_a_failure_shows_the_place_the_traceback_and_the_next_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show.print_summary(view_of_a_failure())

    told = capsys.readouterr().err
    assert "train failed: ValueError: no" in told
    assert "at operations/train.py:7" in told
    assert "    Traceback: here" in told
    assert "deepforge executions logs e1 train" in told
    assert "deepforge executions rerun e1" in told


def test_of_many_jobs_that_failed_alike_one_tells_why(capsys: pytest.CaptureFixture[str]) -> None:
    view = view_of_a_failure()
    (first,) = view["jobs"]
    view["jobs"] = [
        {**first, "id": name, "name": name} for name in (f"train_{number}" for number in range(100))
    ]
    view["jobs"][40] = {**first, "name": "other", "failure": {**first["failure"], "line": 8}}

    show.print_summary(view)

    told = capsys.readouterr().err
    assert told.count("Traceback: here") == 2
    assert "so failed, too: train_1, train_2," in told
    assert "train_8 and 90 more\n" in told
    assert "other failed: ValueError: no\n  at operations/train.py:8" in told
    assert len(told.splitlines()) < 20


def test_of_many_reasons_the_first_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    view = view_of_a_failure()
    (first,) = view["jobs"]
    view["jobs"] = [
        {**first, "name": f"train_{number}", "failure": {**first["failure"], "line": number}}
        for number in range(1, 15)
    ]

    show.print_summary(view)

    told = capsys.readouterr().err
    assert "train_10 failed" in told
    assert "train_11 failed" not in told
    assert "For other reasons: train_11, train_12, train_13, train_14." in told
    assert "deepforge executions show e1 --json" in told


def test_the_result_line_has_what_is_promised_and_no_more() -> None:
    assert show.result_json(view_of_a_failure()) == {
        "execution": "e1",
        "status": "failed",
        "jobs": [
            {"name": "train", "status": "failed", "cached": False, "attempts": 1, "seconds": 0.5}
        ],
        "artifacts": [
            {
                "name": "a",
                "version": 1,
                "type": "int",
                "size_bytes": 3,
                "digest": "sha256:1",
                "storage": "local",
            }
        ],
    }


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 130)])
def test_exit_codes(status: str, code: int) -> None:
    assert show.exit_code({"status": status}) == code


def view_of_a_failure() -> dict[str, Any]:
    job = {
        "id": "train", "name": "train", "operation": "Train", "status": "failed", "cached": False,
        "attempts": 1, "seconds": 0.5,
        "failure": {
            "kind": "exception", "type": "builtins.ValueError", "message": "ValueError: no",
            "hint": None,
            "file": "operations/train.py", "line": 7, "traceback": "Traceback: here\n",
        },
    }  # fmt: skip
    artifact = {
        "id": "a1", "name": "a", "version": 1, "type": "int", "size_bytes": 3,
        "digest": "sha256:1", "storage": "local", "created_at": "2026-01-02T03:04:05.000000Z",
    }  # fmt: skip
    return {
        "id": "e1", "pipeline": "digits", "status": "failed", "jobs": [job],
        "artifacts": [artifact], "created_at": "2026-01-02T03:04:00.000000Z",
        "ended_at": "2026-01-02T03:04:05.000000Z",
    }  # fmt: skip
