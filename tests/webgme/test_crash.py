"""A server that is killed in the middle loses no job and hands none out twice."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import httpx

from journeys.parts import serving, wait_until
from shell import Shell
from webgme.rig import question

JOBS, WORKERS = 120, 12


class Crowd:
    """Workers that do nothing but report, to whichever server there is."""

    def __init__(self) -> None:
        self.url = ""
        self.handed: Counter[str] = Counter()
        self.done: set[str] = set()
        self.held: dict[str, set[str]] = {f"w{number}": set() for number in range(WORKERS)}

    async def run(self, enough: int) -> None:
        """Work until so many jobs are done, or the server does not answer any more."""
        async with httpx.AsyncClient(base_url=f"{self.url}/rest/executor", timeout=30) as http:
            tasks = [asyncio.create_task(self._work(http, name)) for name in self.held]
            until = time.monotonic() + 60
            while len(self.done) < enough and not all(one.done() for one in tasks):
                assert time.monotonic() < until
                await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, http: httpx.AsyncClient, name: str) -> None:
        held = self.held[name]
        while True:
            asked = question(name, *held, slots=2)
            answer = await http.post("/worker", json=asked, headers={"Prefer": "wait=2"})
            for hash in answer.json()["jobsToStart"]:
                self.handed[hash] += 1
                held.add(hash)
            for hash in list(held):
                report = {"worker": name, "status": "SUCCESS"}
                (await http.post(f"/update/{hash}", json=report)).raise_for_status()
                self.done.add(hash)
                held.discard(hash)


def test_a_server_killed_in_the_middle_loses_nothing(shell: Shell) -> None:
    crowd = Crowd()
    with serving(shell) as first:
        crowd.url = first.url
        for number in range(JOBS):
            httpx.post(f"{first.url}/rest/executor/create/job-{number}", json={})

        async def half() -> None:
            running = asyncio.create_task(crowd.run(JOBS))
            until = time.monotonic() + 60
            while len(crowd.done) < JOBS // 3:
                assert time.monotonic() < until
                await asyncio.sleep(0.001)
            first.kill()
            await running

        asyncio.run(half())
        assert len(crowd.done) < JOBS

    with serving(shell) as second:
        crowd.url = second.url

        def states() -> Counter[str]:
            found = httpx.get(f"{second.url}/rest/executor").json()
            return Counter(job["status"] for job in found.values())

        asyncio.run(crowd.run(JOBS))
        wait_until(lambda: states() == {"SUCCESS": JOBS}, within_s=10)

    assert JOBS == len(crowd.handed)
    assert {1} == set(crowd.handed.values())
