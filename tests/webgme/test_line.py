from __future__ import annotations

import time

from deepforge.webgme.line import Line, Waiting
from deepforge.webgme.workers import Need, Offer, Room

ANY = Offer(frozenset(), 1, Room(8, 2**34, 0))
GPU = Offer(frozenset(), 1, Room(8, 2**34, 4))


def line_of(*needs: Need) -> Line:
    line = Line()
    for number, need in enumerate(needs):
        line.add(Waiting(f"{number}", f"{number:05}", need))
    return line


def hashes(taken: list[Waiting]) -> list[str]:
    return [one.hash for one in taken]


def test_the_first_that_fits_comes_first() -> None:
    line = line_of(Need(gpus=1), Need(), Need(gpus=1), Need())

    assert ["1", "3"] == [one.hash for _ in range(2) if (one := line.take(ANY))]
    assert line.take(ANY) is None
    assert ["0", "2"] == [one.hash for _ in range(2) if (one := line.take(GPU))]
    assert 0 == len(line)


def test_several_are_taken_as_they_fit_together() -> None:
    line = line_of(Need(cpus=6), Need(cpus=6), Need(cpus=2), Need())
    offer = Offer(frozenset(), 3, Room(8, 2**34, 0))

    assert ["0", "2"] == hashes(line.take_all(offer))


def test_a_job_stands_in_line_once() -> None:
    line = line_of(Need())
    line.add(Waiting("0", "00009", Need()))
    line.remove("unknown")

    assert ["0"] == hashes(line.take_all(Offer(frozenset(), 9, Room(9, 0, 0))))
    assert "0" not in line


def test_a_long_line_is_as_quick_as_a_short_one() -> None:
    line = line_of(*[Need()] * 50_000)

    began = time.perf_counter()
    while line.take(ANY):
        pass
    assert time.perf_counter() - began < 5


def test_a_large_job_is_overtaken_for_some_time_and_then_waited_for() -> None:
    line = line_of(Need(cpus=8), Need(), Need(), Need(gpus=1))
    busy = Offer(frozenset(), 4, Room(2, 2**34, 0), total=Room(8, 2**34, 0))
    empty = Offer(frozenset(), 4, Room(8, 2**34, 0), total=Room(8, 2**34, 0))

    assert ["1"] == [one.hash for one in (line.take(busy),) if one]
    assert [] == line.take_all(busy, patience="00001")
    assert ["0"] == hashes(line.take_all(empty, patience="00001"))
    assert ["2"] == hashes(line.take_all(busy, patience="00009")), "it has no GPU at all"
