"""Start, look at, cancel, rerun: the only place that begins executions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from deepforge.compute.client import ComputeClient
from deepforge.compute.port import PYTHON, JobRequest, Refusal
from deepforge.connections.open import Opener
from deepforge.errors import Conflict, InvalidRequest, NotFound
from deepforge.events import Event, Events
from deepforge.execution.access import why_not
from deepforge.execution.driver import Driver
from deepforge.execution.handover import RUNNER_FILE, Handover, needed_paths, resources
from deepforge.execution.log_watch import LogWatch
from deepforge.execution.logs import LiveLogs
from deepforge.execution.model import (
    Execution,
    ExecutionState,
    ExecutionView,
    Job,
    LogPart,
    PlannedJob,
    StartRequest,
    StoredValue,
)
from deepforge.execution.plan import ChosenArtifact, first_jobs, jobs_again, plan
from deepforge.execution.store import ExecutionStore
from deepforge.ids import new_id, utc_now
from deepforge.pipelines.choose import Chosen, choose
from deepforge.pipelines.project import read_project
from deepforge.projects.artifacts import Artifacts
from deepforge.projects.history import History
from deepforge.projects.model import Artifact, checked_name
from deepforge.projects.store import Projects
from deepforge.runner import protocol
from deepforge.storage.client import StorageClient

LOG_PART_BYTES = 1024 * 1024


class Executions:
    """What users do with executions. `owner` is checked everywhere: others' do not exist."""

    def __init__(
        self,
        store: ExecutionStore,
        projects: Projects,
        history: History,
        artifacts: Artifacts,
        opener: Opener,
        handover: Handover,
        driver: Driver,
        logs: LiveLogs,
        log_watch: LogWatch,
        events: Events,
    ) -> None:
        self._store = store
        self._projects = projects
        self._history = history
        self._artifacts = artifacts
        self._opener = opener
        self._handover = handover
        self._driver = driver
        self._logs = logs
        self._log_watch = log_watch
        self._events = events

    async def start(self, request: StartRequest) -> ExecutionView:
        """Begin an execution. When this returns it is stored, and it is being driven.

        Raises `InvalidProject` with every finding in the project's text, `InvalidRequest` for choices
        that do not fit, and when a storage and a compute cannot work together; nothing has begun then.
        """
        project = await self._projects.find(request.owner, request.project)
        commit = request.commit or await self._history.head(project.id)
        if commit is None:
            raise InvalidRequest(
                f"project {project.name!r} has no commit yet",
                hint="record one: deepforge run FOLDER",
            )
        files = await self._history.read_files(project.id, commit)
        text = await asyncio.to_thread(read_project, files)
        graph = await asyncio.to_thread(text.pipeline, request.pipeline)
        chosen = choose(graph, request.attributes, request.inputs)
        storage = request.storage or text.defaults.storage or "local"
        compute = request.compute or text.defaults.compute or "server"
        artifacts = await self._chosen_artifacts(chosen, project.id, request.owner)
        planned = plan(
            chosen.graph,
            {
                name: ChosenArtifact(one.id, _value(one))
                for name, one in artifacts.items()
                if one is not None
            },
            compute=compute,
            computes=request.computes,
        )
        execution = Execution(
            id=new_id(),
            owner=request.owner,
            project=project.id,
            project_name=project.name,
            pipeline=graph.name,
            commit=commit,
            storage=storage,
            state=ExecutionState.RUNNING,
            created_at=utc_now(),
            attributes=dict(chosen.values),
            inputs={
                name: f"{one.name}@{one.version}"
                for name, one in artifacts.items()
                if one is not None
            },
            computes={**request.computes, "": compute},
        )
        return await self._begin(execution, first_jobs(execution.id, planned))

    async def rerun(self, id: str, owner: str) -> ExecutionView:
        """Begin a new execution of the same commit and choices that keeps what succeeded.

        Raises `Conflict` while the earlier one runs, `InvalidRequest` when nothing is left to do.
        """
        earlier = await self.get(id, owner)
        if earlier.execution.state is ExecutionState.RUNNING:
            raise Conflict(
                f"execution {id} is still running",
                hint=f"wait for it, or end it: deepforge executions cancel {id}",
            )
        if earlier.execution.state is ExecutionState.SUCCEEDED:
            raise InvalidRequest(f"execution {id} succeeded: there is nothing to run again")
        execution = replace(
            earlier.execution,
            id=new_id(),
            state=ExecutionState.RUNNING,
            created_at=utc_now(),
            ended_at=None,
            cancel_requested_at=None,
            paused_by=None,
            lease=None,
            rerun_of=id,
        )
        return await self._begin(execution, jobs_again(execution.id, list(earlier.jobs)))

    async def get(self, id: str, owner: str) -> ExecutionView:
        """Raises `NotFound`."""
        saved = await self._store.execution(id)
        if saved.value.owner != owner:
            raise NotFound(f"there is no execution {id!r}")
        execution = self._driver.shown(saved.value)
        conductor = self._driver.conductor(id)
        if conductor is not None:  # newer by what is not worth a write of its own
            return ExecutionView(execution, list(conductor.book))
        return ExecutionView(execution, [one.value for one in await self._store.jobs(id)])

    async def list(
        self,
        owner: str,
        *,
        project: str | None = None,
        state: ExecutionState | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[Execution]:
        """Newest first; `after` is the id of the last one of the page before."""
        return await self._store.executions(
            owner, project=project, state=state, after=after, limit=limit
        )

    async def cancel(self, id: str, owner: str) -> ExecutionView:
        """Ask for the end of an execution. Safe to repeat; one that has ended stays as it is.

        The end itself comes when every job under way has ended.
        """
        await self.get(id, owner)

        def ask(execution: Execution) -> Execution | None:
            if execution.state is not ExecutionState.RUNNING:
                return None
            if execution.cancel_requested_at is not None:
                return None
            return replace(execution, cancel_requested_at=utc_now())

        execution = await self._store.change_execution(id, ask)
        self._events.publish(Event(id, "execution", {"execution": execution}))
        conductor = self._driver.conductor(id)
        if conductor is not None and execution.cancel_requested_at is not None:
            conductor.execution = execution
            await conductor.cancel()
        return await self.get(id, owner)

    async def log(
        self, id: str, job: str, owner: str, *, attempt: int | None = None, start: int = 0
    ) -> LogPart:
        """A piece of what a job's attempt (default: its last) printed, from byte `start`.

        At most 1 MiB; ask again behind it until `ended`. Of a job that runs and cannot call us, asking
        has its platform asked, now and then: what that says is waited for once, for seconds, and
        there for the next call. Raises `NotFound`.
        """
        view = await self.get(id, owner)
        found = next((one for one in view.jobs if job in (one.id, one.plan.name)), None)
        if found is None:
            raise NotFound(
                f"execution {id} has no job {job!r}",
                hint=f"its jobs are {', '.join(one.plan.name for one in view.jobs)}",
            )
        number = attempt if attempt is not None else len(found.attempts)
        if number == 0 and attempt is None:
            return LogPart(0, b"", 0, ended=found.state.is_final)
        if not 1 <= number <= len(found.attempts):
            raise NotFound(
                f"job {found.plan.name!r} has no attempt {number}; it had {len(found.attempts)}"
            )
        await self._log_watch.look_first(view.execution, found, number)
        return await self.read_log(view.execution, found, number, start)

    async def read_log(self, execution: Execution, job: Job, number: int, start: int) -> LogPart:
        """As `log`, for whoever has the execution and the job at hand, and asks again and again."""
        tried = job.attempts[number - 1]
        data = self._logs.read(job.execution, job.id, number, start, LOG_PART_BYTES) or b""
        self._log_watch.look(execution, job, number)
        if tried.log_bytes is not None:
            data = data[: max(0, tried.log_bytes - start)]
            end = min(tried.log_bytes, start + LOG_PART_BYTES)
            if start + len(data) < end:  # what came live is gone by now, or was never all of it
                storage = await self._opener.storage(execution.storage, owner=execution.owner)
                key = f"{job.folder(number)}/{protocol.LOG_FILE}"
                data = b"".join(
                    [chunk async for chunk in storage.get_range(key, start=start, end=end)]
                )
            return LogPart(number, data, start, ended=start + len(data) >= tried.log_bytes)
        over = tried.ended_at is not None or job.state.is_final
        return LogPart(number, data, start, ended=over and len(data) < LOG_PART_BYTES)

    async def _begin(self, execution: Execution, jobs: Sequence[Job]) -> ExecutionView:
        machine = await self._check(execution, [job.plan for job in jobs])
        execution = replace(execution, machine=machine)
        await self._store.create(execution, jobs)
        await self._driver.adopt(execution.id)
        return ExecutionView(execution, jobs)

    async def _check(self, execution: Execution, planned: Sequence[PlannedJob]) -> str | None:
        """Refuse what could never run; return the machine that must drive it, if one must."""
        owner = execution.owner
        names = dict.fromkeys(one.compute for one in planned)
        await self._opener.allow("storage", execution.storage, owner=owner)
        for name in names:
            await self._opener.allow("compute", name, owner=owner)
        storage = await self._opener.storage(execution.storage, owner=owner)
        computes: dict[str, ComputeClient] = {}
        for name in names:
            computes[name] = await self._opener.compute(name, owner=owner)
        inputs = {
            one.value.ref.storage for job in planned for one in job.inputs if one.value is not None
        }
        storages = {execution.storage: storage}
        for name in sorted(inputs - {execution.storage}):
            await self._opener.allow("storage", name, owner=owner)
            storages[name] = await self._opener.storage(name, owner=owner)
        for _, name in (one for job in planned for one in job.publishes):
            checked_name(name, "an artifact")
        refusals: list[Refusal] = []
        if storage.read_only:
            refusals.append(
                Refusal(
                    "storage",
                    f"storage {storage.name!r} is for reading only: a run has to write into its own",
                    "name another one: --storage NAME; artifacts in this one can still be inputs",
                )
            )
        for compute in computes.values():
            for one in storages.values():
                refusals += why_not(one, compute, self._handover.address)
        if not refusals:
            sketches: dict[tuple[object, ...], tuple[str, JobRequest]] = {}  # each different one
            for job in planned:
                sketch = _sketch(execution, job, computes[job.compute], storages)
                asked = (job.compute, sketch.resources, sketch.paths)
                sketches.setdefault(asked, (job.compute, sketch))
            for name, sketch in sketches.values():
                refusals += await computes[name].why_not(sketch)
        if refusals:
            first = refusals[0]
            raise InvalidRequest(
                "; ".join(dict.fromkeys(one.message for one in refusals)),
                part=first.part,
                hint=first.hint,
            )
        machines = {one.machine for one in computes.values() if one.machine is not None}
        if len(machines) > 1:
            raise InvalidRequest("the chosen computes belong to different machines", part="compute")
        return next(iter(machines), None)

    async def _chosen_artifacts(
        self, chosen: Chosen, project: str, owner: str
    ) -> Mapping[str, Artifact | None]:
        found: dict[str, Artifact | None] = {}
        for parameter, text in chosen.artifacts.items():
            if text is None:
                found[parameter] = None
                continue
            try:
                artifact = await self._artifacts.resolve(text, owner=owner, project=project)
            except (NotFound, InvalidRequest) as error:
                raise InvalidRequest(
                    f"input {parameter!r}: {error.message}", part=parameter, hint=error.hint
                ) from error
            found[parameter] = artifact
        return found


def _value(artifact: Artifact) -> StoredValue:
    return StoredValue(artifact.ref, artifact.type, artifact.format)


def _sketch(
    execution: Execution,
    planned: PlannedJob,
    compute: ComputeClient,
    storages: Mapping[str, StorageClient],
) -> JobRequest:
    """The request as far as it is known before there is an attempt, for `why_not`."""
    inputs = {one.value.ref.storage for one in planned.inputs if one.value is not None}
    return JobRequest(
        key=f"{execution.id}-{planned.id}-1",
        command=(PYTHON, RUNNER_FILE, protocol.JOB_FILE),
        resources=resources(planned.needs),
        paths=needed_paths(
            compute, storages[execution.storage], [storages[name] for name in sorted(inputs)]
        ),
    )
