"""Files of operations are taken over whatever they look like, and nothing of a job stays."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepforge.runner.files import FILE_MODE, place, remove_tree, take_over
from not_root import not_root, own_folder
from runner.far_side import FarSide, digest


@pytest.fixture
def owned() -> Iterator[Path]:
    with own_folder() as folder:
        yield folder


def test_a_folder_goes_whatever_modes_are_in_it(owned: Path) -> None:
    with not_root():
        top = owned / "top"
        inner = top / "a" / "b" / "c"
        inner.mkdir(parents=True)
        for folder in (top, top / "a", top / "a" / "b", inner):
            (folder / "file").write_text("x")
            (folder / "link").symlink_to("/etc")
            (folder / "file").chmod(0)
        (top / "a" / "empty").mkdir(mode=0)
        for folder in (inner, top / "a" / "b", top / "a", top):
            folder.chmod(0)
        with pytest.raises(PermissionError):  # else this test could not fail
            list(top.iterdir())

        remove_tree(str(top))

    assert list(owned.iterdir()) == []


def test_a_folder_goes_that_is_deeper_than_any_path_and_any_stack(owned: Path) -> None:
    dig = "import os\nfor _ in range(1100):\n    os.mkdir('deeper')\n    os.chdir('deeper')"
    (owned / "top").mkdir()
    subprocess.run([sys.executable, "-c", dig], cwd=owned / "top", check=True)

    remove_tree(str(owned / "top"))

    assert list(owned.iterdir()) == []


def test_what_links_lead_to_stays(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (kept / "inner").mkdir(parents=True)
    kept.chmod(0o750)
    top = tmp_path / "top"
    top.mkdir()
    (top / "link").symlink_to(kept)

    remove_tree(str(top))
    remove_tree(str(top))  # is not there any more

    assert (kept / "inner").is_dir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o750


def test_our_files_have_this_mode(tmp_path: Path) -> None:
    (tmp_path / "new").touch()

    assert FILE_MODE == stat.S_IMODE((tmp_path / "new").stat().st_mode)


@pytest.mark.parametrize("mode", [0, 0o600, 0o777])
def test_a_file_of_the_operation_gets_the_mode_of_ours(owned: Path, mode: int) -> None:
    with not_root():
        for name in ("placed", "sent"):
            (owned / name).write_bytes(b"data")
            (owned / name).chmod(mode)

        found = place(str(owned / "placed"), str(owned / "store" / "key"))

        assert (4, digest(b"data")) == found
        assert FILE_MODE == stat.S_IMODE((owned / "store" / "key").stat().st_mode)
        assert 4 == take_over(str(owned / "sent")).st_size
        assert b"data" == (owned / "sent").read_bytes()


def test_the_umask_of_an_operation_does_not_reach_the_storage(far: FarSide) -> None:
    ended = far.run_op(
        "import os\nclass Op:\n    def execute(self):\n        os.umask(0o777)\n        return 1\n"
    )

    assert 0 == ended.code
    assert 1 == ended.output()
    files = [path for path in ended.store.rglob("*") if path.is_file()]
    modes = {str(path.relative_to(ended.store)): path.stat().st_mode & 0o777 for path in files}
    assert FILE_MODE == modes["outputs/result"]
    assert FILE_MODE == modes["result.json"]


def test_a_file_is_placed_where_one_file_system_is_mounted_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The volumes of a container are so: one device, and no way to rename from one to the other."""
    rename = os.replace

    def within_a_mount(source: str, target: str) -> None:
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(source, target)

    monkeypatch.setattr(os, "replace", within_a_mount)
    source, target = tmp_path / "work" / "made", tmp_path / "volume" / "kept"
    source.parent.mkdir()
    source.write_bytes(b"content")

    found = place(str(source), str(target))

    assert found == (7, digest(b"content"))
    assert target.read_bytes() == b"content"
    assert not source.exists()
    assert list(target.parent.iterdir()) == [target]
