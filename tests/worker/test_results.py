"""Which files are results."""

from __future__ import annotations

import os
from pathlib import Path

from deepforge.worker.results import find_files
from deepforge.worker.source import Artifact


def test_each_artifact_takes_its_files(tmp_path: Path) -> None:
    for name in ("a.txt", "b.bin", "sub/c.txt", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    artifacts = [
        Artifact("texts", ("*.txt", "**/*.txt")),
        Artifact("all", ()),
        Artifact("none", ("*.zip",)),
    ]

    assert {
        "texts": ["a.txt", "sub/c.txt"],
        "all": [".hidden", "a.txt", "b.bin", "sub/c.txt"],
        "none": [],
    } == find_files(str(tmp_path), artifacts)


def test_only_real_files_within_the_folder_are_results(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").touch()
    work = tmp_path / "work"
    work.mkdir()
    (work / "file").symlink_to(tmp_path / "outside" / "secret")
    (work / "folder").symlink_to(tmp_path / "outside")
    os.mkfifo(work / "pipe")
    (work / os.fsdecode(b"\xff")).touch()

    assert {"all": []} == find_files(str(work), [Artifact("all", ())])
