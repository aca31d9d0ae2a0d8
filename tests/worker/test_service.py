"""The systemd unit."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deepforge.worker.service import unit

COMMAND = [sys.executable, "/opt/my worker.pyz", "--url", "http://s", "--name", 'a "b" 100% $c']


def test_the_unit_runs_the_command_and_leaves_jobs_alone() -> None:
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string(unit(COMMAND, "/home/me/token"))

    service = parsed["Service"]
    expected = '"/opt/my worker.pyz" --url http://s --name "a \\"b\\" 100%% $$c"'
    assert f"{sys.executable} {expected}" == service["ExecStart"]
    assert "process" == service["KillMode"]
    assert "default.target" == parsed["Install"]["WantedBy"]


def test_systemd_takes_it(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    path = tmp_path / "deepforge-worker.service"
    path.write_text(unit(COMMAND, "/home/me/token"))
    told = subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=60
    )

    assert not [line for line in told.stderr.splitlines() if "deepforge-worker" in line]


def test_the_program_prints_it_and_asks_for_no_token(worker_pyz: Path, tmp_path: Path) -> None:
    words = ["--url", "http://s", "--jobs", "2", "--folder", str(tmp_path / "w"), "--service"]
    told = subprocess.run(
        [sys.executable, str(worker_pyz), *words], capture_output=True, text=True, check=True
    )

    assert f"ExecStart={sys.executable} {worker_pyz} --url http://s" in told.stdout
    assert f"install -m 600 /dev/stdin {tmp_path}/w/token" in told.stdout
    assert "" == told.stderr
    assert not (tmp_path / "w").exists()
