"""Fixtures of the runner's tests: a far side for each way of starting, and a server of objects."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.far_server import FarServer
from runner.far_side import FarSide, Mode

PYTHONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")


@pytest.fixture(params=["fresh", "fork"])
def mode(request: pytest.FixtureRequest) -> Mode:
    """How an operation is started: each bad day must end the same way in both."""
    found: Mode = request.param
    return found


@pytest.fixture
def far(tmp_path: Path, mode: Mode) -> FarSide:
    return FarSide(tmp_path, mode)


@pytest.fixture
def make_far(tmp_path: Path) -> Callable[..., FarSide]:
    """Makes a far side with other properties."""

    def make(mode: Mode = "fork", **properties: object) -> FarSide:
        return FarSide(tmp_path / "far", mode, **properties)  # type: ignore[arg-type]

    return make


@pytest.fixture
def server() -> Iterator[FarServer]:
    with FarServer() as running:
        yield running


@pytest.fixture(params=PYTHONS)
def any_python(request: pytest.FixtureRequest) -> str:
    """Each interpreter of this machine that the runner promises to work with."""
    version: str = request.param
    for candidate in _candidates(version):
        found = subprocess.run([candidate, "--version"], capture_output=True, text=True)
        if found.returncode == 0 and found.stdout.startswith(f"Python {version}."):
            return candidate
    pytest.skip(f"Python {version} is not on this machine")


def _candidates(version: str) -> Iterator[str]:
    on_path = shutil.which(f"python{version}")
    if on_path is not None:
        yield on_path
    pyenv = shutil.which("pyenv")
    if pyenv is not None:
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True).stdout.strip()
        for folder in sorted(Path(root, "versions").glob(f"{version}.*")):
            if re.fullmatch(r"[\d.]+", folder.name) and os.access(folder / "bin/python3", os.X_OK):
                yield str(folder / "bin" / "python3")
