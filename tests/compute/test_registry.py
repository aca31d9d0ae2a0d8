"""Adapters of this package are described lightly and opened from plain settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deepforge.compute.memory import MemoryCompute
from deepforge.compute.port import Host
from deepforge.compute.registry import MEMORY, SERVER, open_compute
from deepforge.compute.server.adapter import ServerCompute
from deepforge.errors import ConfigError, NotFound
from deepforge.settings import declared


def test_open_makes_the_adapter_from_texts(tmp_path: Path) -> None:
    client = open_compute("here", "server", {"slots": "3", "start": "fresh"}, Host(tmp_path))
    assert client.name == "here"
    assert isinstance(client.adapter, ServerCompute)
    assert client.adapter.settings.slots == 3
    assert isinstance(open_compute("m", "memory", {}, Host(tmp_path)).adapter, MemoryCompute)


def test_open_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no compute adapter 'nowhere'"):
        open_compute("x", "nowhere", {}, Host(tmp_path))
    with pytest.raises(ConfigError) as caught:
        open_compute("x", "server", {"slots": "many", "other": 1}, Host(tmp_path))
    assert set(caught.value.fields) == {"slots", "other"}


@pytest.mark.parametrize("info", [MEMORY, SERVER])
def test_every_setting_has_a_sentence(info: object) -> None:
    for one in declared(info.settings_class()):  # type: ignore[attr-defined]
        assert one.sentence.endswith("."), one.name


def test_describing_adapters_loads_none() -> None:
    code = (
        "import sys, deepforge.compute.registry\n"
        "heavy = {'deepforge.compute.server.adapter', 'deepforge.compute.memory', 'ctypes'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_supervisor_loads_the_standard_library_and_the_runner_alone() -> None:
    """What it imports, every fork pays for; most for what does something after each fork."""
    code = (
        "import sys\n"
        "import deepforge.compute.server.supervisor, deepforge.runner.__main__ as runner\n"
        "runner.warm()\n"
        "known = sys.stdlib_module_names | {'deepforge'}\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "foreign = {name for name in loaded - known if not name.startswith('_')}\n"
        "ours = {name for name in sys.modules if name.startswith('deepforge.')}\n"
        "allowed = ('deepforge.compute', 'deepforge.runner', 'deepforge.serialization')\n"
        "print(foreign, [name for name in ours if not name.startswith(allowed)])\n"
        "costly = {'asyncio', 'subprocess', 'threading', 'logging', 'random'}\n"
        "print(costly & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["set() []", "set()"]
