"""Every interpreter that the far side promises to work with, as far as this machine has it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PYTHONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")


@pytest.fixture(params=PYTHONS)
def any_python(request: pytest.FixtureRequest) -> str:
    """Each interpreter of this machine that the far side promises to work with."""
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
