"""Asking the supervisor: many at once, and what becomes of the others when one gives up."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from compute.supervised import stop_all, supervisor_pid, wait_gone
from deepforge.compute.server.folder import Folder
from deepforge.compute.server.link import Link


@pytest.fixture
async def link(tmp_path: Path) -> AsyncIterator[Link]:
    link = Link(Folder(tmp_path), slots=2, idle_s=5.0)
    yield link
    await link.close()
    assert stop_all(tmp_path) == {}


def poll(count: int) -> dict[str, object]:
    return {"op": "poll", "keys": ["k"] * count}


async def test_everybody_gets_the_answer_to_what_they_asked(link: Link) -> None:
    answers = await asyncio.gather(*(link.ask(poll(count)) for count in range(100)))
    assert [len(answer["reports"]) for answer in answers] == list(range(100))


async def test_a_refusal_is_for_the_one_who_asked(link: Link) -> None:
    right, wrong, right_too = await asyncio.gather(
        link.ask(poll(1)), link.ask({"op": "nonsense"}), link.ask(poll(2))
    )
    assert "error" in wrong
    assert (len(right["reports"]), len(right_too["reports"])) == (1, 2)


async def test_a_message_that_is_too_long_disturbs_nobody_else(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepforge.compute.server.wire.LONGEST", 1000)
    asked = [link.ask(poll(count)) for count in (1, 1000, 2)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers] == [dict, ValueError, dict]


@pytest.mark.parametrize("place", [0, 1, 20], ids=["who asks for all", "who waits", "the last"])
async def test_one_who_gives_up_leaves_the_others_their_answers(link: Link, place: int) -> None:
    await link.ask(poll(0))  # it runs, and is connected
    tasks = [asyncio.create_task(link.ask(poll(count))) for count in range(21)]
    for _ in range(3):  # the first holds the turn and waits for the answer
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    tasks[place].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[place], asyncio.CancelledError)
    others = [count for count in range(21) if count != place]
    found = [answers[count] for count in others]
    assert [len(one["reports"]) for one in found if isinstance(one, dict)] == others


async def test_all_who_wait_are_answered_by_the_next_supervisor(link: Link, tmp_path: Path) -> None:
    await link.ask(poll(0))
    pid = supervisor_pid(tmp_path)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    tasks = [asyncio.create_task(link.ask(poll(count))) for count in range(40)]
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in tasks)
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)
    answers = await asyncio.gather(*tasks)
    assert [len(answer["reports"]) for answer in answers] == list(range(40))
    assert supervisor_pid(tmp_path) not in (None, pid)
