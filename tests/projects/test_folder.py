"""What belongs to a project's folder is what git would add."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deepforge.errors import Conflict, DeepForgeError, Forbidden, InvalidRequest, NotFound
from deepforge.projects import folder as reading
from deepforge.projects.folder import read_folder
from projects.repository import git


def fill(folder: Path, *paths: str) -> None:
    for path in paths:
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(os.fsencode(f"content of {path}"))


def git_adds(folder: Path, work: Path) -> dict[str, tuple[str, str]]:
    """What git adds of a copy of the folder: mode and blob id by path."""
    shutil.copytree(folder, work)
    git(work, "init", "-q")
    git(work, "add", "-A")
    staged = git(work, "ls-files", "--stage", "-z").split("\0")[:-1]
    lines = [line.partition("\t") for line in staged]
    return {path: (info.split()[0], info.split()[1]) for info, _, path in lines}


def as_staged(folder: Path) -> dict[str, tuple[str, str]]:
    return {
        path: ("100755" if entry.executable else "100644", entry.sha)
        for path, entry in read_folder(folder).items()
    }


def test_ids_and_modes_are_those_git_adds(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    fill(folder, "deepforge.toml", "operations/train.py", "a b/'c\"/d\ne.txt", "é/🦜.txt")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "empty").touch()
    (folder / "empty folder").mkdir()

    assert git_adds(folder, tmp_path / "work") == as_staged(folder)


def test_an_entry_knows_its_content_and_size(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\0\xff\r\n")

    entry = read_folder(tmp_path)["a"]

    assert entry.size_bytes == 4
    assert entry.read() == b"\0\xff\r\n"
    (tmp_path / "a").write_bytes(b"later")
    with pytest.raises(Conflict, match="changed while it was read"):
        entry.read()
    (tmp_path / "a").unlink()
    with pytest.raises(NotFound, match="disappeared"):
        entry.read()


def test_what_gitignore_ignores_is_left_out_as_git_does_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    fill(
        folder,
        *("keep.py", "drop.log", "important.log", "build/x", "src/build/y", "src/deep/build"),
        *("data/a.bin", "data/keep.txt", "src/a.tmp", "src/sub/a.tmp", "src/sub/b.tmp"),
        *("only_here/root.txt", "sub/only_here/root.txt", "[x].txt", "x.txt", "#hash", "!bang"),
        *("out/1/a", "out/2/a", "trailing ", "docs/a/b/c.html", "docs/c.html", "cache/.keep"),
    )
    (folder / ".gitignore").write_text(
        "# a comment\n*.log\n!important.log\nbuild/\ndata/*\n!data/keep.txt\n/only_here\n"
        "\\#hash\n\\!bang\n\\[x\\].txt\nout/*/a\ndocs/**/*.html\r\ncache/\n!cache/.keep\n"
    )
    (folder / "out" / ".gitignore").write_bytes(b"\xef\xbb\xbf/2\n[z-a]\n")
    (folder / "src" / ".gitignore").write_text("*.tmp\n!/sub/\n")
    (folder / "src" / "sub" / ".gitignore").write_text("!b.tmp\n")

    expected = git_adds(folder, tmp_path / "work")

    assert expected == as_staged(folder)
    assert {"important.log", "data/keep.txt", "src/sub/b.tmp", "src/deep/build"} <= expected.keys()
    assert not {"drop.log", "build/x", "cache/.keep", "only_here/root.txt"} & expected.keys()


@pytest.mark.parametrize("seed", range(60))
def test_random_ignore_files_mean_what_they_mean_to_git(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    folder = tmp_path / "folder"
    names = ["a", "b", "c.py", "d.txt"]
    for _ in range(25):
        parts = [rng.choice(names[:2]) for _ in range(rng.randrange(4))]
        path = "/".join([*parts, rng.choice(names[2:]) + rng.choice(["", "x"])])
        fill(folder, path)
    for place in [folder, *(one for one in folder.rglob("*") if one.is_dir())]:
        if rng.random() < 0.5:
            lines = []
            for _ in range(rng.randrange(1, 5)):
                parts = [
                    rng.choice(["a", "b", "*", "**", "?", "*.py", "d*", "[ab]"])
                    for _ in range(rng.randrange(1, 4))
                ]
                body = rng.choice(["", "/"]) + "/".join(parts) + rng.choice(["", "", "/"])
                lines.append(rng.choice(["", "", "!"]) + body)
            (place / ".gitignore").write_text("\n".join(lines))

    assert git_adds(folder, tmp_path / "work") == as_staged(folder)


def test_some_folders_are_left_out_without_being_told(tmp_path: Path) -> None:
    fill(
        tmp_path,
        *(".git/config", "sub/.git/config", ".venv/bin/python", "operations/__pycache__/x.pyc"),
        *("keep.py", "nested/.venv/x", "stray.pyc"),
    )
    assert list(read_folder(tmp_path)) == ["keep.py"]

    (tmp_path / ".gitignore").write_text("!.venv\n!.git\n")
    assert list(read_folder(tmp_path)) == [
        *(".gitignore", ".venv/bin/python", "keep.py", "nested/.venv/x")
    ]


def test_links_inside_are_followed_and_others_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    fill(folder, "real.py", "sub/x")
    fill(tmp_path, "outside.py")
    (folder / "link.py").symlink_to("sub/../real.py")

    files = read_folder(folder)

    assert files["link.py"].sha == files["real.py"].sha
    assert b"content of real.py" == files["link.py"].read()
    assert [path for path, one in files.items() if one.is_link] == ["link.py"]
    targets = {
        "../outside.py": "outside the folder",
        "/etc/passwd": "outside the folder",
        "..": "outside the folder",
        "gone.py": "does not exist",
        "bad": "does not exist",  # a link to itself
        "sub": "not a file",
        ".": "not a file",
    }
    for target, reason in targets.items():
        (folder / "bad").symlink_to(target)
        with pytest.raises(InvalidRequest, match=f"bad is a symbolic link .* {reason}"):
            read_folder(folder)
        (folder / ".gitignore").write_text("bad\n")
        assert sorted(["real.py", "sub/x", "link.py", ".gitignore"]) == list(read_folder(folder))
        (folder / ".gitignore").unlink()
        (folder / "bad").unlink()


def test_a_link_into_git_s_own_data_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, ".git/config")
    (tmp_path / "config").symlink_to(".git/config")

    with pytest.raises(InvalidRequest, match="symbolic link"):
        read_folder(tmp_path)


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    fill(tmp_path / "real", "a")
    (tmp_path / "link").symlink_to("real")

    assert list(read_folder(tmp_path / "link")) == ["a"]


def test_pipes_and_sockets_are_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    os.mkfifo(tmp_path / "pipe")
    place = os.open(tmp_path, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"/proc/self/fd/{place}/socket")  # the path itself may be too long
    os.close(place)

    assert list(read_folder(tmp_path)) == ["a"]


def test_what_is_not_a_folder_is_said(tmp_path: Path) -> None:
    fill(tmp_path, "file")

    with pytest.raises(NotFound, match=r"there is no folder .*nothing"):
        read_folder(tmp_path / "nothing")
    with pytest.raises(InvalidRequest, match="is not a folder"):
        read_folder(tmp_path / "file")


def test_names_are_brought_to_one_spelling(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "é.py")
    fill(tmp_path, decomposed)

    files = read_folder(tmp_path)

    assert list(files) == ["é.py"]
    assert files["é.py"].read() == f"content of {decomposed}".encode()
    fill(tmp_path, "é.py")
    with pytest.raises(InvalidRequest, match=r"two files 'é\.py'"):
        read_folder(tmp_path)


@pytest.mark.parametrize("name", [b"caf\xe9.py", b"caf\xe9/x.py"])
def test_names_that_are_not_utf_8_are_refused(tmp_path: Path, name: bytes) -> None:
    fill(tmp_path, os.fsdecode(name))

    with pytest.raises(InvalidRequest, match=r"'caf\\\\xe9.* is not UTF-8"):
        read_folder(tmp_path)
    (tmp_path / ".gitignore").write_text("caf*\n")
    assert list(read_folder(tmp_path)) == [".gitignore"]


def test_names_that_only_some_machines_can_hold_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, "back\\slash.py")

    with pytest.raises(InvalidRequest, match="backslash"):
        read_folder(tmp_path)


def test_a_large_file_belongs_into_a_storage(tmp_path: Path) -> None:
    with (tmp_path / "data.bin").open("wb") as file:
        file.truncate(reading.MAX_FILE_BYTES + 1)

    with pytest.raises(InvalidRequest, match=r"data\.bin has more than 50 MiB") as caught:
        read_folder(tmp_path)

    assert "deepforge artifacts put" in str(caught.value.hint)
    (tmp_path / ".gitignore").write_text("*.bin")
    assert list(read_folder(tmp_path)) == [".gitignore"]


def test_large_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a", "b", "c")

    monkeypatch.setattr(reading, "MAX_FILES", 2)
    with pytest.raises(InvalidRequest, match="more than 2 files"):
        read_folder(tmp_path)
    monkeypatch.setattr(reading, "MAX_FILES", 3)
    assert len(read_folder(tmp_path)) == 3
    monkeypatch.setattr(reading, "MAX_FOLDER_BYTES", 25)
    with pytest.raises(InvalidRequest, match="MiB of files"):
        read_folder(tmp_path)


def test_what_cannot_be_read_is_named() -> None:
    with readable_by_all() as folder:
        fill(folder, "fine", "secret.txt", "locked/x")
        (folder / "secret.txt").chmod(0)
        with as_nobody(), pytest.raises(Forbidden, match=r"secret\.txt cannot be read"):
            read_folder(folder)

        (folder / "secret.txt").chmod(0o644)
        (folder / "locked").chmod(0)
        with as_nobody(), pytest.raises(Forbidden, match="locked cannot be read"):
            read_folder(folder)
        with as_nobody(), pytest.raises(Forbidden, match="locked/x cannot be read"):
            read_folder(folder / "locked" / "x")

        (folder / ".gitignore").write_text("locked\n")
        with as_nobody():
            assert list(read_folder(folder)) == [".gitignore", "fine", "secret.txt"]
        (folder / ".gitignore").chmod(0)
        with as_nobody(), pytest.raises(Forbidden, match=r"\.gitignore cannot be read"):
            read_folder(folder)


def test_a_file_that_fails_half_way_is_named(tmp_path: Path) -> None:
    """/proc/self/mem opens and cannot be read from its start."""
    entry = reading.FileEntry("0" * 40, False, 1, Path("/proc/self/mem"))

    with pytest.raises(DeepForgeError, match="/proc/self/mem cannot be read"):
        entry.read()


def test_reading_a_folder_needs_no_database_nor_network() -> None:
    heavy = "'pymongo', 'httpx', 'fastapi', 'obstore', 'cryptography', 'sqlite3'"
    code = (
        f"import sys, deepforge.projects.folder; print([m for m in [{heavy}] if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)

    assert done.stdout == b"[]\n"


@contextmanager
def readable_by_all() -> Iterator[Path]:
    """A temporary folder that another user may enter; pytest's own are closed."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        (folder / "locked").chmod(0o755)
        shutil.rmtree(folder)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Give up root's right to read everything for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
