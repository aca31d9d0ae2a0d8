"""A project as it is written: the way in to everything that is read from its text.

    project = read_project(files)
    graph = project.pipeline("digits")

`files` are the files of one commit. A pipeline is the function `digits` of `pipelines/digits.py`; in
`pipelines/vision/prepare.py` it is the pipeline `vision.prepare`.
"""

from __future__ import annotations

from dataclasses import replace

from deepforge.errors import InvalidRequest
from deepforge.pipelines.finding import Finding, Findings, in_order, listed, refuse, suggest
from deepforge.pipelines.graph import Graph, Parameter
from deepforge.pipelines.manifest import MANIFEST, Defaults, line_of, read_manifest
from deepforge.pipelines.operation import OperationInterface
from deepforge.pipelines.read import Reader, modules_of
from deepforge.pipelines.resource import ResourceInterface
from deepforge.pipelines.source import Files
from deepforge.pipelines.wiring import unfold


def read_project(files: Files) -> ProjectText:
    """Read a project: deepforge.toml at once, other files when they are asked for.

    Never raises: what is wrong is told by `pipeline()` and `findings()`.
    """
    return ProjectText(files)


def read_pipeline(files: Files, name: str | None = None) -> Graph:
    """Read one pipeline, as `ProjectText.pipeline` does."""
    return read_project(files).pipeline(name)


def list_pipelines(files: Files) -> tuple[str, ...]:
    """Name the pipelines of a project, sorted, without reading them."""
    return tuple(module.partition(".")[2] for module in modules_of(files, "pipelines"))


class ProjectText:
    """The text of a project.

    `name` is None and `defaults` are empty where deepforge.toml says nothing. `pipelines` names
    them all, also those that cannot be read.
    """

    def __init__(self, files: Files) -> None:
        self.pipelines = list_pipelines(files)
        self._files = files
        self._notes = Findings(MANIFEST)
        self._manifest = read_manifest(files, self.pipelines, self._notes)
        self._reader = Reader(files)
        self.name: str | None = self._manifest.name
        self.description: str = self._manifest.description
        self.defaults: Defaults = self._manifest.defaults

    def pipeline(self, name: str | None = None) -> Graph:
        """Read one pipeline and all that it calls; without a name the project's default one.

        Raises `InvalidProject` with every finding in deepforge.toml and in the files that this
        pipeline reaches, `InvalidRequest` if there is no such pipeline, or none is named and there
        are several.
        """
        name = self._chosen(name)
        reader = Reader(self._files)  # what is wrong with other pipelines is not its business
        wiring = reader.wiring(f"pipelines.{name}")
        if wiring is not None:
            self._check_artifacts(name, wiring.parameters)
        refuse([*self._notes.all(), *reader.findings()])
        assert wiring is not None  # or there would have been a finding
        artifacts = self._manifest.inputs.get(name, {})
        graph = unfold(wiring)
        parameters = tuple(
            replace(one, artifact=artifacts.get(one.name)) for one in graph.parameters
        )
        return replace(graph, name=name, parameters=parameters)

    def operations(self) -> tuple[OperationInterface, ...]:
        """Read all operations, without those that cannot be read."""
        modules = modules_of(self._files, "operations")
        found = (self._reader.operation_of(one) for one in modules)
        return tuple(one for one in found if one is not None)

    def resources(self) -> tuple[ResourceInterface, ...]:
        """Read all resources, without those that cannot be read."""
        modules = modules_of(self._files, "resources")
        found = (self._reader.resources_of(one) for one in modules)
        return tuple(resource for resources in found for resource in resources.values())

    def findings(self) -> tuple[Finding, ...]:
        """Read everything, and return all that is wrong, in order."""
        for name in self.pipelines:
            wiring = self._reader.wiring(f"pipelines.{name}")
            if wiring is not None:
                self._check_artifacts(name, wiring.parameters)
        self.operations()
        self.resources()
        return in_order([*self._notes.all(), *self._reader.findings()])

    def _chosen(self, name: str | None) -> str:
        known = self.pipelines
        if not known:
            raise InvalidRequest(
                "the project has no pipelines", part="pipeline", hint="write pipelines/<name>.py"
            )
        if name is None and self.defaults.pipeline is None and len(known) > 1:
            raise InvalidRequest(
                f"the project has several pipelines: {', '.join(known)}",
                part="pipeline",
                hint=f"say which one, or set `pipeline` under [defaults] in {MANIFEST}",
            )
        if name is None:
            name = self.defaults.pipeline or known[0]
        if name not in known:
            raise InvalidRequest(
                f"the project has no pipeline {name!r}",
                part="pipeline",
                hint=suggest(name, known, otherwise=f"its pipelines are {listed(known)}"),
            )
        return name

    def _check_artifacts(self, pipeline: str, parameters: tuple[Parameter, ...]) -> None:
        """Default artifacts must be those of inputs that there are."""
        roles = {one.name: one.role for one in parameters}
        inputs = [name for name, role in roles.items() if role == "input"]
        hint = f"its inputs are {listed(inputs)}" if inputs else "it has no inputs"
        for name in self._manifest.inputs.get(pipeline, {}):
            if name in inputs:
                continue
            message = (
                f"the parameter `{name}` of `{pipeline}` does not take an artifact"
                if name in roles
                else f"the pipeline `{pipeline}` has no parameter `{name}`"
            )
            self._notes.add(
                line_of(self._files, name), message, suggest(name, inputs, otherwise=hint)
            )
