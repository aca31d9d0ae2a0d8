"""Everything that can fail fails now and then, drivers come and go; the execution ends well.

Seeds make a failure repeatable in its faults, though not in its timing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from structlog.testing import capture_logs

from deepforge.compute.memory import MemoryJob
from deepforge.connections.store import LOCAL_OWNER
from deepforge.errors import AttemptOver, AuthError, DeepForgeError, OutcomeUnknown, Unavailable
from deepforge.execution import driver
from deepforge.execution.access import Address
from deepforge.execution.driver import Driver
from deepforge.execution.machine import Policy
from deepforge.execution.model import Execution, ExecutionState
from deepforge.runner import protocol
from execution.rig import Rig, job_of, leave_result, opened, ticket_of

T = TypeVar("T")

PATIENT = Policy(retries=100, first_pause_s=0.001, pause_factor=1, missing_grace_s=0.05)

LADDER = {
    "operations/step.py": (
        "class Step:\n    def execute(self, *parts):\n        one = 1\n        return one\n"
    ),
    "pipelines/ladder.py": (
        "from operations.step import Step\n\n\ndef ladder():\n"
        "    a = Step().execute()\n    b = Step().execute()\n    c = Step().execute(a, b)\n"
        "    d = Step().execute(b, None, a)\n    e = Step().execute(c)\n    f = Step().execute(d)\n"
        "    g = Step().execute(e, f, a)\n    return g, c\n"
    ),
}


@pytest.fixture(autouse=True)
def _quick_and_quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tracebacks of expected failures, printed beautifully, take longer than all the rest."""
    monkeypatch.setattr(driver, "AGAIN_S", 0.01)
    monkeypatch.setattr("deepforge.execution.effects.FIRST_PAUSE_S", 0.001)
    with capture_logs():
        yield


class Chaos:
    """Wraps methods so that they fail by chance, before or after they did what they do."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.faults = 0
        self.calm = False

    def wrap(self, thing: Any, method: str, *errors: type[DeepForgeError], often: float) -> None:
        do: Callable[..., Awaitable[Any]] = getattr(thing, method)

        async def failing(*arguments: Any, **options: Any) -> Any:
            fails, before = self.chance.random() < often, self.chance.random() < 0.5
            if not fails or self.calm:
                return await do(*arguments, **options)
            self.faults += 1
            if not before:
                await do(*arguments, **options)
            raise self.chance.choice(errors)(f"{method} failed by chance")

        setattr(thing, method, failing)


@pytest.mark.parametrize("seed", range(4))
async def test_an_execution_survives_chaos(home: Path, seed: int) -> None:
    async with chaotic(home, seed) as (rig, id):
        view = await rig.ended(id, within_s=30)
        published = await rig.artifacts.list(project=view.execution.project)

    assert view.execution.state is ExecutionState.SUCCEEDED
    assert view.execution.paused_by is None
    assert len(rig.ran) == len(set(rig.ran)), "a key was started twice"
    for job in view.jobs:
        assert [one.outcome for one in job.attempts].count("succeeded") == 1
        assert job.attempts[-1].outcome == "succeeded"
        assert [one.number for one in job.attempts] == list(range(1, len(job.attempts) + 1))
    assert sorted(one.name for one in published) == ["c", "g"]


@pytest.mark.parametrize("seed", range(4))
async def test_a_cancel_gets_through_chaos(home: Path, seed: int) -> None:
    async with chaotic(home, seed, cancel_in_life=seed % 3) as (rig, id):
        view = await rig.ended(id, within_s=30)
        compute = await rig.compute()
        running = [key for key, job in compute.jobs.items() if job.report.state == "running"]

    assert view.execution.state in (ExecutionState.CANCELLED, ExecutionState.SUCCEEDED)
    assert all(job.state in ("succeeded", "cancelled") for job in view.jobs)
    assert running == []


@asynccontextmanager
async def chaotic(
    home: Path, seed: int, *, cancel_in_life: int | None = None
) -> AsyncIterator[tuple[Rig, str]]:
    """An execution that six drivers have had in turn, each for a moment; a seventh has it now."""
    chaos = Chaos(seed)
    address = Address(public_url="http://127.0.0.1:9")
    async with (
        opened(home, drive=False, policy=PATIENT, address=address) as rig,
        opened(home, drive=False, policy=PATIENT, address=address) as other,
    ):
        rig.far_sides = {id: runner(chaos, rig, other) for id in "abcdefg"}
        await rig.record(LADDER)
        id = await rig.start()
        await rig.driver.__aexit__(None, None, None)
        await make_trouble(chaos, rig, other)
        for life in range(6):
            async with another_driver(rig, f"host:{life} 1.x"):
                if life == cancel_in_life:
                    await insist(lambda: other.executions.cancel(id, LOCAL_OWNER))
                await asyncio.sleep(chaos.chance.uniform(0.02, 0.25))
            # a driver that could not give its lease back would hold it for 20 seconds
            await insist(lambda: rig.store.change_execution(id, without_lease))
        chaos.calm = True
        assert chaos.faults > 0
        async with another_driver(rig):
            yield rig, id


def another_driver(rig: Rig, holder: str | None = None) -> Driver:
    return Driver(rig.store, rig.opener, rig.effects, rig.events, policy=PATIENT, holder=holder)


def without_lease(execution: Execution) -> Execution:
    return replace(execution, lease=None)


async def make_trouble(chaos: Chaos, *servers: Rig) -> None:
    for server in servers:
        chaos.wrap(server.documents, "replace", Unavailable, OutcomeUnknown, often=0.1)
        chaos.wrap(server.documents, "get", Unavailable, often=0.05)
        compute = await server.opener.compute("mem")
        chaos.wrap(compute, "submit", Unavailable, OutcomeUnknown, often=0.2)
        chaos.wrap(compute, "poll", Unavailable, AuthError, often=0.2)
        chaos.wrap(compute, "cancel", Unavailable, often=0.2)
        chaos.wrap(compute, "release", Unavailable, often=0.2)
        storage = await server.opener.storage("local")
        chaos.wrap(storage, "get_bytes", Unavailable, AuthError, often=0.2)
        chaos.wrap(storage, "stat", Unavailable, often=0.1)


async def insist(ask: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await ask()
        except (Unavailable, OutcomeUnknown, AuthError):
            await asyncio.sleep(0.005)


def runner(chaos: Chaos, *servers: Rig) -> Callable[[MemoryJob], Awaitable[int]]:
    """A far side that calls any of the servers, and is killed now and then."""

    async def far_side(job: MemoryJob) -> int:
        key, token = job.request.key, ticket_of(job)["channel"]["token"]
        calls = chaos.chance.choice(servers).attempts
        try:
            handed = await insist(lambda: calls.start(key, token, key))
        except AttemptOver:
            return protocol.EXIT_CANCELLED
        await asyncio.sleep(chaos.chance.uniform(0, 0.03))
        if not chaos.calm and chaos.chance.random() < 0.15:
            return -9
        leave_result(job_of(job, handed))
        if chaos.chance.random() < 0.7:
            with suppress(AttemptOver):
                await insist(lambda: calls.finished(key, token))
        return 0

    return far_side
