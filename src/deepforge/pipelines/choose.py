"""What a launch chooses: values and artifacts for the parameters of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any  # any JSON value

from deepforge.errors import InvalidRequest
from deepforge.pipelines.annotation import fits, from_json, from_text
from deepforge.pipelines.finding import listed, suggest
from deepforge.pipelines.graph import (
    Graph,
    Input,
    LiteralText,
    Node,
    Nothing,
    Parameter,
    ParameterInput,
    ParameterValue,
    ResourceCall,
    Value,
)
from deepforge.pipelines.literal import read_literal, spell
from deepforge.pipelines.signature import Attribute


@dataclass(frozen=True)
class Chosen:
    """A pipeline ready to be planned.

    In `graph` every attribute is a literal or a resource called with literals, and a
    `ParameterInput` is left only where `artifacts` has a reference (`name` or `name@version`).
    `values` has the literal text of each attribute parameter, `artifacts` the reference of each
    input parameter, None for an unconnected one.
    """

    graph: Graph
    values: Mapping[str, str]
    artifacts: Mapping[str, str | None]


def choose(
    graph: Graph, values: Mapping[str, Any], inputs: Mapping[str, str] | None = None
) -> Chosen:
    """Apply what was chosen at launch, and defaults for the rest.

    A text (`--set hidden=128`) is converted to the parameter's type; any other JSON value must be
    of it. Raises `InvalidRequest` that names every parameter at fault.
    """
    return _Choice(graph, values, inputs or {}).run()


class _Choice:
    def __init__(self, graph: Graph, values: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
        self._graph = graph
        self._given_values = values
        self._given_inputs = inputs
        self._problems: list[tuple[str, str, str | None]] = []
        self._values: dict[str, str] = {}
        self._artifacts: dict[str, str | None] = {}

    def run(self) -> Chosen:
        if not self._graph.nodes:
            raise InvalidRequest(
                f"the pipeline {self._graph.name} has no operations", part="pipeline"
            )
        self._refuse_misplaced()
        for parameter in self._graph.parameters:
            if parameter.role == "input":
                self._choose_artifact(parameter)
            else:
                self._choose_value(parameter)
        self._stop_at_problems()
        nodes = tuple(self._applied(node) for node in self._graph.nodes)
        self._stop_at_problems()
        return Chosen(replace(self._graph, nodes=nodes), self._values, self._artifacts)

    def _refuse_misplaced(self) -> None:
        roles = {one.name: one.role for one in self._graph.parameters}
        takes = f"it has {listed(roles)}" if roles else "it has none"
        for name in (*self._given_values, *self._given_inputs):
            if name not in roles:
                message = f"the pipeline {self._graph.name} has no parameter {name!r}"
                self._problem(name, message, suggest(name, roles, otherwise=takes))
        for name in self._given_values:
            if roles.get(name) == "input":
                advice = f"give it as an input: {name}=<artifact>"
                self._problem(name, f"{name} takes an artifact, not a value", advice)
        for name in self._given_inputs:
            if roles.get(name) in ("attribute", "unused"):
                advice = f"give it as a value: {name}=..."
                self._problem(name, f"{name} takes a value, not an artifact", advice)

    def _choose_artifact(self, parameter: Parameter) -> None:
        name = parameter.name
        artifact = self._given_inputs.get(name, parameter.artifact)
        if artifact is None:
            if parameter.default is None and name not in self._given_values:
                hint = f"choose an artifact for {name}, or set a default one in deepforge.toml"
                self._problem(name, f"missing input: {name} takes an artifact", hint)
            self._artifacts[name] = None
        elif not artifact.strip():
            self._problem(name, f"{name} is given an empty artifact name", None)
        else:
            self._artifacts[name] = artifact

    def _choose_value(self, parameter: Parameter) -> None:
        name = parameter.name
        if name not in self._given_values:
            if parameter.default is not None:
                self._values[name] = parameter.default
            elif parameter.role == "attribute" and name not in self._given_inputs:
                message = f"missing value: {name} ({parameter.type or 'text'})"
                self._problem(name, message, f"set {name}=...")
            return
        value = self._given_values[name]
        kind = parameter.type
        if kind is not None and parameter.default == "None":
            kind = f"{kind} | None"
        shown = _shortened(repr(value))
        try:
            made = from_text(value, kind) if isinstance(value, str) else from_json(value, kind)
        except ValueError:
            hint = f"the parameter is `{name}: {kind}`" if parameter.annotation else None
            message = f"{name} takes {parameter.type or 'text'}, not {shown}"
            self._problem(name, message, hint)
            return
        try:
            self._values[name] = spell(made)
        except ValueError as error:
            self._problem(name, f"{name} was given {shown}: {error}", None)

    def _applied(self, node: Node) -> Node:
        attributes = {one.name: one for one in node.operation.attributes}
        arguments = {
            name: self._literal(value, attributes.get(name), node.operation.name)
            for name, value in node.arguments.items()
        }
        inputs = tuple(self._connected(one) for one in node.inputs)
        return replace(node, arguments=arguments, inputs=inputs)

    def _literal(self, value: Value, wanted: Attribute | None, owner: str) -> Value:
        if isinstance(value, ParameterValue):
            text = self._values[value.name]
            self._match(value.name, text, wanted, owner)
            return LiteralText(text)
        if isinstance(value, ResourceCall):
            arguments = {
                name: LiteralText(self._values[one.name])
                if isinstance(one, ParameterValue)
                else one
                for name, one in value.arguments.items()
            }
            return replace(value, arguments=arguments)
        return value

    def _match(self, name: str, text: str, wanted: Attribute | None, owner: str) -> None:
        if wanted is None or wanted.annotation is None or text == wanted.default == "None":
            return
        if not fits(read_literal(text), wanted.annotation):
            shown = _shortened(text)
            message = f"{name} is {shown}, and {owner}.{wanted.name} takes {wanted.annotation}"
            hint = f"annotate the parameter: `{name}: {wanted.annotation}`"
            self._problem(name, message, hint)

    def _connected(self, one: Input) -> Input:
        source = one.source
        if isinstance(source, ParameterInput) and self._artifacts[source.name] is None:
            return replace(one, source=Nothing())
        return one

    def _problem(self, name: str, message: str, hint: str | None) -> None:
        self._problems.append((name, message, hint))

    def _stop_at_problems(self) -> None:
        if not self._problems:
            return
        messages = dict.fromkeys(message for _, message, _ in self._problems)
        name, _, hint = self._problems[0]
        raise InvalidRequest("; ".join(messages), part=name, hint=hint)


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"
