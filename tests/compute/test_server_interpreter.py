"""Which interpreter is meant, and whether it is the one that we run on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deepforge.compute.server.interpreter import check_python, full_path, is_same_python
from deepforge.errors import ConfigError


def test_names_of_one_environment_are_the_same_interpreter(tmp_path: Path) -> None:
    """As venv makes them: `python3` links to `python`, which links to the system's."""
    for environment in ("one", "other"):
        (tmp_path / environment).mkdir()
        (tmp_path / environment / "python").symlink_to(sys.executable)
        (tmp_path / environment / "python3").symlink_to("python")
    (tmp_path / "alias").symlink_to("one")
    one = str(tmp_path / "one" / "python")
    assert is_same_python(one, str(tmp_path / "one" / "python3"))
    assert is_same_python(one, str(tmp_path / "alias" / "python3"))
    assert not is_same_python(one, str(tmp_path / "other" / "python"))
    assert not is_same_python(one, sys.executable)


def test_a_path_is_made_full_and_its_links_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my-python").symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    assert full_path("./my-python") == str(tmp_path / "my-python")
    assert full_path("no-such-python") == "no-such-python"


def test_an_interpreter_too_old_is_named(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\necho 3 7\n")
    old.chmod(0o755)
    with pytest.raises(ConfigError, match=r"is Python 3\.7; 3\.8 or newer is needed"):
        check_python(str(old))
    check_python(sys.executable)
