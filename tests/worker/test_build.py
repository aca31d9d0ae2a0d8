"""The worker is one file of standard library code that every Python from 3.8 on runs."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

from deepforge.runner.build import runner_archive
from deepforge.worker import build
from runner.far_side import SOURCE, Ended, FarSide, until
from worker.fake_server import FakeServer
from worker.programs import Workers, handed

LISTING = """
import sys
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
import deepforge.worker.__main__
names = {name.partition(".")[0] for name in set(sys.modules) - before} - {"deepforge"}
print(sorted(name for name in names if name not in sys.stdlib_module_names))
import threading
print(threading.active_count())
"""


def test_the_archive_is_the_same_for_the_same_sources() -> None:
    again = subprocess.run(
        [sys.executable, "-c", "import sys, deepforge.worker.build as b;"
         "sys.stdout.buffer.write(b.worker_archive())"],
        capture_output=True,
        check=True,
    )  # fmt: skip

    assert hashlib.sha256(build.worker_archive()).digest() == hashlib.sha256(again.stdout).digest()


def test_every_module_of_the_worker_is_in_it_and_the_runner(worker_pyz: Path) -> None:
    here = {path.stem for path in (SOURCE / "deepforge" / "worker").glob("*.py")}

    assert here - {"build"} == set(build.MODULES)
    with zipfile.ZipFile(worker_pyz) as found:
        assert runner_archive() == found.read("deepforge/worker/runner.pyz")
        assert not any(str(SOURCE).encode() in found.read(name) for name in found.namelist())


def test_the_archive_is_small(worker_pyz: Path) -> None:
    assert worker_pyz.stat().st_size < 256 * 1024


def test_it_imports_the_standard_library_alone(worker_pyz: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LISTING, str(worker_pyz)], capture_output=True, text=True
    )

    assert ["[]", "1"] == found.stdout.splitlines(), found.stderr


def test_every_python_works(
    any_python: str, workers: Workers, server: FakeServer, far: FarSide
) -> None:
    """Jobs of both kinds, and the end."""
    workers.python = any_python
    worker = workers(server)
    server.offer(
        "aa",
        handed(
            far.job("import sys\nclass Op:\n    def execute(self): return sys.version_info[:2]\n")
        ),
    )
    config = {"cmd": "echo", "args": ["hello"], "outputInterval": 50, "resultArtifacts": []}
    server.offer_files("bb", {"executor_config.json": json.dumps(config).encode()})
    until(lambda: server.status("aa") and server.status("bb"))

    assert ("SUCCESS", "SUCCESS") == (server.status("aa"), server.status("bb")), worker.said
    version = Ended(0, "", "", far.store, far.folder).output()
    told = subprocess.run([any_python, "--version"], capture_output=True, text=True, check=True)
    major, minor = version
    assert told.stdout.startswith(f"Python {major}.{minor}.")
    assert "hello\n" == server.text("bb")
    assert 0 == worker.end()
    assert "Traceback" not in worker.said
