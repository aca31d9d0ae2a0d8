"""From the files of a project to interfaces and wirings, each file read once.

Nothing of the project is ever imported or run. `project.py` is the way in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from deepforge.pipelines.check import check
from deepforge.pipelines.draft import read_draft
from deepforge.pipelines.finding import Finding, Findings, TooManyFindings, listed, suggest
from deepforge.pipelines.operation import OperationInterface, read_operation
from deepforge.pipelines.resource import ResourceInterface, read_resources, why_no_resource
from deepforge.pipelines.source import Files, Source, file_of, module_of, parse
from deepforge.pipelines.values import Callee
from deepforge.pipelines.wiring import Wiring

T = TypeVar("T")

DEEPEST_NESTING = 50


def modules_of(files: Files, folder: str) -> tuple[str, ...]:
    """Name the public modules of a folder (`operations`, `pipelines`, `resources`), sorted."""
    found = []
    for file in files:
        parts = file.split("/")
        if (
            len(parts) > 1
            and parts[0] == folder
            and file.endswith(".py")
            and not parts[-1].startswith("_")
        ):
            found.append(module_of(file))
    return tuple(sorted(found))


class Reader:
    """Reads the files of a project, each once. Its methods return None for what cannot be read;
    `findings()` then says why."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._notes: dict[str, Findings] = {}
        self._sources: dict[str, Source | None] = {}
        self._operations: dict[str, OperationInterface | None] = {}
        self._resources: dict[str, dict[str, ResourceInterface]] = {}
        self._wirings: dict[str, Wiring | None] = {}
        self._open: list[str] = []

    def findings(self) -> tuple[Finding, ...]:
        """Return what was found so far, in no order."""
        return tuple(one for notes in self._notes.values() for one in notes.all())

    def notes(self, file: str) -> Findings:
        """Return where the findings of a file go."""
        return self._notes.setdefault(file, Findings(file))

    def wiring(self, module: str) -> Wiring | None:
        """Read a pipeline and what it calls. None if anything in its own file is wrong."""
        if module not in self._wirings:
            self._open.append(module)
            self._wirings[module] = self._read(module, self._wiring)
            self._open.pop()
        return self._wirings[module]

    def operation_of(self, module: str) -> OperationInterface | None:
        if module not in self._operations:
            self._operations[module] = self._read(module, read_operation)
        return self._operations[module]

    def resources_of(self, module: str) -> dict[str, ResourceInterface]:
        if module not in self._resources:
            self._resources[module] = self._read(module, read_resources) or {}
        return self._resources[module]

    def operation(self, callee: Callee, findings: Findings) -> OperationInterface | None:
        """Find what a pipeline calls; part of `check.Project`, as are the next two."""
        if not self._is_there(callee, findings):
            return None
        operation = self.operation_of(callee.module)
        if operation is not None and operation.name != callee.name:
            findings.add(
                callee.line,
                f"{operation.file} has no operation `{callee.name}`",
                f"its operation is `{operation.name}`",
            )
            return None
        return operation

    def resource(self, callee: Callee, findings: Findings) -> ResourceInterface | None:
        if not self._is_there(callee, findings):
            return None
        known = self.resources_of(callee.module)
        source = self._sources[callee.module]
        if source is not None and callee.name not in known:
            findings.add(
                callee.line,
                f"{source.file} has no resource `{callee.name}`",
                why_no_resource(source, callee.name, known),
            )
        return known.get(callee.name)

    def pipeline(self, callee: Callee, findings: Findings) -> Wiring | None:
        if not self._is_there(callee, findings):
            return None
        if callee.module in self._open:
            circle = [*self._open[self._open.index(callee.module) :], callee.module]
            findings.add(
                callee.line,
                "pipelines call each other in a circle: "
                + " -> ".join(one.partition(".")[2] for one in circle),
                "a pipeline cannot be part of itself",
            )
            return None
        if len(self._open) >= DEEPEST_NESTING:
            findings.add(callee.line, f"pipelines are nested deeper than {DEEPEST_NESTING}")
            return None
        wiring = self.wiring(callee.module)
        if wiring is not None and wiring.name != callee.name:
            findings.add(
                callee.line,
                f"{wiring.file} has no pipeline `{callee.name}`",
                f"its pipeline is `{wiring.name}`",
            )
            return None
        return wiring

    def _wiring(self, source: Source, findings: Findings) -> Wiring | None:
        draft = read_draft(source, findings)
        if draft is None:
            return None
        for callee in draft.imports:  # Python would look for them, used or not
            self._find(callee, findings)
        wiring = check(draft, self, findings)
        return None if findings.all() else wiring

    def _find(self, callee: Callee, findings: Findings) -> None:
        if callee.kind == "operation":
            self.operation(callee, findings)
        elif callee.kind == "resource":
            self.resource(callee, findings)
        else:
            self.pipeline(callee, findings)

    def _read(self, module: str, how: Callable[[Source, Findings], T | None]) -> T | None:
        file = file_of(self._files, module)
        if file is None:
            return None
        findings = self.notes(file)
        if module not in self._sources:
            self._sources[module] = parse(file, self._files[file], findings)
        source = self._sources[module]
        if source is None:
            return None
        try:
            return how(source, findings)
        except TooManyFindings:
            return None
        except RecursionError:
            findings.add(1, "the code is nested too deeply to be read", "split long expressions")
            return None

    def _is_there(self, callee: Callee, findings: Findings) -> bool:
        if file_of(self._files, callee.module) is not None:
            return True
        folder = callee.module.partition(".")[0]
        known = modules_of(self._files, folder)
        path = callee.module.replace(".", "/") + ".py"
        findings.add(
            callee.line,
            f"the project has no file {path}",
            suggest(
                callee.module, known, otherwise=f"{folder} are {listed(known)}" if known else None
            ),
        )
        return False
