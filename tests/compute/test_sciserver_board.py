"""How often SciServer is asked how the jobs of a user are: at most twelve times in any minute."""

from __future__ import annotations

import asyncio
import itertools
import random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from deepforge.compute.sciserver import board
from deepforge.compute.sciserver.adapter import SciServerCompute
from deepforge.compute.sciserver.board import board_of
from deepforge.compute.sciserver.racm import Racm
from deepforge.compute.sciserver.records import Job
from deepforge.errors import RateLimited, Unavailable

MOST_IN_A_MINUTE = 12
MINUTES = 30


class Service:
    """Counts what it is asked. `trouble` is the part of lists that it does not answer."""

    def __init__(self, trouble: float, *, wish_s: float | None = None) -> None:
        self.asked_at_s: list[float] = []
        self.now_s = 1000.0
        self.session = self
        self._trouble = trouble
        self._wish_s = wish_s
        self._chance = random.Random(f"{trouble}")

    async def token(self) -> str:
        return "token"

    async def open_jobs(self) -> list[Job]:
        self.asked_at_s.append(self.now_s)
        if self._chance.random() < self._trouble:
            if self._wish_s is not None:
                raise RateLimited("slower", retry_after_s=self._wish_s)
            raise Unavailable("away")
        return [Job(1, "deepforge/a/", self._chance.choice((1, 8)))]  # always something new

    async def queues(self) -> Any:
        self.asked_at_s.append(self.now_s)
        return None

    @property
    def most_in_a_minute(self) -> int:
        return max(
            sum(start <= one < start + 60 for one in self.asked_at_s) for start in self.asked_at_s
        )


async def watch(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look every half second, as eighty tasks of two connections and their retries do."""
    monkeypatch.setattr(board, "time", SimpleNamespace(monotonic=lambda: service.now_s))
    connections = [board_of(site, "alice") for site in ("http://Site", "http://site")]
    racm, every_s = cast("Racm", service), SciServerCompute.list_every_s

    async def look(one: board.Board) -> None:
        await one.look(racm, every_s)
        await one.queues(racm)

    for _ in range(MINUTES * 120):
        service.now_s += 0.5
        looks = (look(connections[number % 2]) for number in range(8))
        for found in await asyncio.gather(*looks, return_exceptions=True):
            assert not isinstance(found, BaseException) or isinstance(
                found, Unavailable | RateLimited
            )


@pytest.mark.parametrize("trouble", [0.0, 0.3, 0.7, 1.0])
async def test_any_number_of_jobs_and_connections_ask_together(
    trouble: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(trouble)

    await watch(service, monkeypatch)

    assert service.most_in_a_minute <= MOST_IN_A_MINUTE
    assert len(service.asked_at_s) > MINUTES, "it does ask"


async def test_a_service_that_wants_a_longer_pause_gets_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = Service(1.0, wish_s=120)

    await watch(service, monkeypatch)

    lists = service.asked_at_s
    assert all(after - before >= 120 for before, after in itertools.pairwise(lists))
