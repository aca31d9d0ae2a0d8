"""From `result.json` to values and artifacts: what an attempt left is believed only when verified."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from deepforge.errors import Corrupt, NotFound
from deepforge.execution.machine import Collected
from deepforge.execution.model import Execution, Job, PlannedInput, StoredValue
from deepforge.ids import is_digest
from deepforge.projects.artifacts import Artifacts
from deepforge.runner import protocol
from deepforge.storage.client import StorageClient
from deepforge.storage.port import ObjectInfo, ObjectRef

LONGEST_RESULT_BYTES = 4 * 1024 * 1024
LONGEST_MESSAGE = 10_000
LONGEST_TRACEBACK = 100_000
LONGEST_TYPE = 2_000

_RESULT = TypeAdapter(protocol.Result)


async def read(storage: StorageClient, job: Job) -> Collected | None:
    """Read what the current attempt left; None when it has left no `result.json` (yet).

    A result whose outputs are not all there in their full size, or not those of the operation,
    comes back as a failed one. Raises what the storage raises.
    """
    number = job.attempts[-1].number
    folder = job.folder(number)
    try:
        data = await storage.get_bytes(
            f"{folder}/{protocol.RESULT_FILE}", limit_bytes=LONGEST_RESULT_BYTES
        )
    except NotFound:
        return None
    try:
        result = _read(data)
    except ValueError as error:
        return Collected(number, _spoiled(job, f"its result.json cannot be read: {error}"), {})
    if result.attempt != job.key(number):
        problem = f"its result.json belongs to the attempt {result.attempt!r}"
        return Collected(number, _spoiled(job, problem), {})
    if result.status != "succeeded":
        return Collected(number, result, {})
    refs = {
        one.name: ObjectRef(storage.name, f"{folder}/{one.name}", one.size_bytes, one.digest)
        for one in result.outputs
    }
    kept = await _kept(storage, job, refs)
    if isinstance(kept, str):
        return Collected(number, _failed(result, kept), {})
    outputs = {
        one.name: StoredValue(kept[one.name], one.type, one.format) for one in result.outputs
    }
    return Collected(number, result, outputs)


async def learn(artifacts: Artifacts, job: Job, found: Collected) -> Collected:
    """Keep the digests of imported data that this attempt read. Safe to repeat.

    When the data were others before, an attempt that succeeded comes back as a failed one: its
    outputs are not made of what their provenance would name.
    """
    digests = {one.name: one for one in found.result.inputs}
    for one in job.plan.inputs:
        read = digests.get(one.object_name)
        if read is None or one.artifact is None:
            continue
        try:
            await artifacts.learn(one.artifact, size_bytes=read.size_bytes, digest=read.digest)
        except Corrupt as error:
            if found.result.status == "succeeded":
                message = f"input {one.name!r}: {error.message}"
                failure = protocol.Failure("corrupt", message, hint=error.hint)
                return Collected(found.attempt, _with_failure(found.result, failure), {})
    return found


async def publish(
    artifacts: Artifacts, execution: Execution, job: Job, found: Collected
) -> Collected:
    """Make artifacts of the outputs that the pipeline returns. Safe to repeat."""
    published = []
    for output, name in job.plan.publishes:
        value = found.outputs[output]
        artifact = await artifacts.add(
            project=execution.project,
            name=name,
            type=value.type,
            format=value.format,
            ref=value.ref,
            provenance=provenance(execution, job, output, found),
            owner=execution.owner,
            origin=f"{execution.id}/{job.id}/{output}/{name}",
        )
        published.append(artifact.id)
    return replace(found, published=tuple(published))


def provenance(execution: Execution, job: Job, output: str, found: Collected) -> dict[str, Any]:
    """Where a value comes from: enough to make it again, and to walk back to what it was made of."""
    return {
        "execution": execution.id,
        "job": job.id,
        "attempt": found.attempt,
        "output": output,
        "project": execution.project_name,
        "pipeline": execution.pipeline,
        "commit": execution.commit,
        "operation": {"file": job.plan.file, "class": job.plan.operation, "node": job.plan.name},
        "attributes": {
            one.name: one.literal
            if one.literal is not None
            else {"resource": f"{one.resource_module}.{one.resource_name}", **one.arguments}
            for one in job.plan.arguments
        },
        "inputs": {
            one.object_name.removeprefix("inputs/"): _origin(job, one, found.result)
            for one in job.plan.inputs
        },
    }


def _origin(job: Job, one: PlannedInput, result: protocol.Result) -> dict[str, Any] | None:
    value = job.value_of(one)
    if value is None:
        return None
    came_from = (
        {"artifact": one.artifact} if one.job is None else {"job": one.job, "output": one.output}
    )
    read = {one.name: one.digest for one in result.inputs}
    return {
        **came_from,
        "digest": value.ref.digest or read.get(one.object_name),
        "storage": value.ref.storage,
        "key": value.ref.key,
    }


def _read(data: bytes) -> protocol.Result:
    """Read what user code may have written over: what comes out is fit to be kept as a document.

    Raises `ValueError`.
    """
    protocol.read_result(data)
    result = _RESULT.validate_json(data, strict=True)
    if not all(map(math.isfinite, result.seconds.values())):
        raise ValueError("its times are no numbers")
    if result.log is not None and not 0 <= result.log.size_bytes < 2**63:
        raise ValueError("its log has no possible size")
    for one in result.outputs:
        if not is_digest(one.digest) or len(one.type) + len(one.format) > LONGEST_TYPE:
            raise ValueError(f"its output {one.name[:100]!r} is not described as runners do")
    for read in result.inputs:
        if not is_digest(read.digest) or not 0 <= read.size_bytes < 2**63:
            raise ValueError(f"its input {read.name[:100]!r} is not described as runners do")
    failure = result.failure
    if failure is None:
        return result
    message, traceback = failure.message[:LONGEST_MESSAGE], failure.traceback
    if traceback is not None:
        traceback = traceback[-LONGEST_TRACEBACK:]
    return replace(result, failure=replace(failure, message=message, traceback=traceback))


async def _kept(
    storage: StorageClient, job: Job, refs: dict[str, ObjectRef]
) -> dict[str, ObjectRef] | str:
    """The references by the keys that the storage keeps the outputs under, or what is wrong."""
    if set(refs) != set(job.plan.outputs):
        return f"it stored {sorted(refs)}, and the operation has {sorted(job.plan.outputs)}"
    found = await asyncio.gather(*(_stat(storage, ref) for ref in refs.values()))
    kept = {}
    for (name, ref), info in zip(refs.items(), found, strict=True):
        if info is None:
            return f"its output {name!r} is not in the storage"
        if info.size_bytes != ref.size_bytes:
            return (
                f"its output {name!r} has {info.size_bytes} bytes in the storage, "
                f"not {ref.size_bytes}"
            )
        kept[name] = replace(ref, key=info.key)
    return kept


async def _stat(storage: StorageClient, ref: ObjectRef) -> ObjectInfo | None:
    try:
        return await storage.stat(ref.key)
    except NotFound:
        return None


def _spoiled(job: Job, problem: str) -> protocol.Result:
    return _failed(protocol.Result(attempt=job.key(), status="failed"), problem)


def _failed(result: protocol.Result, problem: str) -> protocol.Result:
    failure = protocol.Failure(
        "corrupt", f"the attempt says it succeeded, but {problem}", transient=True
    )
    return _with_failure(result, failure)


def _with_failure(result: protocol.Result, failure: protocol.Failure) -> protocol.Result:
    return replace(result, status="failed", failure=failure, outputs=[])
