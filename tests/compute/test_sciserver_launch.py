"""The archive that is handed over, run as SciServer would: by some `python3`, in a folder."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from deepforge.compute.port import JobRequest, Resources
from deepforge.compute.sciserver import launch
from deepforge.compute.sciserver.package import command_line, pack
from deepforge.testing.compute_tools import python
from pythons import any_python

__all__ = ["any_python"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def begin(folder: Path, request: JobRequest, interpreter: str = sys.executable) -> Any:
    (folder / "job.pyz").write_bytes(pack(request))
    return subprocess.Popen([interpreter, folder / "job.pyz"], stdout=subprocess.DEVNULL)


def record(folder: Path) -> Any:
    return json.loads((folder / "exit.json").read_text())


def test_only_the_first_of_two_runs(folder: Path) -> None:
    request = python("print('ran')")
    with begin(folder, request) as one, begin(folder, request) as other:
        codes = one.wait(30), other.wait(30)

    assert codes == (0, 0)
    assert (folder / "output.txt").read_bytes() == b"ran\n"


def test_a_time_limit_is_kept(folder: Path) -> None:
    limited = Resources(walltime_s=0.3)
    with begin(folder, python("import time; time.sleep(60)", resources=limited)) as job:
        job.wait(30)

    assert record(folder)["reason"] == "walltime"
    assert record(folder)["exit_code"] == -signal.SIGTERM


def test_a_command_is_asked_to_end_before_its_container_is(folder: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "print('up', flush=True)\n"
        "time.sleep(60)\n"
    )
    with begin(folder, python(code)) as job:
        end = time.monotonic() + 20
        while not (folder / "output.txt").exists() or not (folder / "output.txt").stat().st_size:
            assert time.monotonic() < end
            time.sleep(0.01)
        job.terminate()
        job.wait(30)

    assert record(folder) == {"exit_code": 75, "reason": "normal", "message": None}


def test_a_python_that_is_too_old_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "job.pyz").write_bytes(pack(python("")))
    monkeypatch.setattr(launch, "NEEDED", (99, 1))

    assert launch.main(str(folder / "job.pyz")) == 126
    assert "is needed" in record(folder)["message"]


def test_it_runs_on_every_python_from_3_8_on(folder: Path, any_python: str) -> None:
    with begin(folder, python("raise SystemExit(3)"), any_python) as job:
        job.wait(60)

    assert record(folder)["exit_code"] == 3


def test_the_words_of_a_command_are_quoted() -> None:
    line = command_line("/opt/my python", "Storage/alice/it's/job.pyz")

    assert line == ("'/opt/my python' '/home/idies/workspace/Storage/alice/it'\"'\"'s/job.pyz'")
