"""The execution engine over real documents, with jobs whose far side is a function of the test.

Storage is a real local folder and the compute is the `memory` one, which sees that folder: so a far
side reads `job.json` and puts files where it was granted to, as a runner without a channel does.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deepforge.compute.memory import MemoryCompute, MemoryJob
from deepforge.compute.port import JobReport
from deepforge.connections import store as connection_store
from deepforge.connections.open import Opener
from deepforge.connections.secrets import SecretBox
from deepforge.connections.store import LOCAL_OWNER, Connections
from deepforge.documents.port import DocumentStore
from deepforge.documents.registry import open_documents
from deepforge.events import Events
from deepforge.execution import store as execution_store
from deepforge.execution.access import Address
from deepforge.execution.attempts import Attempts
from deepforge.execution.bundle import Bundles
from deepforge.execution.driver import Driver
from deepforge.execution.effects import Effects
from deepforge.execution.handover import Handover
from deepforge.execution.log_watch import LogWatch
from deepforge.execution.logs import LiveLogs
from deepforge.execution.machine import Policy
from deepforge.execution.model import ExecutionState, ExecutionView, Job, StartRequest
from deepforge.execution.service import Executions
from deepforge.execution.store import ExecutionStore
from deepforge.ids import digest, utc_now
from deepforge.projects import artifacts as artifact_store
from deepforge.projects import history as history_store
from deepforge.projects import store as project_store
from deepforge.projects.artifacts import Artifacts
from deepforge.projects.history import History
from deepforge.projects.objects import TreeEntry
from deepforge.projects.store import Projects
from deepforge.runner import protocol

COLLECTIONS = (
    *project_store.COLLECTIONS,
    *history_store.COLLECTIONS,
    *artifact_store.COLLECTIONS,
    *connection_store.COLLECTIONS,
    *execution_store.COLLECTIONS,
)

QUICK = Policy(first_pause_s=0.01, pause_factor=1, missing_grace_s=0.05)

CHAIN = {
    "operations/first.py": "class First:\n    def execute(self):\n        one = 1\n        return one\n",
    "operations/after.py": (
        "class After:\n    def __init__(self, text: str = 'a'):\n        self.text = text\n\n"
        "    def execute(self, part, other=None):\n        two = 2\n        return two\n"
    ),
    "pipelines/chain.py": (
        "from operations.after import After\nfrom operations.first import First\n\n\n"
        "def chain(text: str = 'x', given=None):\n    one = First().execute()\n"
        "    two = After(text=text).execute(one, given)\n    alone = First().execute()\n"
        "    return two, alone\n"
    ),
}
"""`one` goes into `two`; `alone` stands alone. What is returned: `two` and `alone`."""

FarSide = Callable[[MemoryJob], Any]  # an async function that returns an exit code or a report


@dataclass
class Rig:
    """One server process as far as the engine can tell: `holder` is its name in leases."""

    documents: DocumentStore
    store: ExecutionStore
    projects: Projects
    history: History
    artifacts: Artifacts
    connections: Connections
    opener: Opener
    handover: Handover
    effects: Effects
    driver: Driver
    logs: LiveLogs
    events: Events
    executions: Executions
    attempts: Attempts
    far_sides: dict[str, FarSide]
    """What runs in place of the job with this id; every other one does `succeed`."""
    ran: list[str] = field(default_factory=list)
    """Keys of the attempts whose far side was started, in order."""

    async def compute(self) -> MemoryCompute:
        client = await self.opener.compute("mem")
        assert isinstance(client.adapter, MemoryCompute)
        return client.adapter

    async def record(
        self, files: Mapping[str, str] = CHAIN, *, project: str = "trial", toml: str = ""
    ) -> str:
        """Make these files the head of the project and return the project's id."""
        found = await self.projects.create_or_get(LOCAL_OWNER, project)
        whole = {"deepforge.toml": f'name = "{project}"\n{toml}', **files}
        shas = await self.history.put_blobs(found.id, [text.encode() for text in whole.values()])
        await self.history.commit(
            found.id,
            {path: TreeEntry(sha) for path, sha in zip(whole, shas, strict=True)},
            message="a test",
            author="a test",
            when=utc_now(),
            parent=await self.history.head(found.id),
        )
        return found.id

    async def start(self, **choices: Any) -> str:
        """Press play and return the execution's id."""
        request = StartRequest(LOCAL_OWNER, "trial", compute="mem", storage="local")
        view = await self.executions.start(replace(request, **choices))
        return view.execution.id

    async def view(self, id: str) -> ExecutionView:
        return await self.executions.get(id, LOCAL_OWNER)

    async def ended(self, id: str, *, within_s: float = 20) -> ExecutionView:
        """Wait for the end of an execution."""
        return await self.until(
            id, lambda view: view.execution.state is not ExecutionState.RUNNING, within_s=within_s
        )

    async def until(
        self, id: str, reached: Callable[[ExecutionView], bool], *, within_s: float = 20
    ) -> ExecutionView:
        deadline = time.monotonic() + within_s
        while not reached(view := await self.view(id)):
            if time.monotonic() > deadline:
                states = {job.id: str(job.state) for job in view.jobs}
                raise AssertionError(f"after {within_s} s it is {view.execution.state}: {states}")
            await asyncio.sleep(0.01)
        return view


