"""From a pipeline and what was chosen at launch to jobs. Pure: the same input gives the same plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deepforge.errors import InvalidRequest
from deepforge.execution.model import (
    Job,
    JobState,
    Needs,
    PlannedArgument,
    PlannedInput,
    PlannedJob,
    StoredValue,
)
from deepforge.ids import slug
from deepforge.pipelines.graph import (
    Graph,
    LiteralText,
    Node,
    Nothing,
    OutputOf,
    ParameterInput,
    ResourceCall,
    Value,
)


@dataclass(frozen=True)
class ChosenArtifact:
    """The artifact that a parameter of the pipeline was given."""

    id: str
    value: StoredValue


@dataclass(frozen=True)
class Choices:
    """What a launch decided. Parameters have Python literal text, or an artifact, or None."""

    values: Mapping[str, str]
    artifacts: Mapping[str, ChosenArtifact | None]
    compute: str
    computes: Mapping[str, str]
    """Node or class to compute; everything else goes to `compute`."""


def plan(graph: Graph, choices: Choices) -> tuple[PlannedJob, ...]:
    """One job for each node, in an order in which they can run.

    Raises `InvalidRequest` when `choices.computes` names neither a node nor a class.
    """
    _check_names(graph, choices)
    ids: dict[str, str] = {}
    for node in graph.nodes:
        ids[node.name] = slug(node.name, taken=ids.values())
    publishes: dict[str, list[tuple[str, str]]] = {}
    for result in graph.results:
        publishes.setdefault(result.source.node, []).append((result.source.output, result.name))
    return tuple(
        PlannedJob(
            id=ids[node.name],
            name=node.name,
            index=index,
            module=node.operation.module,
            operation=node.operation.name,
            file=node.operation.file,
            arguments=tuple(
                _argument(name, value, choices) for name, value in node.arguments.items()
            ),
            inputs=_inputs(node, ids, choices),
            outputs=tuple(node.outputs),
            publishes=tuple(publishes.get(node.name, ())),
            compute=_compute(node, choices),
            needs=_needs(node),
        )
        for index, node in enumerate(graph.nodes)
    )


def first_jobs(execution: str, planned: tuple[PlannedJob, ...]) -> list[Job]:
    """The jobs of a new execution: everything waits."""
    return [Job(execution, one) for one in planned]


def jobs_again(execution: str, earlier: list[Job]) -> list[Job]:
    """The jobs of a rerun: what succeeded is taken over with its outputs and artifacts, the rest
    waits."""
    return [
        Job(
            execution,
            job.plan,
            JobState.SUCCEEDED,
            outputs=job.outputs,
            published=job.published,
            cached=True,
        )
        if job.state is JobState.SUCCEEDED
        else Job(execution, job.plan)
        for job in earlier
    ]


def _argument(name: str, value: Value, choices: Choices) -> PlannedArgument:
    if isinstance(value, ResourceCall):
        return PlannedArgument(
            name,
            resource_module=value.module,
            resource_name=value.function,
            arguments={key: _literal(one, choices) for key, one in value.arguments.items()},
        )
    return PlannedArgument(name, _literal(value, choices))


def _literal(value: Value, choices: Choices) -> str:
    if isinstance(value, LiteralText):
        return value.text
    if isinstance(value, ResourceCall):
        raise AssertionError("a resource takes literals and parameters only")
    return choices.values[value.name]


def _inputs(node: Node, ids: Mapping[str, str], choices: Choices) -> tuple[PlannedInput, ...]:
    planned = []
    for one in node.inputs:
        source = one.source
        if isinstance(source, OutputOf):
            planned.append(
                PlannedInput(one.port, one.position, job=ids[source.node], output=source.output)
            )
        elif isinstance(source, ParameterInput):
            chosen = choices.artifacts.get(source.name)
            if chosen is None:
                planned.append(PlannedInput(one.port, one.position))
            else:
                planned.append(
                    PlannedInput(one.port, one.position, artifact=chosen.id, value=chosen.value)
                )
        elif isinstance(source, Nothing):
            planned.append(PlannedInput(one.port, one.position))
    return tuple(planned)


def _compute(node: Node, choices: Choices) -> str:
    for name in (node.name, node.operation.name):
        if name in choices.computes:
            return choices.computes[name]
    return choices.compute


def _needs(node: Node) -> Needs:
    asked = node.operation.requirements.resources
    return Needs(asked.cpus, asked.memory_bytes, asked.gpus, asked.walltime_s)


def _check_names(graph: Graph, choices: Choices) -> None:
    known = {name for node in graph.nodes for name in (node.name, node.operation.name)}
    for name in choices.computes:
        if name not in known:
            raise InvalidRequest(
                f"pipeline {graph.name!r} has no operation {name!r} to choose a compute for",
                hint=f"its operations are {', '.join(node.name for node in graph.nodes)}",
                part="compute",
            )
