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


def plan(
    graph: Graph,
    artifacts: Mapping[str, ChosenArtifact],
    *,
    compute: str,
    computes: Mapping[str, str],
) -> tuple[PlannedJob, ...]:
    """One job for each node, in an order in which they can run.

    In `graph` what was chosen at launch is filled in; `artifacts` are those of its input
    parameters. `computes` maps nodes or classes to computes, everything else goes to `compute`.
    Raises `InvalidRequest` when `computes` names neither a node nor a class.
    """
    _check_names(graph, computes)
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
            arguments=tuple(_argument(name, value) for name, value in node.arguments.items()),
            inputs=_inputs(node, ids, artifacts),
            outputs=tuple(node.outputs),
            publishes=tuple(publishes.get(node.name, ())),
            compute=computes.get(node.name) or computes.get(node.operation.name) or compute,
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


def _argument(name: str, value: Value) -> PlannedArgument:
    if isinstance(value, ResourceCall):
        return PlannedArgument(
            name,
            resource_module=value.module,
            resource_name=value.function,
            arguments={key: _literal(one) for key, one in value.arguments.items()},
        )
    return PlannedArgument(name, _literal(value))


def _literal(value: Value) -> str:
    if not isinstance(value, LiteralText):
        raise AssertionError("every parameter has its value when a graph is planned")
    return value.text


def _inputs(
    node: Node, ids: Mapping[str, str], artifacts: Mapping[str, ChosenArtifact]
) -> tuple[PlannedInput, ...]:
    planned = []
    for one in node.inputs:
        source = one.source
        if isinstance(source, OutputOf):
            planned.append(
                PlannedInput(one.port, one.position, job=ids[source.node], output=source.output)
            )
        elif isinstance(source, ParameterInput):
            chosen = artifacts[source.name]
            planned.append(
                PlannedInput(one.port, one.position, artifact=chosen.id, value=chosen.value)
            )
        elif isinstance(source, Nothing):
            planned.append(PlannedInput(one.port, one.position))
    return tuple(planned)


def _needs(node: Node) -> Needs:
    asked = node.operation.requirements.resources
    return Needs(asked.cpus, asked.memory_bytes, asked.gpus, asked.walltime_s)


def _check_names(graph: Graph, computes: Mapping[str, str]) -> None:
    known = {name for node in graph.nodes for name in (node.name, node.operation.name)}
    for name in computes:
        if name not in known:
            raise InvalidRequest(
                f"pipeline {graph.name!r} has no operation {name!r} to choose a compute for",
                hint=f"its operations are {', '.join(node.name for node in graph.nodes)}",
                part="compute",
            )
