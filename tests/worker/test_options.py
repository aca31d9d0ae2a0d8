"""The options, and where the token comes from."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from deepforge.worker.options import given_words, read_options
from deepforge.worker.trouble import WorkerError


def read(tmp_path: Path, environ: dict[str, str] | None = None, **given: Any) -> Any:
    named = {name.replace("_", "-"): value for name, value in given.items()}
    return read_options({"url": "http://s", "folder": str(tmp_path), **named}, environ or {})


def test_the_machine_gives_the_defaults(tmp_path: Path) -> None:
    options = read(tmp_path, {"CUDA_VISIBLE_DEVICES": "3,GPU-ab"})

    cpus = len(os.sched_getaffinity(0))
    assert (cpus, cpus, ("3", "GPU-ab")) == (
        options.capacity.jobs,
        options.capacity.cpus,
        options.capacity.gpus,
    )
    assert options.capacity.memory_bytes > 2**28
    assert sys.executable == options.python
    assert options.token() is None


def test_what_is_said_counts(tmp_path: Path) -> None:
    options = read(
        tmp_path,
        {"CUDA_VISIBLE_DEVICES": "3,4,5"},
        jobs="2", cpus="6", memory="1.5G", gpus="2", label=("a", "b"), cache="10M", name="box",
    )  # fmt: skip

    capacity = options.capacity
    assert (2, 6, 3 * 2**29, ("3", "4")) == (
        capacity.jobs, capacity.cpus, capacity.memory_bytes, capacity.gpus
    )  # fmt: skip
    assert (("a", "b"), 10 * 2**20, "box") == (options.labels, options.cache_bytes, options.name)
    assert () == read(tmp_path, {"CUDA_VISIBLE_DEVICES": "3"}, gpus="0").capacity.gpus
    assert ("0", "1") == read(tmp_path, {"CUDA_VISIBLE_DEVICES": ""}, gpus="2").capacity.gpus


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("url", ""), ("url", "ftp://x"), ("url", "http://u@h"), ("jobs", "0"), ("jobs", "many"),
        ("cpus", "-1"), ("memory", "x"), ("memory", "0"), ("gpus", "1.5"), ("cache", "0M"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(WorkerError):
        read_options({"url": "http://s", "folder": str(tmp_path), name: value}, {})


def test_the_token_comes_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(" df_secret \n"))

    assert "df_secret" == read(tmp_path, token="-").token()


def test_the_token_comes_from_the_environment(tmp_path: Path) -> None:
    assert "df_secret" == read(tmp_path, {"DEEPFORGE_TOKEN": "df_secret"}).token()


def test_a_token_on_the_command_line_is_taken_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "df_secret" == read(tmp_path, token="df_secret").token()
    told = capsys.readouterr().err
    assert "other users of this machine can see" in told
    assert "df_secret" not in told


def test_the_token_in_the_folder_is_found_and_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text("first\n")
    token = read(tmp_path).token
    assert "first" == token()
    path.write_text("the second\n")

    assert "the second" == token()
    path.unlink()
    assert "the second" == token()


def test_a_token_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text("secret")
    path.chmod(0o640)

    with pytest.raises(WorkerError, match="other users may read"):
        read(tmp_path, token_file=str(path))


def test_the_words_of_a_unit_have_no_token() -> None:
    given = {
        "url": "http://s",
        "token": "df_secret",
        "label": ("a", "b c"),
        "service": True,
        "jobs": None,
    }

    assert ("--url", "http://s", "--label", "a", "--label", "b c") == given_words(given)
