"""Plugins are installed as real distributions: a folder with metadata on sys.path."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deepforge import plugins
from deepforge.errors import NotFound


def install(folder: Path, entries: str, module: str) -> None:
    info = folder / "lab_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[deepforge.storage]\n{entries}\n")
    (folder / "lab_plugin.py").write_text(module)


def ask(folder: Path, code: str) -> str:
    code = "from deepforge import plugins\nfrom deepforge.errors import *\n" + code
    return subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(folder)},
    ).stdout


GOOD = """
from deepforge.plugins import AdapterInfo
INFO = AdapterInfo("lab", "Lab", "The lab's shelf.", "lab_missing:Settings", "lab_missing:Adapter",
                   install_hint="pip install lab-missing")
OLD = AdapterInfo("old", "Old", "Old.", "x:y", "x:y", port_version=0)
NOT_INFO = 3
"""


def test_our_own_adapters_are_found_by_entry_points() -> None:
    assert {"local", "memory", "s3"} <= {one.id for one in plugins.adapters("storage")}
    assert {"memory", "server"} <= {one.id for one in plugins.adapters("compute")}
    for port in ("storage", "compute"):
        for one in plugins.adapters(port):
            assert isinstance(one, plugins.AdapterInfo)
            assert one.settings_class()
            assert one.adapter_class()


def test_an_unknown_adapter_is_told_with_those_that_are_known() -> None:
    with pytest.raises(NotFound) as caught:
        plugins.adapter("storage", "tape")

    assert "s3" in str(caught.value)


def test_a_broken_plugin_is_listed_with_its_reason(tmp_path: Path) -> None:
    install(
        tmp_path,
        "absent = lab_absent:INFO\nold = lab_plugin:OLD\nodd = lab_plugin:NOT_INFO\n"
        "lab = lab_plugin:INFO",
        GOOD,
    )

    said = ask(tmp_path, "for one in plugins.adapters('storage'): print(one)")

    assert "Broken(id='absent'" in said
    assert "lab_absent" in said
    assert "version 0 of the storage port" in said
    assert "is int, not an AdapterInfo" in said
    assert "id='s3'" in said


def test_a_plugin_whose_adapter_cannot_be_imported_says_how_to_mend_it(tmp_path: Path) -> None:
    install(tmp_path, "lab = lab_plugin:INFO", GOOD)
    code = """
try:
    plugins.adapter("storage", "lab").adapter_class()
except ConfigError as error:
    print(error)
"""

    said = ask(tmp_path, code)

    assert "lab_missing" in said
    assert "pip install lab-missing" in said


def test_a_broken_plugin_cannot_be_used(tmp_path: Path) -> None:
    install(tmp_path, "bad = lab_plugin:INFO", "raise RuntimeError('no licence')")
    code = """
try:
    plugins.adapter("storage", "bad")
except ConfigError as error:
    print(error)
"""

    assert "no licence" in ask(tmp_path, code)