async def succeed(job: MemoryJob) -> int:
    """Store a value for each output, then the result."""
    leave_result(job_of(job))
    return 0


async def fail(job: MemoryJob) -> int:
    leave_result(job_of(job), failure=protocol.Failure("exception", "boom"))
    return 1


def job_of(job: MemoryJob, started: bytes | None = None) -> protocol.Job:
    """The complete job: what was handed over, or what `start` gave for the ticket."""
    handed = protocol.read_handed(started or job.request.files[protocol.JOB_FILE])
    assert isinstance(handed, protocol.Job)
    return handed


def leave_result(
    job: protocol.Job,
    *,
    failure: protocol.Failure | None = None,
    log: bytes = b"",
    **changes: Any,
) -> None:
    """Put outputs, log and result where the job was granted to; `changes` are to its Result."""
    outputs = []
    for slot in job.outputs if failure is None else ():
        data = f"{job.attempt} {slot.name}".encode()
        assert slot.grant is not None
        put(slot.grant, data)
        outputs.append(
            protocol.Output(slot.name, "builtins.str", "pickle", len(data), digest(data))
        )
    if log:
        put(job.log, log)
    result = protocol.Result(
        attempt=job.attempt,
        status="failed" if failure else "succeeded",
        outputs=outputs,
        failure=failure,
        log=protocol.Log(len(log), log.count(b"\n"), digest(log)) if log else None,
        seconds={"run": 0.25},
    )
    put(job.result, protocol.to_json(replace(result, **changes)))


def put(grant: protocol.Grant, data: bytes) -> None:
    assert grant.path is not None
    path = Path(grant.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@asynccontextmanager
async def opened(
    home: Path,
    *,
    database: str | None = None,
    drive: bool = True,
    holder: str | None = None,
    policy: Policy = QUICK,
    address: Address | None = None,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Rig]:
    """Open everything over a home folder, as a server process does. Several may share one home."""
    home.mkdir(parents=True, exist_ok=True)
    known = {"DEEPFORGE_COMPUTE_MEM__ADAPTER": "memory", **(environ or {})}
    async with AsyncExitStack() as stack:
        url = database or f"sqlite://{home}/deepforge.db"
        documents = await stack.enter_async_context(open_documents(url, COLLECTIONS))
        box = SecretBox(home / "secret.key", known)
        events = Events()
        logs = LiveLogs(home / "logs")
        projects, history, artifacts = Projects(documents), History(documents), Artifacts(documents)
        connections = Connections(documents, box, home=home, environ=known)
        opener = await stack.enter_async_context(Opener(connections, computes=home / "computes"))
        store = ExecutionStore(documents)
        handover = Handover(opener, Bundles(history), box, address or Address())
        effects = Effects(opener, handover, artifacts, logs)
        driver = Driver(store, opener, effects, events, policy=policy, holder=holder)
        log_watch = await stack.enter_async_context(
            LogWatch(store, opener, handover.address, driver, logs, events)
        )
        executions = Executions(
            store, projects, history, artifacts, opener, handover, driver, logs, log_watch, events
        )
        attempts = Attempts(store, opener, handover, driver, logs, events, policy=policy)
        rig = Rig(
            documents=documents,
            store=store,
            projects=projects,
            history=history,
            artifacts=artifacts,
            connections=connections,
            opener=opener,
            handover=handover,
            effects=effects,
            driver=driver,
            logs=logs,
            events=events,
            executions=executions,
            attempts=attempts,
            far_sides={},
        )
        compute = await rig.compute()

        async def far_side(job: MemoryJob) -> int | JobReport:
            rig.ran.append(job.request.key)
            ended: int | JobReport = await rig.far_sides.get(job.request.labels["job"], succeed)(
                job
            )
            return ended

        compute.program = far_side
        stack.push_async_callback(compute.end_jobs)
        if drive:
            await stack.enter_async_context(driver)
        yield rig


def states(jobs: Any) -> dict[str, str]:
    """The jobs of a view, by id."""
    return {job.id: str(job.state) for job in jobs}


def job_named(view: ExecutionView, id: str) -> Job:
    return next(job for job in view.jobs if job.id == id)


def ticket_of(job: MemoryJob) -> Mapping[str, Any]:
    """What a job with a channel was handed, decoded."""
    handed: Mapping[str, Any] = json.loads(job.request.files[protocol.JOB_FILE])
    return handed
