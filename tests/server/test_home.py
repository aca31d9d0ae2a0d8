from __future__ import annotations

import multiprocessing
import os
import stat
import sys
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


def test_a_home_everybody_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)

    with pytest.raises(ConfigError, match="everybody"):
        open_home({"DEEPFORGE_HOME": str(tmp_path)})


def test_the_database_is_in_the_home_unless_the_environment_names_one(tmp_path: Path) -> None:
    home = Home(tmp_path)

    assert home.database_url({}) == f"sqlite://{tmp_path}/deepforge.db"
    assert home.database_url({"DEEPFORGE_DATABASE": "mongodb://x/y"}) == "mongodb://x/y"


def test_the_token_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)

    first, second = home.access_token(), home.access_token()

    assert first == second
    assert len(first.reveal()) >= 43
    assert mode(home.token) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["token"]


def test_processes_that_race_for_the_first_token_all_get_the_same(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    with context.Pool(8) as pool:
        tokens = pool.map(_token, [tmp_path] * 32, chunksize=1)

    assert len(set(tokens)) == 1


def _token(folder: Path) -> str:
    return Home(folder).access_token().reveal()


def test_an_emptied_token_is_an_error_and_not_an_open_door(tmp_path: Path) -> None:
    Home(tmp_path).token.write_text("\n")

    with pytest.raises(ConfigError, match="empty or too short"):
        Home(tmp_path).access_token()


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
