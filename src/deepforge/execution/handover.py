"""What is handed to the far side: the request to the compute, and `job.json` with its grants."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from deepforge.compute.client import ComputeClient
from deepforge.compute.port import PYTHON, JobRequest, NeededPath, Resources
from deepforge.connections.open import Opener
from deepforge.connections.secrets import SecretBox
from deepforge.execution.access import Access, Address, grant_seconds
from deepforge.execution.bundle import Bundle, Bundles
from deepforge.execution.model import Execution, Job, Needs, PlannedInput
from deepforge.runner import protocol
from deepforge.runner.build import runner_archive
from deepforge.storage.client import StorageClient
from deepforge.storage.port import Method, ObjectRef

RUNNER_FILE = "runner.pyz"

BEYOND_LIMIT_S = 600.0
"""How long fetching and storing may take beyond the time limit of the operation itself."""

TOKENS_KEPT = 1000
"""Each call of a runner asks for its token again, and deriving one costs as much as its route."""

PART_ABOVE_BYTES = 64 * 1024 * 1024
"""From here on several parts beat one PUT: a cut costs one part, and parts go in parallel."""


@dataclass(frozen=True)
class Place:
    """One object of an attempt: the storage it is in, its key, and what a runner may do with it."""

    storage: str
    key: str
    method: Method


@dataclass(frozen=True)
class Source:
    """Where an object is read, and its digest if that is known there."""

    storage: StorageClient
    key: str
    digest: str | None = None


Nearer = Callable[[str, StorageClient, str], Awaitable[ObjectRef | None]]
"""Where an object of an owner's storage, by its key, lies nearer to us; None if nowhere."""


class Handover:
    """Writes requests and jobs. Everything in them can be made again at any time."""

    def __init__(
        self,
        opener: Opener,
        bundles: Bundles,
        box: SecretBox,
        address: Address,
        *,
        nearer: Nearer | None = None,
    ) -> None:
        self._opener = opener
        self._bundles = bundles
        self._nearer = nearer
        self._derived = lru_cache(TOKENS_KEPT)(box.token)
        self.address = address

    def token(self, key: str) -> str:
        """The token of an attempt: derived, so that it is known after a restart, never stored."""
        return self._derived(f"attempt:{key}")

    async def request(self, execution: Execution, job: Job) -> JobRequest:
        """The job's current attempt as the compute gets it. The bundle is in the storage after."""
        compute = await self._opener.compute(job.plan.compute, owner=execution.owner)
        storage = await self._opener.storage(execution.storage, owner=execution.owner)
        key = job.key()
        channel = self.address.channel(compute, key, self.token(key))
        if channel is not None:
            await self._bundles.put(storage, execution.project, execution.commit)
            handed = protocol.to_json(protocol.Ticket(key, channel))
        else:
            handed = protocol.to_json(await self.job(execution, job))
        needs = job.plan.needs
        return JobRequest(
            key=key,
            command=(PYTHON, RUNNER_FILE, protocol.JOB_FILE),
            files={RUNNER_FILE: runner_archive(), protocol.JOB_FILE: handed},
            resources=resources(needs),
            labels={"execution": execution.id, "job": job.id},
            paths=await self._needed_paths(execution, job, compute, storage),
        )

    async def job(self, execution: Execution, job: Job) -> protocol.Job:
        """The complete `job.json` of the current attempt, with fresh grants."""
        compute = await self._opener.compute(job.plan.compute, owner=execution.owner)
        storage = await self._opener.storage(execution.storage, owner=execution.owner)
        bundle = await self._bundles.put(storage, execution.project, execution.commit)
        key = job.key()
        channel = self.address.channel(compute, key, self.token(key))
        access = Access(compute, channel, grant_seconds(job.plan.needs.time_s))
        folder = job.folder()
        in_parts = channel is not None and storage.capabilities.part_grants
        code = await self.source(execution.owner, execution.storage, bundle.key)
        return protocol.Job(
            attempt=key,
            operation=protocol.Operation(job.plan.module, job.plan.operation, job.plan.file),
            arguments=[
                protocol.Argument(
                    one.name,
                    one.literal,
                    one.resource_module,
                    one.resource_name,
                    dict(one.arguments),
                )
                for one in job.plan.arguments
            ],
            inputs=list(
                await asyncio.gather(
                    *(self._input(access, execution.owner, job, one) for one in job.plan.inputs)
                )
            ),
            outputs=[
                protocol.OutputSlot(
                    name,
                    await access.grant(storage, f"outputs/{name}", f"{folder}/{name}", "PUT"),
                    max_grant_bytes=storage.capabilities.max_grant_bytes,
                    part_above_bytes=PART_ABOVE_BYTES if in_parts else None,
                )
                for name in job.plan.outputs
            ],
            code=protocol.Code(
                bundle.digest,
                bundle.size_bytes,
                await access.grant(code.storage, "code", code.key, "GET"),
            ),
            result=await access.grant(storage, "result", f"{folder}/{protocol.RESULT_FILE}", "PUT"),
            log=await access.grant(storage, "log", f"{folder}/{protocol.LOG_FILE}", "PUT"),
            events=await access.grant(storage, "events", f"{folder}/{protocol.EVENTS_FILE}", "PUT"),
            channel=channel,
            limits=protocol.Limits(time_s=job.plan.needs.time_s),
        )

    async def grants(
        self, execution: Execution, job: Job, names: list[str]
    ) -> dict[str, protocol.Grant]:
        """Fresh grants for these objects of the current attempt. Raises `KeyError` for a name that
        is none of its objects."""
        compute = await self._opener.compute(job.plan.compute, owner=execution.owner)
        storage = await self._opener.storage(execution.storage, owner=execution.owner)
        bundle = await self._bundles.put(storage, execution.project, execution.commit)
        key = job.key()
        channel = self.address.channel(compute, key, self.token(key))
        access = Access(compute, channel, grant_seconds(job.plan.needs.time_s))
        places = objects(execution, job, bundle)
        granted = {}
        for name in names:
            place = places[name]
            if place.method == "GET":
                one = await self.source(execution.owner, place.storage, place.key)
            else:
                client = await self._opener.storage(place.storage, owner=execution.owner)
                one = Source(client, place.key)
            granted[name] = await access.grant(one.storage, name, one.key, place.method)
        return granted

    async def source(self, owner: str, storage: str, key: str) -> Source:
        """Where an object of the owner's storage is read best: there, or nearer."""
        client = await self._opener.storage(storage, owner=owner)
        found = None if self._nearer is None else await self._nearer(owner, client, key)
        if found is None:
            return Source(client, key)
        client = await self._opener.storage(found.storage, owner=owner)
        return Source(client, found.key, found.digest)

    async def bundle(self, execution: Execution) -> Bundle:
        storage = await self._opener.storage(execution.storage, owner=execution.owner)
        return await self._bundles.put(storage, execution.project, execution.commit)

    async def _needed_paths(
        self, execution: Execution, job: Job, compute: ComputeClient, storage: StorageClient
    ) -> tuple[NeededPath, ...]:
        """The execution's storage to write into, and those of its inputs to read from, where they
        are files that the compute sees."""
        found: dict[str, StorageClient] = {}
        for value in map(job.value_of, job.plan.inputs):
            if value is not None:
                one = await self.source(execution.owner, value.ref.storage, value.ref.key)
                found[one.storage.name] = one.storage
        found.pop(execution.storage, None)
        return needed_paths(compute, storage, [found[name] for name in sorted(found)])

    async def _input(
        self, access: Access, owner: str, job: Job, one: PlannedInput
    ) -> protocol.Input:
        value = job.value_of(one)
        if value is None:
            return protocol.Input(one.name, one.position)
        ref = value.ref
        found = await self.source(owner, ref.storage, ref.key)
        return protocol.Input(
            one.name,
            one.position,
            await access.grant(found.storage, one.object_name, found.key, "GET"),
            ref.size_bytes,
            ref.digest or found.digest,
            value.type,
            value.format,
        )


