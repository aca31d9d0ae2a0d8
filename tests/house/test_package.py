"""What is installed elsewhere has all that it needs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

BUILD = "import sys, hatchling.build; print(hatchling.build.build_wheel(sys.argv[1]))"


def test_the_wheel_holds_the_package_and_the_demo(root: Path, tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path)],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    with zipfile.ZipFile(tmp_path / built.stdout.split()[-1]) as wheel:
        names = set(wheel.namelist())

    source = root / "src"
    ours = {
        str(path.relative_to(source))
        for path in (source / "deepforge").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert ours <= names
    assert "deepforge/examples/digits/deepforge.toml" in names
    assert "deepforge/examples/digits/pipelines/digits.py" in names
    strangers = [name for name in names if not name.startswith(("deepforge/", "deepforge-"))]
    assert not strangers
