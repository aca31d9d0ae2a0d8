from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from deepforge.errors import ConfigError
from deepforge.server.home import Home, open_home


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_home_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    home = open_home({"DEEPFORGE_HOME": str(tmp_path / "deep" / "home")})

    assert home.folder == tmp_path / "deep" / "home"
    assert mode(home.folder) == 0o700
    assert {mode(one) for one in (home.storage, home.computes, home.logs)} == {0o700}


def test_opening_it_again_changes_nothing(tmp_path: Path) -> None:
    environ = {"DEEPFORGE_HOME": str(tmp_path)}
    first = open_home(environ)
    (first.storage / "object").write_text("kept")

    assert open_home(environ) == first
    assert (first.storage / "object").read_text() == "kept"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="says where it is on Linux")
def test_without_a_choice_it_is_the_platforms_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))

    assert open_home({}).folder == tmp_path / "deepforge"


def test_a_relative_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert open_home({"DEEPFORGE_HOME": "here"}).folder == tmp_path / "here"


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/deepforge-home", "nul\0"])
def test_a_home_that_cannot_be_used_is_a_clear_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="cannot be used") as caught:
        open_home({"DEEPFORGE_HOME": str(tmp_path / place)})

    assert "DEEPFORGE_HOME" in str(caught.value.hint)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_home_of_somebody_else_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)

    with pytest.raises(ConfigError, match="belongs to another user"):
        open_home({"DEEPFORGE_HOME": str(tmp_path)})


@pytest.mark.parametrize(("mode", "advice"), [(0o777, "chmod 700"), (0o1777, "of your own")])
def test_a_home_everybody_may_write_to_is_refused(tmp_path: Path, mode: int, advice: str) -> None:
    """A sticky folder is shared on purpose, as /tmp is: nobody is told to close it."""
    tmp_path.chmod(mode)

    with pytest.raises(ConfigError, match="everybody") as caught:
        open_home({"DEEPFORGE_HOME": str(tmp_path)})

    assert advice in (caught.value.hint or "")
    assert ("chmod" in (caught.value.hint or "")) == (mode == 0o777)


def test_the_database_is_in_the_home_unless_the_environment_names_one(tmp_path: Path) -> None:
    home = Home(tmp_path)

    assert home.database_url({}) == f"sqlite://{tmp_path}/deepforge.db"
    assert home.database_url({"DEEPFORGE_DATABASE": "mongodb://x/y"}) == "mongodb://x/y"


def test_the_address_is_written_whole_and_only_removed_by_its_writer(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.read_address() is None

    home.write_address("http://127.0.0.1:1")
    home.write_address("http://127.0.0.1:2")
    home.remove_address("http://127.0.0.1:1")
    assert home.read_address() == "http://127.0.0.1:2"

    home.remove_address("http://127.0.0.1:2")
    assert home.read_address() is None
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_written_is_fine_once_it_holds_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in it can be read. (A read-only file system takes more rights than a test has.)"""
    environ = {"DEEPFORGE_HOME": str(tmp_path)}
    home = open_home(environ)

    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(ConfigError, match="Read-only file system"):
        open_home(environ)
    home.database.touch()
    assert open_home(environ) == home
