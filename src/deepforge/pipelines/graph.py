"""A pipeline as a graph: what is left of its text when the wiring has been read and checked.

    graph = read_pipeline(files, "digits")
    for node in graph.nodes:          # in an order in which they can run
        node.name, node.operation, node.arguments, node.inputs

Nested pipelines are flattened: `outer/inner` is node `inner` of the pipeline called as `outer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from deepforge.pipelines.operation import OperationInterface
from deepforge.pipelines.signature import type_of

Role = Literal["input", "attribute", "unused"]


@dataclass(frozen=True)
class LiteralText:
    """A value as Python literal text: `ast.literal_eval` reads it."""

    text: str


@dataclass(frozen=True)
class ParameterValue:
    """The value that a parameter of the pipeline has been given."""

    name: str


@dataclass(frozen=True)
class ResourceCall:
    """What a function of the project returns: `resources/vgg.py` is module `resources.vgg`."""

    module: str
    function: str
    file: str
    arguments: Mapping[str, LiteralText | ParameterValue] = field(default_factory=dict)


Value = LiteralText | ParameterValue | ResourceCall


@dataclass(frozen=True)
class OutputOf:
    """An output of an earlier node of the same graph."""

    node: str
    output: str


@dataclass(frozen=True)
class ParameterInput:
    """The artifact that a parameter of the pipeline has been given."""

    name: str


@dataclass(frozen=True)
class Nothing:
    """An unconnected input: `execute` gets None."""


Source = OutputOf | ParameterInput | Nothing


@dataclass(frozen=True)
class Input:
    """One given input of a node. `position` counts the parts of `execute(self, *parts)` from 0.

    An input with a default that the text leaves out is not listed: its default holds.
    """

    port: str
    source: Source
    position: int | None = None


@dataclass(frozen=True)
class Node:
    """One call of an operation. `name` is its identity in the graph, kept while the text is edited.

    `arguments` has what the text gives, in the operation's order; for the rest the constructor's
    defaults hold. `file` and `line` say where the call is written.
    """

    name: str
    operation: OperationInterface
    arguments: Mapping[str, Value]
    inputs: tuple[Input, ...]
    file: str
    line: int

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.operation.outputs


@dataclass(frozen=True)
class Parameter:
    """A parameter of a pipeline. An "input" takes an artifact, an "attribute" a value.

    `default` is literal text. `artifact` is the default artifact that deepforge.toml names.
    """

    name: str
    role: Role
    annotation: str | None
    default: str | None
    line: int
    artifact: str | None = None

    @property
    def required(self) -> bool:
        """Whether a launch must give it."""
        return self.role != "unused" and self.default is None and self.artifact is None

    @property
    def type(self) -> str | None:
        """From the annotation, else from the default, else None: text."""
        return self.annotation or type_of(self.default)


@dataclass(frozen=True)
class Result:
    """One name that the pipeline returns: it becomes an artifact of that name."""

    name: str
    source: OutputOf


@dataclass(frozen=True)
class Graph:
    """A pipeline that broke no rule. `nodes` come after what they depend on."""

    name: str
    file: str
    docstring: str
    parameters: tuple[Parameter, ...]
    nodes: tuple[Node, ...]
    results: tuple[Result, ...]
