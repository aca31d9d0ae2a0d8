"""What a runner may ask with the token of its attempt, and what it may not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deepforge.compute.memory import MemoryJob
from deepforge.connections.store import LOCAL_OWNER
from deepforge.errors import AttemptOver, AuthError, Conflict, InvalidRequest, NotFound
from deepforge.execution.access import Address
from deepforge.execution.model import ExecutionState
from deepforge.runner import protocol
from execution.rig import Rig, job_of, leave_result, opened, states, ticket_of

ADDRESS = Address(public_url="http://127.0.0.1:9")


@dataclass
class Far:
    """The job `one` while it runs: the test is its runner."""

    rig: Rig
    id: str
    key: str
    token: str
    over: asyncio.Event

    async def start(self, runner: str = "runner-a") -> protocol.Job:
        data = await self.rig.attempts.start(self.key, self.token, runner)
        return protocol.read_job(data)

    async def end(self) -> None:
        """The compute sees the runner exit."""
        self.over.set()
        await self.rig.ended(self.id)


@pytest.fixture
async def far(home: Path) -> AsyncIterator[Far]:
    async with opened(home, address=ADDRESS) as rig:
        begun: asyncio.Future[MemoryJob] = asyncio.get_running_loop().create_future()
        over = asyncio.Event()

        async def far_side(job: MemoryJob) -> int:
            if not begun.done():
                begun.set_result(job)
            await over.wait()
            return -9

        async def quick(job: MemoryJob) -> int:
            key, token = job.request.key, ticket_of(job)["channel"]["token"]
            leave_result(job_of(job, await rig.attempts.start(key, token, "quick")))
            return 0

        rig.far_sides = {"one": far_side, "two": quick, "alone": quick}
        await rig.record()
        id = await rig.start()
        job = await asyncio.wait_for(begun, 10)
        channel = ticket_of(job)["channel"]
        assert channel["url"].endswith(f"/api/v1/attempts/{job.request.key}")
        yield Far(rig, id, job.request.key, channel["token"], over)


async def test_the_first_runner_gets_the_job_and_may_ask_again(far: Far) -> None:
    first = await far.start()
    again = await far.start()
    view = await far.rig.view(far.id)

    assert first.operation == protocol.Operation("operations.first", "First", "operations/first.py")
    assert (again.attempt, again.outputs[0].name) == (first.attempt, "one")
    assert states(view.jobs)["one"] == "running"
    leave_result(again)
    await far.end()
    assert (await far.rig.view(far.id)).execution.state is ExecutionState.SUCCEEDED


async def test_a_second_runner_runs_nothing(far: Far) -> None:
    leave_result(await far.start())

    with pytest.raises(Conflict, match="another runner") as caught:
        await far.start("runner-b")
    assert not isinstance(caught.value, AttemptOver)
    await far.end()


async def test_of_twenty_runners_at_once_one_gets_the_job(far: Far) -> None:
    found = await asyncio.gather(
        *(far.start(f"runner-{number}") for number in range(20)), return_exceptions=True
    )

    assert sum(isinstance(one, protocol.Job) for one in found) == 1
    assert sum(isinstance(one, Conflict) for one in found) == 19


async def test_runners_that_race_through_two_servers_are_told_apart(far: Far, home: Path) -> None:
    async with opened(home, drive=False, address=ADDRESS) as other:
        found = await asyncio.gather(
            *(far.start(f"here-{number}") for number in range(5)),
            *(other.attempts.start(far.key, far.token, f"there-{number}") for number in range(5)),
            return_exceptions=True,
        )

    refused = [one for one in found if isinstance(one, Conflict)]
    assert len(refused) == 9, found


Ask = Callable[[Rig, str, str], Awaitable[Any]]


async def _chunks() -> AsyncIterator[bytes]:
    yield b"x"


ASKED: dict[str, Ask] = {
    "start": lambda rig, key, token: rig.attempts.start(key, token, "r"),
    "heartbeat": lambda rig, key, token: rig.attempts.heartbeat(key, token),
    "log": lambda rig, key, token: rig.attempts.log(key, token, 0, b"x"),
    "finished": lambda rig, key, token: rig.attempts.finished(key, token),
    "grants": lambda rig, key, token: rig.attempts.grants(key, token, ["code"]),
    "begin": lambda rig, key, token: rig.attempts.begin_output(key, token, "one", 1),
    "complete": lambda rig, key, token: rig.attempts.complete_output(key, token, "one", "u", []),
    "abort": lambda rig, key, token: rig.attempts.abort_output(key, token, "one", "u"),
    "read": lambda rig, key, token: rig.attempts.read_object(key, token, "code"),
    "write": lambda rig, key, token: rig.attempts.write_object(key, token, "log", _chunks(), 1),
}


@pytest.mark.parametrize("what", ASKED)
async def test_a_wrong_token_is_refused_everywhere(far: Far, what: str) -> None:
    neighbour = f"{far.id}-alone-1"
    for key, token in [
        (far.key, "wrong"),
        (far.key, ""),
        (far.key, far.token + "x"),
        (far.key, far.token[:-1]),
        (far.key, "ü"),
        (neighbour, far.token),
        (far.key[:-1] + "2", far.token),
        ("nonsense", far.token),
    ]:
        with pytest.raises(AuthError):
            await ASKED[what](far.rig, key, token)


@pytest.mark.parametrize("what", ASKED)
async def test_what_has_ended_is_over_everywhere(far: Far, what: str) -> None:
    leave_result(await far.start())
    await far.end()

    with pytest.raises(AttemptOver):
        await ASKED[what](far.rig, far.key, far.token)


async def test_an_attempt_that_was_replaced_is_over(far: Far) -> None:
    """The compute lost it; a late runner of it must not write over what the next one does."""
    await far.start()
    far.rig.far_sides.pop("one")

    async def quick(job: MemoryJob) -> int:
        token = ticket_of(job)["channel"]["token"]
        leave_result(job_of(job, await far.rig.attempts.start(job.request.key, token, "next")))
        return 0

    far.rig.far_sides["one"] = quick
    await far.end()
    with pytest.raises(AttemptOver):
        await far.start()

    view = await far.rig.view(far.id)
    assert [one.outcome for one in view.jobs[0].attempts] == ["lost", "succeeded"]


async def test_the_right_token_of_nothing_is_not_found(far: Far) -> None:
    for key in ("nonsense", f"{far.id}-none-1", f"{'0' * 20}-one-1", "../../secret.key"):
        with pytest.raises(NotFound):
            await far.rig.attempts.heartbeat(key, far.rig.handover.token(key))


async def test_only_the_objects_of_the_attempt_can_be_named(far: Far) -> None:
    await far.start()
    attempts = far.rig.attempts
    granted = await attempts.grants(far.key, far.token, ["code", "outputs/one", "log", "result"])
    size_bytes, chunks = await attempts.read_object(far.key, far.token, "code")
    code = b"".join([chunk async for chunk in chunks])

    assert {name: grant.method for name, grant in granted.items()} == {
        "code": "GET",
        "outputs/one": "PUT",
        "log": "PUT",
        "result": "PUT",
    }
    assert len(code) == size_bytes
    for name in ("outputs/two", "inputs/x", "../result", "outputs/../code", "", "secret.key"):
        with pytest.raises(NotFound):
            await attempts.grants(far.key, far.token, ["code", name])
        with pytest.raises(NotFound):
            await attempts.read_object(far.key, far.token, name)
        with pytest.raises(NotFound):
            await attempts.write_object(far.key, far.token, name, _chunks(), 1)
    for name in ("log", "result", "outputs/one"):  # to be written, not read
        with pytest.raises(NotFound):
            await attempts.read_object(far.key, far.token, name)
    with pytest.raises(NotFound):  # to be read, not written
        await attempts.write_object(far.key, far.token, "code", _chunks(), 1)
    with pytest.raises(InvalidRequest, match="one piece"):
        await attempts.begin_output(far.key, far.token, "one", 10**10)


async def test_the_log_is_kept_once_and_shown_as_it_comes(far: Far) -> None:
    await far.start()
    attempts = far.rig.attempts
    async with far.rig.events.listen(far.id) as queue:
        for start, data in ((0, b"one\n"), (0, b"one\n"), (2, b"e\ntwo\n"), (100, b"gap")):
            assert not await attempts.log(far.key, far.token, start, data)
        heard = [queue.get_nowait() for _ in range(queue.qsize())]
    part = await far.rig.executions.log(far.id, "one", LOCAL_OWNER)

    pieces = [(event.data["start"], event.data["data"]) for event in heard if event.kind == "log"]
    assert pieces == [(0, b"one\n"), (4, b"two\n")]
    assert (part.data, part.ended) == (b"one\ntwo\n", False)


async def test_a_cancel_is_told_with_every_answer(far: Far) -> None:
    await far.start()
    before = await far.rig.attempts.heartbeat(far.key, far.token)
    compute = await far.rig.compute()

    async def deaf(handles: object) -> None:
        """The compute does not listen, so the runner must be told."""

    compute.cancel = deaf  # type: ignore[method-assign]
    await far.rig.executions.cancel(far.id, LOCAL_OWNER)
    told = await far.rig.attempts.heartbeat(far.key, far.token)
    also = await far.rig.attempts.log(far.key, far.token, 0, b"x")
    far.over.set()
    view = await far.rig.ended(far.id)

    assert (before, told, also) == (False, True, True)
    assert view.execution.state is ExecutionState.CANCELLED
