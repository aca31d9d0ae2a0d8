from __future__ import annotations

import asyncio
from typing import Any

import pytest

from deepforge.errors import NotFound
from deepforge.webgme import registry as registry_module
from deepforge.webgme.registry import Registry
from deepforge.webgme.workers import read_poll
from webgme.rig import OWNER, Rig, question


async def meet(registry: Registry, *arguments: str, **more: Any) -> None:
    asked = read_poll(question(*arguments, **more))
    await registry.meet(OWNER, asked, nudge=lambda known: None)


async def revision(rig: Rig) -> int:
    (document,) = await rig.services.documents.find("workers")
    return document.revision


async def test_that_a_worker_was_heard_of_is_seldom_written(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 workers that ask every 25 seconds must not keep the disk busy."""
    registry = Registry(rig.services.documents)
    for free in range(5):
        await meet(registry, "w", slots=free)
    assert 1 == await revision(rig)

    monkeypatch.setattr(registry_module, "SAVE_EVERY_S", 0.0)
    await meet(registry, "w")
    assert 2 == await revision(rig)


async def test_what_others_should_know_is_written_at_once(rig: Rig) -> None:
    registry = Registry(rig.services.documents)
    await meet(registry, "w")
    await meet(registry, "w", labels=("gpu",))

    (seen,) = await Registry(rig.services.documents).of_owner(OWNER)
    assert ("gpu",) == seen.labels


async def test_two_servers_that_hear_of_a_worker_in_turn_both_write(rig: Rig) -> None:
    servers = [Registry(rig.services.documents) for _ in range(2)]
    for number in range(6):
        await meet(servers[number % 2], "w", labels=(f"label-{number}",))

    (seen,) = await servers[0].of_owner(OWNER)
    assert ("label-5",) == seen.labels


async def test_a_forgotten_worker_comes_back_when_it_asks(rig: Rig) -> None:
    here, there = (Registry(rig.services.documents) for _ in range(2))
    await meet(here, "w")
    await there.forget(OWNER, "w")
    await there.forget(OWNER, "w")
    with pytest.raises(NotFound):
        await there.get(OWNER, "w")

    await meet(here, "w", labels=("new",))
    assert ("new",) == (await there.get(OWNER, "w")).labels


async def test_many_questions_of_a_new_worker_make_one_worker(rig: Rig) -> None:
    registry = Registry(rig.services.documents)
    await asyncio.gather(*(meet(registry, "w") for _ in range(10)))

    assert ["w"] == [one.id for one in await registry.of_owner(OWNER)]


async def test_what_this_process_heard_is_newer_than_what_is_written(rig: Rig) -> None:
    registry = Registry(rig.services.documents)
    await meet(registry, "w")
    (written,) = await rig.services.documents.find("workers")
    await asyncio.sleep(0.002)
    await meet(registry, "w")

    assert (await registry.get(OWNER, "w")).seen_at > written.body["seen_at"]
