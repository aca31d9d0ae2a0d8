"""What the files may and must say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from deepforge import plugins
from deepforge.settings import declared

LONGEST_FILE_LINES = 600

REGISTRIES = [
    "pypi" + ".org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com",
    "yarn" + "pkg.com", "golang" + ".org", "crates" + ".io", "anaconda" + ".org",
]  # fmt: skip
"""Where packages come from is the business of whoever installs: a lock file names none of them."""

MACHINE_PATH = re.compile(r"(?<![\w.:/<>}$*-])/(?:root|wor[k])/\w")
"""A path that exists on one machine only; the home of whoever runs the tests is one too."""


def test_no_file_names_a_package_registry(project_files: list[Path]) -> None:
    wrong = [
        f"{path}: {name}" for path in project_files for name in REGISTRIES if name in _text(path)
    ]

    assert not wrong, "\n" + "\n".join(wrong)


def test_no_file_holds_a_path_of_one_machine(project_files: list[Path]) -> None:
    wrong = [
        f"{path}:{number}: {line.strip()[:100]}"
        for path in project_files
        for number, line in enumerate(_text(path).splitlines(), start=1)
        if MACHINE_PATH.search(line) or f"{Path.home()}/" in line
    ]

    assert not wrong, "\n" + "\n".join(wrong)


def test_lock_files_pin_every_package_with_hashes(root: Path) -> None:
    locks = sorted((root / "requirements").glob("*.txt"))
    assert locks

    for lock in locks:
        entries = re.split(r"\n(?=\S)", _without_comments(lock.read_text()).strip())
        unpinned = [
            entry for entry in entries if "==" not in entry or "--hash=sha256:" not in entry
        ]
        assert not unpinned, lock


def test_no_source_file_is_too_long(root: Path) -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in _source(root)}
    wrong = {str(path): length for path, length in lengths.items() if length > LONGEST_FILE_LINES}

    assert not wrong, "a file this long holds two ideas: give each its own"


def test_every_module_begins_by_saying_what_it_is_for(root: Path) -> None:
    wrong = []
    for path in _source(root):
        tree = ast.parse(path.read_text())
        first_line = (ast.get_docstring(tree) or "").partition("\n")[0]
        if tree.body and not first_line.strip():
            wrong.append(str(path))

    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("port", ["storage", "compute"])
def test_every_setting_of_an_adapter_has_a_sentence(port: plugins.Port) -> None:
    infos = plugins.adapters(port)
    assert infos

    for info in infos:
        assert isinstance(info, plugins.AdapterInfo), info
        assert info.summary
        for one in declared(info.settings_class()):
            assert one.sentence.endswith("."), f"{port} {info.id}: {one.name} lacks a sentence"


def _source(root: Path) -> list[Path]:
    return sorted((root / "src").rglob("*.py"))


def _text(path: Path) -> str:
    data = path.read_bytes()
    return "" if b"\0" in data[:8192] else data.decode("utf-8", errors="replace")


def _without_comments(text: str) -> str:
    return re.sub(r"(?m)^\s*#.*\n?", "", text)
