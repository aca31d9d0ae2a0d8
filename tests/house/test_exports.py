"""The names we promise to keep. A new one is a decision, so it is written down here."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from types import ModuleType

import deepforge

PROMISED = {"__version__"}


def test_the_package_exports_what_is_written_here() -> None:
    assert set(deepforge.__all__) == PROMISED


def test_nothing_public_is_left_unsaid() -> None:
    public = {
        name
        for name, value in vars(deepforge).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }

    assert public <= set(deepforge.__all__)


def test_every_listed_name_exists_and_lists_are_sorted(root: Path) -> None:
    source = root / "src"
    for path in sorted(source.rglob("*.py")):
        if "__all__" not in path.read_text() or "runner" in path.parts:
            continue
        names = _listed(ast.parse(path.read_text()))
        module = ".".join(path.relative_to(source).with_suffix("").parts)
        loaded = importlib.import_module(module.removesuffix(".__init__"))

        assert names == sorted(names), path
        assert not [name for name in names if not hasattr(loaded, name)], path


def _listed(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []
