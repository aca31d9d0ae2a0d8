"""A client of SciServer that we did not write takes our stand-in for the real one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deepforge.testing.sciserver import running

HERE = Path(__file__).parent
INSTALLED = HERE.parents[2] / ".cache" / "interop" / "sciserver"
LOCK = HERE.parents[2] / "requirements" / "interop.txt"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What all its calls gave."""
    marker = INSTALLED / "installed.txt"
    if not marker.is_file() or marker.read_text() != LOCK.read_text():
        pytest.skip(
            "NO FOREIGN CLIENT: the stand-in of SciServer was not tried with SciServerApi. "
            "Run .ci/install-sciserver, which needs a package registry"
        )
    folder = tmp_path_factory.mktemp("foreign")
    local = folder / "local"
    local.mkdir()
    with running(folder / "world", tick_s=0.02) as site:
        site.users.add_user("alice")
        arguments = [site.url, site.users.add_token("alice"), str(local)]
        done = subprocess.run(
            [str(INSTALLED / "bin" / "python"), str(HERE / "foreign_round.py"), *arguments],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_it_finds_the_file_service_and_its_roots(told: dict[str, Any]) -> None:
    assert ["Storage", "Temporary"] == told["roots"]


def test_it_stores_lists_and_fetches_a_file(told: dict[str, Any]) -> None:
    assert told["same"] is True
    assert ["data.bin"] == told["names"]
    assert "round" not in told["after"]


def test_a_missing_file_is_an_empty_one_to_it(told: dict[str, Any]) -> None:
    assert told["missing"] == ""


def test_it_runs_a_command(told: dict[str, Any]) -> None:
    assert told["shell"]["status"] == 32
    assert told["stdout"] == "out\n"
    assert len(told["shell"]["userVolumes"]) == 3
    assert ["sdss"] == [one["name"] for one in told["shell"]["volumeContainers"]]


def test_it_runs_a_notebook(told: dict[str, Any]) -> None:
    assert told["notebook"]["status"] == 32
    assert told["notebook_stdout"] == "from a notebook\n"


def test_it_cancels_a_job(told: dict[str, Any]) -> None:
    assert told["canceled"]["status"] == 128
    assert ["long", "notebook", "shell"] == told["listed"]


def test_it_shows_the_errors(told: dict[str, Any]) -> None:
    assert "Path does not exist." in told["error"]
    assert "status code 401" in told["unauthenticated"]