def needed_paths(
    compute: ComputeClient, storage: StorageClient, inputs: Sequence[StorageClient]
) -> tuple[NeededPath, ...]:
    """What a job must see as files: the storage it writes into, and those that it reads from, as far
    as they are files there."""
    found: dict[tuple[str, str], NeededPath] = {}
    for one in (storage, *inputs):
        if one.file_space in compute.file_spaces:
            needed = NeededPath(one.file_space or "", one.file_root, writable=one is storage)
            found.setdefault((needed.space, needed.path), needed)
    return tuple(found.values())


def resources(needs: Needs) -> Resources:
    """What a compute is asked for. Its time limit is the last resort: the runner holds the operation
    to its own, and still has to store the log and say why."""
    time_s = None if needs.time_s is None else needs.time_s + BEYOND_LIMIT_S
    return Resources(needs.cpus, needs.memory_bytes, needs.gpus, time_s)


def objects(execution: Execution, job: Job, bundle: Bundle) -> dict[str, Place]:
    """Every object the current attempt may touch, by its name in the protocol."""
    folder = job.folder()
    places = {
        "code": Place(execution.storage, bundle.key, "GET"),
        "log": Place(execution.storage, f"{folder}/{protocol.LOG_FILE}", "PUT"),
        "events": Place(execution.storage, f"{folder}/{protocol.EVENTS_FILE}", "PUT"),
        "result": Place(execution.storage, f"{folder}/{protocol.RESULT_FILE}", "PUT"),
    }
    for name in job.plan.outputs:
        places[f"outputs/{name}"] = Place(execution.storage, f"{folder}/{name}", "PUT")
    for one in job.plan.inputs:
        value = job.value_of(one)
        if value is not None:
            places[one.object_name] = Place(value.ref.storage, value.ref.key, "GET")
    return places
