"""The runner is one file of standard library code that every Python from 3.8 on runs."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from deepforge.runner import build, support
from deepforge.runner.protocol import Argument, Limits
from runner.far_side import SOURCE, Ended, FarSide, digest

LISTING = """
import sys
before = set(sys.modules)
{prepare}
import deepforge.runner.__main__ as runner
runner.warm()
names = {{name.partition(".")[0] for name in set(sys.modules) - before}} - {{"deepforge"}}
known = getattr(sys, "stdlib_module_names", None)
print(sorted(name for name in names if known and name not in known))
print("deepforge.errors" in sys.modules)
import threading
print(threading.active_count())
"""


def test_the_archive_is_the_same_for_the_same_sources() -> None:
    again = subprocess.run(
        [sys.executable, "-c", "import sys, deepforge.runner.build as b;"
         "sys.stdout.buffer.write(b.runner_archive())"],
        capture_output=True,
        check=True,
    )  # fmt: skip

    assert digest(build.runner_archive()) == digest(again.stdout)


def test_every_module_of_the_runner_is_in_it() -> None:
    here = {path.stem for path in (SOURCE / "deepforge" / "runner").glob("*.py")}

    assert here - {"build"} == set(support.MODULES)


def test_the_archive_is_small_and_holds_no_paths_of_this_machine(tmp_path: Path) -> None:
    archive = tmp_path / "runner.pyz"
    archive.write_bytes(build.runner_archive())

    assert archive.stat().st_size < 64 * 1024
    with zipfile.ZipFile(archive) as found:
        names = found.namelist()
        assert "__main__.py" in names
        assert "deepforge/serialization.py" in names
        assert not any(str(SOURCE).encode() in found.read(name) for name in names)


def test_the_runner_imports_the_standard_library_alone(tmp_path: Path) -> None:
    archive = tmp_path / "runner.pyz"
    archive.write_bytes(build.runner_archive())
    for place in (archive, SOURCE):
        script = LISTING.format(prepare=f"sys.path.insert(0, {str(place)!r})")
        found = subprocess.run(
            [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, cwd=tmp_path
        )
        assert ["[]", "False", "1"] == found.stdout.splitlines(), found.stderr


def test_it_works_alone_in_an_empty_folder(tmp_path: Path) -> None:
    """No site packages, no environment, nothing beside it: `python -I -S runner.pyz job.json`."""
    far = FarSide(tmp_path)
    process = far.start(far.job("class Op:\n    def execute(self): return 'alone'\n"))
    far.ended(process)
    (far.store / "result.json").unlink()
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "runner.pyz").write_bytes(far.pyz.read_bytes())
    (alone / "job.json").write_bytes((far.folder / "job.json").read_bytes())
    found = subprocess.run(
        [sys.executable, "-I", "-S", "runner.pyz", "job.json"],
        cwd=alone,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )

    assert (0, "") == (found.returncode, found.stderr)
    assert (far.store / "result.json").exists()


def test_every_python_runs_it(any_python: str, tmp_path: Path) -> None:
    """A value through pickle, a log with a progress bar, and a failure, the last in a fork."""
    op = """
        import sys
        class Op:
            def __init__(self, fail, sizes):
                self.fail = fail
                self.sizes = sizes
            def execute(self, before, *parts):
                print("one\\rtwo")
                print("three", file=sys.stderr)
                if self.fail:
                    raise KeyError("on purpose")
                return {"before": before, "parts": parts, "sizes": self.sizes}, sys.version_info[:2]
    """
    far = FarSide(tmp_path, python=any_python)

    def run(fail: bool) -> Ended:
        arguments = [Argument("fail", repr(fail)), Argument("sizes", "{(1, 2): {3}, 'x': set()}")]
        inputs = [far.given("before", {"a": [1.5]}), far.given("part", "p", position=0)]
        return far.run_op(
            op, arguments=arguments, inputs=inputs, outputs=["x", "version"], limits=Limits(30)
        )

    for _ in range(2):  # the second time from the copy in the cache
        good = run(False)
        assert 0 == good.code, good.stderr
        assert "" == good.stderr
        expected = {"before": {"a": [1.5]}, "parts": ("p",), "sizes": {(1, 2): {3}, "x": set()}}
        assert expected == good.output("x")
        assert b"two\nthree\n" == good.log
        far.again()
    far.mode = "fork"
    bad = run(True)
    assert 1 == bad.code
    assert "KeyError: 'on purpose'" == bad.failure.message
    assert ("operations/op.py", 11) == (bad.failure.file, bad.failure.line)
