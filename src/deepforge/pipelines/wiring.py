"""One checked pipeline, its nested ones still folded, and how it is unfolded into a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from deepforge.pipelines.graph import (
    Graph,
    Input,
    LiteralText,
    Node,
    Nothing,
    OutputOf,
    Parameter,
    ParameterInput,
    ParameterValue,
    ResourceCall,
    Result,
    Source,
    Value,
)
from deepforge.pipelines.operation import OperationInterface

_Given = Value | Source


@dataclass(frozen=True)
class Wire:
    """One input of an operation: the local name it comes from, None for nothing."""

    port: str
    name: str | None
    position: int | None = None


@dataclass(frozen=True)
class OperationCall:
    name: str
    targets: tuple[str, ...]
    line: int
    operation: OperationInterface
    arguments: Mapping[str, Value]
    wires: tuple[Wire, ...]


@dataclass(frozen=True)
class PipelineCall:
    """`arguments` binds parameters of the nested pipeline to literals and local names."""

    name: str
    targets: tuple[str, ...]
    line: int
    pipeline: Wiring
    arguments: Mapping[str, LiteralText | str]


@dataclass(frozen=True)
class Wiring:
    """A pipeline whose calls fit what they call. `size` counts operations, nested ones too."""

    name: str
    file: str
    docstring: str
    parameters: tuple[Parameter, ...]
    calls: tuple[OperationCall | PipelineCall, ...]
    returns: tuple[str, ...]
    size: int


def unfold(wiring: Wiring) -> Graph:
    """Flatten nested pipelines: node `inner` of the one called as `outer` is `outer/inner`."""
    given: dict[str, _Given] = {
        one.name: ParameterInput(one.name) if one.role == "input" else ParameterValue(one.name)
        for one in wiring.parameters
    }
    nodes: list[Node] = []
    results = _Unfolding(wiring, "", given, nodes).run()
    return Graph(
        name=wiring.name,
        file=wiring.file,
        docstring=wiring.docstring,
        parameters=wiring.parameters,
        nodes=tuple(nodes),
        results=tuple(
            Result(name, source) for name, source in zip(wiring.returns, results, strict=True)
        ),
    )


@dataclass
class _Unfolding:
    """One pipeline at one place of the graph; `known` says what each local name stands for."""

    wiring: Wiring
    prefix: str
    known: dict[str, _Given]
    nodes: list[Node] = field(default_factory=list)

    def run(self) -> tuple[OutputOf, ...]:
        for call in self.wiring.calls:
            if isinstance(call, OperationCall):
                outputs = self._operation(call)
            else:
                outputs = self._pipeline(call)
            self.known.update(zip(call.targets, outputs, strict=False))  # a bare call has none
        return tuple(self._output(name) for name in self.wiring.returns)

    def _operation(self, call: OperationCall) -> tuple[OutputOf, ...]:
        name = self.prefix + call.name
        self.nodes.append(
            Node(
                name=name,
                operation=call.operation,
                arguments={key: self._value(value) for key, value in call.arguments.items()},
                inputs=tuple(
                    Input(one.port, self._source(one.name), one.position) for one in call.wires
                ),
                file=self.wiring.file,
                line=call.line,
            )
        )
        return tuple(OutputOf(name, output) for output in call.operation.outputs)

    def _pipeline(self, call: PipelineCall) -> tuple[OutputOf, ...]:
        given: dict[str, _Given] = {}
        for parameter in call.pipeline.parameters:
            argument = call.arguments.get(parameter.name)
            if isinstance(argument, str):
                given[parameter.name] = self.known[argument]
            elif parameter.role == "input":
                given[parameter.name] = Nothing()
            else:
                given[parameter.name] = argument or LiteralText(parameter.default or "None")
        prefix = f"{self.prefix}{call.name}/"
        return _Unfolding(call.pipeline, prefix, given, self.nodes).run()

    def _value(self, value: Value) -> Value:
        if isinstance(value, ParameterValue):
            found = self.known[value.name]
            assert isinstance(found, (LiteralText, ParameterValue))  # by its role
            return found
        if isinstance(value, ResourceCall):
            arguments = {key: self._value(one) for key, one in value.arguments.items()}
            return ResourceCall(
                value.module,
                value.function,
                value.file,
                {
                    key: one
                    for key, one in arguments.items()
                    if isinstance(one, (LiteralText, ParameterValue))
                },
            )
        return value

    def _source(self, name: str | None) -> Source:
        if name is None:
            return Nothing()
        found = self.known[name]
        assert isinstance(found, (OutputOf, ParameterInput, Nothing))  # by its role
        return found

    def _output(self, name: str) -> OutputOf:
        found = self.known[name]
        assert isinstance(found, OutputOf)  # parameters are not returned
        return found
