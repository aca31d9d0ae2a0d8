"""`deepforge --help` answers at once. Times depend on the machine, so what it loads is counted."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "asyncio", "anyio", "concurrent", "cryptography", "dulwich", "email", "fastapi", "http",
    "httpcore", "httpx", "importlib.metadata", "libcst", "multiprocessing", "numpy", "obstore",
    "pydantic", "pymongo", "rich", "socket", "sqlite3", "ssl", "starlette", "structlog", "typer",
    "unittest", "urllib.request", "uvicorn", "uvloop",
}  # fmt: skip

LIST_MODULES = """
import json, sys
before = set(sys.modules)
from deepforge.cli.main import main
sys.argv = ["deepforge", *{arguments!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print()
print(json.dumps(sorted(set(sys.modules) - before)))
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["run", "--help"], ["storage", "--help"]], ids=" ".join
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    loaded = _loaded(arguments)

    heavy = [name for name in loaded if name in HEAVY or name.partition(".")[0] in HEAVY]
    assert not heavy, f"deepforge {' '.join(arguments)} loads {heavy}; import them where used"


def test_help_reads_few_files_of_ours() -> None:
    ours = [name for name in _loaded(["--help"]) if name.partition(".")[0] == "deepforge"]

    assert len(ours) <= 6, ours


def _loaded(arguments: list[str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", LIST_MODULES.format(arguments=arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    names = json.loads(done.stdout.splitlines()[-1])
    assert "deepforge.cli.main" in names
    return list(names)
