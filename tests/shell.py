"""The real command line as a subprocess, with a home folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@dataclass(frozen=True)
class Result:
    """How a command ended. Texts are decoded; `data` is what it wrote to standard output."""

    code: int
    data: bytes
    err: str

    @property
    def out(self) -> str:
        return self.data.decode()

    @property
    def json(self) -> Any:
        """The last line of standard output."""
        return json.loads(self.out.splitlines()[-1])


@dataclass(frozen=True)
class Shell:
    """Runs `deepforge` in `folder`. Commands of one shell share their home."""

    home: Path
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(
        self, *arguments: str | Path, code: int = 0, input: bytes = b"", timeout_s: float = 120
    ) -> Result:
        """Run to the end. Fails the test, showing all that was said, unless it ends with `code`."""
        done = subprocess.run(
            self.command(*arguments),
            input=input,
            capture_output=True,
            cwd=self.folder,
            env=self.environ(),
            timeout=timeout_s,
        )
        result = Result(done.returncode, done.stdout, done.stderr.decode(errors="replace"))
        if result.code != code:
            shown = " ".join(map(str, arguments))
            pytest.fail(
                f"deepforge {shown}: exit code {result.code}, not {code}\n"
                f"{done.stdout.decode(errors='replace')}\n{result.err}"
            )
        assert "Traceback (most recent call last)" not in result.err or code == 1
        return result

    def begin(self, *arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command without waiting. Close it with `with`."""
        return subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=self.environ(),
            **options,
        )

    def command(self, *arguments: str | Path) -> list[str]:
        return [str(Path(sys.executable).with_name("deepforge")), *map(str, arguments)]

    def environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if "DEEPFORGE" not in name}
        return {**kept, "DEEPFORGE_HOME": str(self.home), **self.environment}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell with a fresh home, in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    return Shell(tmp_path / "home", folder)


def write_project(folder: Path, files: Mapping[str, str], *, name: str = "trial") -> Path:
    """Write a project of these files and return its folder."""
    for path, text in {"deepforge.toml": f'name = "{name}"\n', **files}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder
