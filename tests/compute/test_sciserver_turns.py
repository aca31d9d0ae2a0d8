"""Several processes of one home ask SciServer together as rarely as one alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compute.sciserver_rig import PASSWORD, USER, opening
from deepforge.compute.sciserver import turns
from deepforge.compute.sciserver.turns import Turns
from deepforge.testing.compute_tools import python, state_of
from deepforge.testing.sciserver import SciServer, running

ASKS = """
import asyncio, sys, time
from pathlib import Path
from deepforge.compute.sciserver.turns import Turns

async def main():
    ours = Turns(Path(sys.argv[1]), "http://site", "alice")
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        await ours.wait("jobs", 0.25)
        print(time.time(), flush=True)
        await asyncio.sleep(0.02)

asyncio.run(main())
"""


def turns_of(folder: Path, username: str = "alice") -> Turns:
    return Turns(folder, "http://site", username)


def test_processes_of_one_home_take_turns(tmp_path: Path) -> None:
    others = [
        subprocess.Popen([sys.executable, "-c", ASKS, tmp_path], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    asked = sorted(float(line) for one in others for line in one.communicate(timeout=30)[0].split())

    took_s = asked[-1] - asked[0]
    assert len(asked) <= 2 * (took_s / 0.25 + 1), "alone each would have asked as often"
    assert len(asked) >= 4, "it does ask"


async def test_who_comes_second_waits_for_its_turn(tmp_path: Path) -> None:
    await turns_of(tmp_path).wait("jobs", 0.3)
    began_s = time.monotonic()

    await turns_of(tmp_path).wait("jobs", 0.3)

    assert time.monotonic() - began_s >= 0.25
    began_s = time.monotonic()
    await turns_of(tmp_path, "bob").wait("jobs", 30.0)
    assert time.monotonic() - began_s < 5.0, "another user's"


def test_what_is_not_needed_is_left_to_others(tmp_path: Path) -> None:
    assert turns_of(tmp_path).take("queues", 30.0)

    assert not turns_of(tmp_path).take("queues", 30.0)


@pytest.mark.parametrize("jumped_s", [-100_000, 100_000])
async def test_a_clock_that_jumps_stops_nobody(tmp_path: Path, jumped_s: float) -> None:
    await turns_of(tmp_path).wait("jobs", 6.0)
    (file,) = tmp_path.iterdir()
    os.utime(file, (time.time() + jumped_s,) * 2)
    began_s = time.monotonic()

    await turns_of(tmp_path).wait("jobs", 6.0)

    assert time.monotonic() - began_s < 3.0


async def test_who_never_gets_a_turn_asks_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "LONGEST_WAIT_S", 0.2)
    await turns_of(tmp_path).wait("jobs", 0.1)
    monkeypatch.setattr(Turns, "_left_s", lambda *_: 0.05)
    began_s = time.monotonic()

    await turns_of(tmp_path).wait("jobs", 0.1)

    assert 0.2 <= time.monotonic() - began_s < 5.0


async def test_a_folder_that_cannot_be_written_to_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    await turns_of(tmp_path / "file").wait("jobs", 6.0)


async def test_adapters_of_two_processes_share_their_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each computes' folder is its connection's; the turns are the home's."""
    with running(tmp_path / "site", tick_s=0.01) as site:
        site.users.add_user(USER, PASSWORD)
        async with (
            opening(site, tmp_path / "computes" / "one")() as one,
            opening(site, tmp_path / "computes" / "two")() as two,
        ):
            (tmp_path / "computes").mkdir()
            monkeypatch.setattr("deepforge.compute.sciserver.board._BOARDS", {}, raising=True)
            handle = await one.submit(python("import time; time.sleep(20)"))
            one.list_every_s = two.list_every_s = 0.5  # type: ignore[misc]
            began_s = time.monotonic()
            await state_of(one, handle)
            monkeypatch.setattr("deepforge.compute.sciserver.board._BOARDS", {}, raising=True)
            await state_of(two, handle)

            assert time.monotonic() - began_s >= 0.45
            assert lists(site) == 2
            await one.cancel([handle])


def lists(site: SciServer) -> int:
    return len([one for one in site.requests if "dockerjobs" in one.path and "open" in one.query])
