"""Who may know whom. Every import counts, also inside functions and for type checkers only."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from deepforge import plugins

GROUND = {"errors", "ids"}
LOW = GROUND | {"settings", "plugins", "events", "machine"}
PORTS = {"storage", "compute", "documents"}
MIDDLE = {"pipelines", "connections", "projects", "runner"}

MAY_KNOW: dict[str, set[str]] = {
    "errors": set(),
    "ids": set(),
    "settings": GROUND,
    "plugins": GROUND,
    "events": GROUND,
    "machine": GROUND,
    "serialization": set(),
    "runner": {"serialization"},
    "worker": {"runner", "serialization"},  # another program of the far side, in one file with it
    "webgme": LOW | PORTS,
    "sciserver": LOW,
    "storage": LOW | {"webgme", "sciserver"},  # of the first the formats of its blobs alone
    "compute": LOW | {"runner", "sciserver", "webgme"},  # Server Compute forks the runner
    "documents": LOW,
    "pipelines": LOW | PORTS,
    "projects": LOW | PORTS,
    "connections": LOW | PORTS,
    "accounts": GROUND | {"settings", "documents"},
    "execution": LOW | PORTS | MIDDLE,
    "server": LOW | PORTS | MIDDLE | {"accounts", "execution", "sciserver", "webgme", "worker"},
    "cli": LOW | PORTS | MIDDLE | {"execution", "sciserver", "server", "worker"},
    "testing": LOW | PORTS,
}
"""A folder or module, and what it may import besides itself. Downwards only: when a test here
fails, inject what is needed or move the shared thing down."""

DOORS = ("deepforge.runner.protocol", "deepforge.runner.build")
FORKED = {
    ("deepforge.compute.server.supervisor", "deepforge.runner.__main__"),
    ("deepforge.compute.server.launch", "deepforge.runner.helper"),
    ("deepforge.compute.server.launch", "deepforge.runner.wire"),
    ("deepforge.compute.server.adapter", "deepforge.runner.files"),
}
"""What others may know of the runner: the agreement, the one file that is shipped, and the entry for
who forks it instead of starting it, with what belongs to that."""

FAR_SIDE = ("runner", "serialization", "worker")

KEPT_IN: dict[str, tuple[str, ...]] = {
    "pymongo": ("deepforge.documents.mongo",),
    "bson": ("deepforge.documents.mongo",),
    "sqlite3": ("deepforge.documents.",),
    "obstore": ("deepforge.storage.s3",),  # and its parts, s3_…
    "dulwich": ("deepforge.projects.",),
    "argon2": ("deepforge.accounts.passwords",),
    "cryptography": ("deepforge.connections.",),
    "fastapi": ("deepforge.server.",),
    "starlette": ("deepforge.server.",),
    "uvicorn": ("deepforge.server.", "deepforge.cli."),
    "click": ("deepforge.cli.",),
    "rich": ("deepforge.cli.",),
    "pytest": ("deepforge.testing.",),
}
"""A library, and the modules (a dot at the end: the folder) that alone may import it."""


@dataclass(frozen=True)
class Import:
    """One module names another."""

    source: str
    target: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.source} imports {self.target}"


@pytest.fixture(scope="module")
def modules(root: Path) -> dict[str, Path]:
    source = root / "src"
    return {_module_name(path, source): path for path in sorted(source.rglob("*.py"))}


@pytest.fixture(scope="module")
def imports(modules: dict[str, Path], root: Path) -> list[Import]:
    return [one for name, path in modules.items() for one in _imports(name, path, modules, root)]


def test_every_folder_has_its_place(modules: dict[str, Path]) -> None:
    rooms = {_room(name) for name in modules} - {""}

    assert rooms <= set(MAY_KNOW), "say in MAY_KNOW what the new folder may import"


def test_imports_run_downwards_only(imports: list[Import]) -> None:
    wrong = []
    for one in imports:
        above, below = _room(one.source), _room(one.target)
        if not one.target.startswith("deepforge") or below in ("", above):
            continue
        if below not in MAY_KNOW[above]:
            allowed = ", ".join(sorted(MAY_KNOW[above])) or "nothing of ours"
            wrong.append(f"{one}; {above} may know {allowed}")

    assert not wrong, "\n" + "\n".join(wrong)


def test_only_the_door_of_the_runner_is_known(imports: list[Import]) -> None:
    """The rest of the runner runs far away."""
    wrong = [
        str(one)
        for one in imports
        if one.target.startswith("deepforge.runner.")
        and one.target not in DOORS
        and (one.source, one.target) not in FORKED
        and _room(one.source) not in ("runner", "worker")
    ]

    assert not wrong, "\n" + "\n".join(wrong)


def test_there_is_no_cycle(imports: list[Import], modules: dict[str, Path]) -> None:
    graph: dict[str, list[str]] = {name: [] for name in modules}
    for one in imports:
        if one.target in graph and one.target != one.source:
            graph[one.source].append(one.target)

    cycle = _cycle(graph)

    assert not cycle, "these import each other in a ring: " + " -> ".join(cycle)


def test_the_far_side_needs_the_standard_library_only(imports: list[Import]) -> None:
    wrong = []
    for one in imports:
        if _room(one.source) not in FAR_SIDE:
            continue
        library = one.target.partition(".")[0]
        ours = library == "deepforge" and _room(one.target) in ("", *FAR_SIDE)
        if not ours and library not in sys.stdlib_module_names and not _is_guarded(one):
            wrong.append(f"{one}; the runner must start with nothing but python3")

    assert not wrong, "\n" + "\n".join(wrong)


def test_libraries_stay_where_they_belong(imports: list[Import]) -> None:
    wrong = []
    for one in imports:
        homes = KEPT_IN.get(one.target.partition(".")[0])
        if homes is not None and not any(_is_in(one.source, home) for home in homes):
            wrong.append(f"{one}; only {' and '.join(homes)} may")

    assert not wrong, "\n" + "\n".join(wrong)


def test_adapters_are_found_and_never_imported(imports: list[Import]) -> None:
    ports: tuple[plugins.Port, ...] = ("storage", "compute")
    infos = [one for port in ports for one in plugins.adapters(port)]
    broken = [one for one in infos if isinstance(one, plugins.Broken)]
    assert not broken

    homes = {
        info.adapter.partition(":")[0] for info in infos if isinstance(info, plugins.AdapterInfo)
    }
    wrong = [str(one) for one in imports if one.target in homes and one.source != one.target]

    assert not wrong, "\n" + "\n".join(wrong)


def _is_guarded(one: Import) -> bool:
    """numpy alone may be used by `serialization`, inside functions, where the user's code has it."""
    return one.source == "deepforge.serialization" and one.target.partition(".")[0] == "numpy"


def _module_name(path: Path, source: Path) -> str:
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _room(module: str) -> str:
    """The folder or module right under `deepforge`; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def _is_in(module: str, home: str) -> bool:
    if home.endswith("."):
        return module.startswith(home)
    return module == home or module.startswith(f"{home}_")


def _imports(name: str, path: Path, modules: dict[str, Path], root: Path) -> list[Import]:
    found = []
    file = str(path.relative_to(root))
    for node in ast.walk(ast.parse(path.read_text(), filename=file)):
        if isinstance(node, ast.Import):
            found += [Import(name, alias.name, file, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                target = inner if inner in modules else node.module
                found.append(Import(name, target, file, node.lineno))
    return found


def _cycle(graph: dict[str, list[str]]) -> list[str]:
    """Return one ring of names, first and last the same, or nothing."""
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        path.append(name)
        for target in graph[name]:
            if ring := visit(target):
                return ring
        path.pop()
        done.add(name)
        return []

    for name in graph:
        if ring := visit(name):
            return ring
    return []
