"""The real command line in a process of its own, with a home folder of its own.

def test_something(shell: Shell) -> None:
    assert shell("storage", "list").out
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent
EXAMPLES = TESTS.parent / "examples"


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it said."""

    code: int
    data: bytes
    """What it wrote to standard output."""
    err: str

    @property
    def out(self) -> str:
        return self.data.decode()

    @property
    def json(self) -> Any:
        """The last line of standard output."""
        return json.loads(self.out.splitlines()[-1])


class WarmShell:
    """Commands forked from a process that has imported them already: see `warm_shell`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, str(TESTS / "warm_shell.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, input: bytes, **request: Any) -> Result:
        files = {name: self._folder / name for name in ("stdin", "stdout", "stderr")}
        for path in files.values():
            path.write_bytes(b"")
        files["stdin"].write_bytes(input)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        spelled = {**request, **{name: str(path) for name, path in files.items()}}
        self._process.stdin.write(json.dumps(spelled) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return Result(
            code, files["stdout"].read_bytes(), files["stderr"].read_text(errors="replace")
        )

    def close(self) -> None:
        self._process.communicate(timeout=10)


@dataclass(frozen=True)
class Shell:
    """Runs `deepforge` in `folder`. Commands of one shell share their home."""

    home: Path
    folder: Path
    warm: WarmShell
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(
        self, *arguments: str | Path, code: int = 0, input: bytes = b"", timeout_s: int = 120
    ) -> Result:
        """Run to the end. Fails the test, showing all that was said, unless it ends with `code`."""
        result = self.warm.run(
            input,
            arguments=[str(one) for one in arguments],
            folder=str(self.folder),
            environment=self.environ(),
            timeout_s=timeout_s,
        )
        if result.code != code:
            shown = " ".join(map(str, arguments))
            pytest.fail(
                f"deepforge {shown}: exit code {result.code}, not {code}\n"
                f"{result.data.decode(errors='replace')}\n{result.err}"
            )
        return result

    def begin(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start a command in a fresh interpreter without waiting. Use it in `with`."""
        return subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=self.environ(),
            start_new_session=True,
        )

    def command(self, *arguments: str | Path) -> list[str]:
        return [str(Path(sys.executable).with_name("deepforge")), *map(str, arguments)]

    def environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if "DEEPFORGE" not in name}
        return {**kept, "DEEPFORGE_HOME": str(self.home), **self.environment}


@pytest.fixture(scope="session")
def warm_shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmShell]:
    warm = WarmShell(tmp_path_factory.mktemp("shell"))
    yield warm
    warm.close()


@pytest.fixture
def shell(tmp_path: Path, warm_shell: WarmShell) -> Shell:
    """A shell with a fresh home, in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    return Shell(tmp_path / "home", folder, warm_shell)


def write_project(folder: Path, files: Mapping[str, str], *, name: str = "trial") -> Path:
    """Write a project of these files and return its folder."""
    for path, text in {"deepforge.toml": f'name = "{name}"\n', **files}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder
