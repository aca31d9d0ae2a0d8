from __future__ import annotations

import pytest

from deepforge.compute.port import Resources
from deepforge.webgme import desk as desk_module
from deepforge.webgme.desk import Desk
from deepforge.webgme.queue import Queue
from deepforge.webgme.workers import Offer, Room
from webgme.rig import OWNER, Rig


async def desk_of(rig: Rig) -> Desk:
    """A desk that hears nothing: what happens is another process's doing."""
    desk = Desk(OWNER, Queue(rig.services.documents))
    await desk.open()
    return desk


def waiting(desk: Desk) -> list[str]:
    return list(desk._line)


async def test_a_desk_opens_with_every_job_that_waits(rig: Rig) -> None:
    hashes = [await rig.submit(f"k{number}") for number in range(3)]

    assert hashes == waiting(await desk_of(rig))


async def test_what_came_elsewhere_is_seen_at_the_next_look(rig: Rig) -> None:
    desk = await desk_of(rig)
    hash = await rig.submit("k")
    assert [] == waiting(desk)

    await desk.look()
    await desk.look()

    assert [hash] == waiting(desk)


async def test_what_others_took_leaves_the_line_now_and_then(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, cancelled, left = [await rig.submit(f"k{number}") for number in range(3)]
    desk = await desk_of(rig)
    await rig.ask("w")
    await rig.queue.cancel(OWNER, cancelled)

    await desk.look()
    assert [taken, cancelled, left] == waiting(desk)
    monkeypatch.setattr(desk_module, "LOOKS_TO_ALL", 1)
    await desk.look()
    assert [left] == waiting(desk)


async def test_a_large_job_is_waited_for_after_a_while(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = await rig.submit("large", resources=Resources(cpus=4))
    small = await rig.submit("small")
    desk = await desk_of(rig)
    busy = Offer(frozenset(), 1, Room(1, 0, 0), total=Room(4, 0, 0))

    assert [small] == [one.hash for one in desk._line.take_all(busy, patience="")]
    await desk.look()
    assert [large, small] == waiting(desk)
    monkeypatch.setattr(desk_module, "PATIENCE_S", -60.0)
    assert [] == desk._line.take_all(busy, patience=desk_module._patience())
