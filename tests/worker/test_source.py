"""Archives from anywhere end up in their folder, or nowhere."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from deepforge.worker.source import CONFIG_FILE, Artifact, Config, read_config, unpack
from deepforge.worker.trouble import JobEnded
from worker.fake_server import zipped


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "outer" / "work"
    folder.mkdir(parents=True)
    return folder


def archive(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "source.zip"
    path.write_bytes(data)
    return str(path)


def test_files_are_unpacked_with_their_folders_and_executable_bits(
    tmp_path: Path, work: Path
) -> None:
    def mark(entry: zipfile.ZipInfo) -> None:
        entry.external_attr = (0o100755 if entry.filename == "run" else 0o100644) << 16

    unpack(archive(tmp_path, zipped({"run": b"#!", "a/b/c.txt": b"c"}, mark)), str(work), {})

    assert b"c" == (work / "a/b/c.txt").read_bytes()
    assert (True, False) == (
        os.access(work / "run", os.X_OK),
        bool((work / "a/b/c.txt").stat().st_mode & 0o111),
    )


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/../../evil",
        "/evil",
        "a//evil",
        "./evil",
        "C:evil",
        "..\\evil",
        "a\\..\\..\\evil",
    ],
)
def test_nothing_is_written_outside(tmp_path: Path, work: Path, name: str) -> None:
    with pytest.raises(JobEnded, match="an entry named") as told:
        unpack(archive(tmp_path, zipped({"good": b"", name: b"x"})), str(work), {})

    assert "FAILED_UNZIP" == told.value.status
    assert [] == list(work.iterdir())
    assert [work] == list(work.parent.iterdir())


@pytest.mark.parametrize("mode", [0o120777, 0o010644, 0o060644], ids=["link", "pipe", "device"])
def test_only_files_and_folders_are_unpacked(tmp_path: Path, work: Path, mode: int) -> None:
    def odd(entry: zipfile.ZipInfo) -> None:
        entry.external_attr = mode << 16

    with pytest.raises(JobEnded, match="neither a file nor a folder"):
        unpack(archive(tmp_path, zipped({"odd": b"/etc/passwd"}, odd)), str(work), {})


@pytest.mark.parametrize(
    "data",
    [b"", b"PK", b"<html>", zipped({"a": b"x" * 100})[:-30], zipped({"a": b"1", "a/b": b"2"})],
    ids=["empty", "start", "page", "cut", "file-and-folder"],
)
def test_what_is_no_archive_is_refused(tmp_path: Path, work: Path, data: bytes) -> None:
    with pytest.raises(JobEnded) as told:
        unpack(archive(tmp_path, data), str(work), {})

    assert "FAILED_UNZIP" == told.value.status


def test_the_digests_of_the_metadata_are_checked(tmp_path: Path, work: Path) -> None:
    def entry(data: bytes, kind: str = "object") -> dict[str, str]:
        return {"content": hashlib.sha1(data).hexdigest(), "contentType": kind}

    source = archive(tmp_path, zipped({"a": b"1", "b": b"2"}))
    unpack(source, str(work), {"a": entry(b"1"), "b": entry(b"other", "softLink")})
    for wrong in ({"a": entry(b"9")}, {"a": entry(b"1"), "missing": entry(b"1")}):
        with pytest.raises(JobEnded, match=r"not what was stored|lacks 'missing'"):
            unpack(source, str(work), wrong)


def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepforge.worker.source.LONGEST_BYTES", 1000)
    with pytest.raises(JobEnded, match="more files or bytes"):
        unpack(archive(tmp_path, zipped({"a": b"\0" * 1001})), str(work), {})

    assert [] == list(work.iterdir())


def test_a_config_says_what_to_run_and_to_keep(work: Path) -> None:
    told = {
        "cmd": "node",
        "args": ["start.js"],
        "outputInterval": 1500,
        "outputSegmentSize": 2,
        "resultArtifacts": [{"name": "stdout", "resultPatterns": ["a", "b/**"]}, {"name": "all"}],
    }
    (work / CONFIG_FILE).write_text(json.dumps(told))

    artifacts = (Artifact("stdout", ("a", "b/**")), Artifact("all", ()))
    assert Config(("node", "start.js"), artifacts, 1.5, 2) == read_config(str(work))


@pytest.mark.parametrize(
    "told",
    [
        [],
        {},
        {"cmd": "a"},
        {"cmd": "", "resultArtifacts": []},
        {"cmd": "a", "args": "b", "resultArtifacts": []},
        {"cmd": "a", "args": [1], "resultArtifacts": []},
        {"cmd": "a", "resultArtifacts": [1]},
        {"cmd": "a", "resultArtifacts": [{"name": 1}]},
        {"cmd": "a", "resultArtifacts": [{"name": "n", "resultPatterns": "x"}]},
    ],
)
def test_an_odd_config_is_refused(work: Path, told: Any) -> None:
    (work / CONFIG_FILE).write_text(json.dumps(told))
    with pytest.raises(JobEnded) as refused:
        read_config(str(work))

    assert "FAILED_EXECUTOR_CONFIG" == refused.value.status


@pytest.mark.parametrize("interval", [None, -1, 0, "x", True])
def test_without_an_interval_there_is_no_live_output(work: Path, interval: object) -> None:
    told = {"cmd": "a", "resultArtifacts": [], "outputInterval": interval}
    (work / CONFIG_FILE).write_text(json.dumps(told))

    assert 0 == read_config(str(work)).output_every_s
