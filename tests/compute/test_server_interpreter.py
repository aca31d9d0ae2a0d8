"""Which interpreter is meant, and whether it is the one that we run on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deepforge.compute.server.interpreter import check_python, full_path
from deepforge.errors import ConfigError


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
