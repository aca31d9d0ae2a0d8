"""Everything that can fail fails now and then, drivers come and go; the execution ends well.

Seeds make a failure repeatable in its faults, though not in its timing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from deepforge.compute.memory import MemoryJob
from deepforge.errors import AuthError, DeepForgeError, OutcomeUnknown, Unavailable
from deepforge.execution import driver
from deepforge.execution.access import Address
from deepforge.execution.driver import Driver
from deepforge.execution.machine import Policy
from deepforge.execution.model import ExecutionState
from execution.rig import Rig, job_of, leave_result, opened, ticket_of

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
def _quiet() -> Iterator[None]:
    """Tracebacks of expected failures, printed beautifully, take longer than all the rest."""
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


@pytest.mark.parametrize("seed", range(60))
async def test_an_execution_survives_chaos(
    home: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "AGAIN_S", 0.01)
    monkeypatch.setattr("deepforge.execution.effects.FIRST_PAUSE_S", 0.001)
    chaos = Chaos(seed)
    address = Address(public_url="http://127.0.0.1:9")
    async with (
        opened(home, drive=False, policy=PATIENT, address=address) as rig,
        opened(home, drive=False, policy=PATIENT, address=address) as other,
    ):
        rig.far_sides = {id: runner(chaos, rig, other) for id in "abcdefg"}
        await rig.record(LADDER)
        id = await rig.start()
        await stop(rig.driver)
        for documents in (rig.documents, other.documents):
            chaos.wrap(documents, "replace", Unavailable, OutcomeUnknown, often=0.1)
            chaos.wrap(documents, "get", Unavailable, often=0.05)
        compute = await rig.opener.compute("mem")
        chaos.wrap(compute, "submit", Unavailable, OutcomeUnknown, often=0.2)
        chaos.wrap(compute, "poll", Unavailable, AuthError, often=0.2)
        chaos.wrap(compute, "release", Unavailable, often=0.2)
        storage = await rig.opener.storage("local")
        chaos.wrap(storage, "get_bytes", Unavailable, AuthError, often=0.2)
        chaos.wrap(storage, "stat", Unavailable, often=0.1)

        for life in range(6):
            made = Driver(
                rig.store,
                rig.opener,
                rig.effects,
                rig.events,
                policy=PATIENT,
                holder=f"host:{life} 1.x",
            )
            async with made:
                await asyncio.sleep(chaos.chance.uniform(0.02, 0.25))
            await release_lease(rig, chaos, id)
        chaos.calm = True
        async with Driver(rig.store, rig.opener, rig.effects, rig.events, policy=PATIENT):
            view = await rig.ended(id, within_s=30)
        project = view.execution.project
        published = await rig.artifacts.list(project=project)

    assert chaos.faults > 0
    assert view.execution.state is ExecutionState.SUCCEEDED
    assert view.execution.paused_by is None
    assert len(rig.ran) == len(set(rig.ran)), "a key was started twice"
    for job in view.jobs:
        assert [one.outcome for one in job.attempts].count("succeeded") == 1
        assert job.attempts[-1].outcome == "succeeded"
        assert [one.number for one in job.attempts] == list(range(1, len(job.attempts) + 1))
    assert sorted(one.name for one in published) == ["c", "g"]


def runner(chaos: Chaos, *servers: Rig) -> Callable[[MemoryJob], Awaitable[int]]:
    """A far side that calls any of the servers, and is killed now and then."""

    async def far_side(job: MemoryJob) -> int:
        key, token = job.request.key, ticket_of(job)["channel"]["token"]

        async def call(ask: Callable[[Rig], Awaitable[Any]]) -> Any:
            while True:
                try:
                    return await ask(chaos.chance.choice(servers))
                except (Unavailable, OutcomeUnknown, AuthError):
                    await asyncio.sleep(0.005)

        handed = await call(lambda server: server.attempts.start(key, token, key))
        await asyncio.sleep(chaos.chance.uniform(0, 0.03))
        if not chaos.calm and chaos.chance.random() < 0.15:
            return -9
        leave_result(job_of(job, handed))
        if chaos.chance.random() < 0.7:
            await call(lambda server: server.attempts.finished(key, token))
        return 0

    return far_side


async def stop(running: Driver) -> None:
    await running.__aexit__(None, None, None)


async def release_lease(rig: Rig, chaos: Chaos, id: str) -> None:
    """A driver that could not give its lease back would hold it for 20 seconds."""
    from dataclasses import replace

    calm, chaos.calm = chaos.calm, True
    await rig.store.change_execution(id, lambda execution: replace(execution, lease=None))
    chaos.calm = calm
