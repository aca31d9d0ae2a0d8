"""The files that an operation's code can reach: what a result depends on besides data and values."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import lru_cache

from deepforge.pipelines.finding import Findings
from deepforge.pipelines.source import LARGEST_SOURCE_BYTES, Files, Source, parse

_ALWAYS = ("serializers.py", "requirements.txt", "environment.yml")


def source_closure(files: Files, modules: Iterable[str]) -> tuple[str, ...]:
    """Return the project files that modules reach by imports, sorted, their own included.

    `modules` are those of a node: its operation's and its resources'. Imports anywhere in a file
    count. Files that a job loads in any other way (`importlib`, `open`) are not seen.
    """
    waiting = [*modules, "serializers"]
    reached = {one for one in _ALWAYS if one in files}
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        for file in _files_of(files, module):
            reached.add(file)
            if len(files[file]) <= LARGEST_SOURCE_BYTES:
                waiting.extend(_imports(file, files[file]))
    return tuple(sorted(reached))


def _files_of(files: Files, module: str) -> Iterator[str]:
    """Give the file of a module, and those of the packages it lies in, which are imported first."""
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        path = "/".join(parts[:length])
        if f"{path}/__init__.py" in files:
            yield f"{path}/__init__.py"
        elif f"{path}.py" in files:
            yield f"{path}.py"


@lru_cache(maxsize=128)
def _imports(file: str, data: bytes) -> tuple[str, ...]:
    """Return the modules that a file imports; none if it is not Python."""
    source = parse(file, data, Findings(file))
    return () if source is None else tuple(dict.fromkeys(_imported(source)))


def _imported(source: Source) -> Iterator[str]:
    package = source.module.split(".")
    if not source.file.endswith("/__init__.py"):
        package = package[:-1]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
