"""Which part of the machine each job has."""

from __future__ import annotations

import pytest

from deepforge.worker.slots import Capacity, Need, Slots, read_need

MACHINE = Capacity(jobs=3, cpus=4, memory_bytes=100, gpus=("0", "2", "5"))


def test_what_jobs_have_together_is_never_more_than_there_is() -> None:
    slots = Slots(MACHINE)

    assert ("0",) == slots.take("a", Need(cpus=2, memory_bytes=60, gpus=1))
    assert slots.take("b", Need(memory_bytes=60)) is None
    assert slots.take("b", Need(cpus=3)) is None
    assert ("2", "5") == slots.take("b", Need(gpus=2))
    assert slots.take("c", Need(gpus=1)) is None
    assert () == slots.take("c", Need())
    assert slots.take("d", Need(cpus=0)) is None  # three at once
    assert Capacity(0, 0, 40, ()) == slots.free()


def test_what_is_given_back_is_free_again() -> None:
    slots = Slots(MACHINE)
    slots.take("a", Need(4, 100, 3))
    slots.give_back("a")
    slots.give_back("a")

    assert MACHINE == slots.free()


def test_a_job_found_again_keeps_its_gpus_though_the_machine_shrank() -> None:
    slots = Slots(Capacity(1, 1, 0, ("0",)))
    slots.restore("a", Need(4, 50, 1), ("0",))

    assert Capacity(0, 0, 0, ()) == slots.free()


@pytest.mark.parametrize(
    ("need", "word"),
    [(Need(5), "processors"), (Need(1, 101), "memory"), (Need(1, 0, 4), "GPUs")],
)
def test_what_never_fits_is_said(need: Need, word: str) -> None:
    assert word in str(Slots(MACHINE).why_never(need))
    assert Slots(MACHINE).why_never(Need(4, 100, 3)) is None


@pytest.mark.parametrize(
    ("resources", "need"),
    [
        ({}, Need(1, 0, 0)),
        ({"cpus": 2, "memoryBytes": 10, "gpus": 1}, Need(2, 10, 1)),
        ({"cpus": 0.5}, Need(1, 0, 0)),
        ({"cpus": None, "memoryBytes": "many", "gpus": True}, Need(1, 0, 0)),
        ({"cpus": -1}, Need(1, 0, 0)),
    ],
)
def test_a_need_is_read_from_whatever_came(resources: dict[str, object], need: Need) -> None:
    assert need == read_need(resources)
