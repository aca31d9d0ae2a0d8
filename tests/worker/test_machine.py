"""What a machine has, as far as it can be seen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deepforge.worker.machine import clean_environment, find_gpus, memory_bytes


def test_gpus_are_those_nvidia_smi_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '0\\n1\\n2\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    assert ("0", "1", "2") == find_gpus({})
    program.write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    assert () == find_gpus({})
    program.unlink()
    assert () == find_gpus({})


@pytest.mark.parametrize(("given", "found"), [("", ()), ("-1", ()), ("2, 7", ("2", "7"))])
def test_gpus_that_were_given_to_the_worker_are_all_it_has(
    given: str, found: tuple[str, ...]
) -> None:
    assert found == find_gpus({"CUDA_VISIBLE_DEVICES": given})


def test_memory_is_what_is_there() -> None:
    assert 2**28 < memory_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_jobs_see_what_programs_need_and_nothing_else() -> None:
    seen = clean_environment({"HOME": "/h", "https_proxy": "p", "DEEPFORGE_TOKEN": "t", "X": "x"})

    assert {"HOME": "/h", "https_proxy": "p", "PATH": os.defpath} == seen
