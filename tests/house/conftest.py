"""What the tests of the house itself share: where it stands, and which files belong to it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the checkout."""
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def project_files(root: Path) -> list[Path]:
    """Every file that is, or would be, under version control."""
    listing = subprocess.run(
        [
            "git",
            "-c",
            "safe.directory=*",
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    paths = [root / name for name in listing.split("\0") if name]
    return [path for path in paths if path.is_file()]
