from __future__ import annotations

from typing import Any

import pytest

from deepforge.errors import InvalidRequest
from deepforge.webgme.workers import Need, Offer, Room, offer_of, read_poll, why_it_waits
from webgme.rig import question

BIG = Offer(frozenset({"gpu", "lab"}), 2, Room(8, 2**34, 2))


@pytest.mark.parametrize(
    "need",
    [
        Need(),
        Need(frozenset({"gpu"})),
        Need(cpus=8, memory_bytes=2**34, gpus=2),
    ],
)
def test_a_job_fits_where_everything_it_asks_for_is_free(need: Need) -> None:
    assert BIG.fits(need)


@pytest.mark.parametrize(
    "need",
    [
        Need(frozenset({"gpu", "other"})),
        Need(cpus=9),
        Need(memory_bytes=2**34 + 1),
        Need(gpus=3),
    ],
)
def test_a_job_does_not_fit_where_anything_is_missing(need: Need) -> None:
    assert not BIG.fits(need)


def test_what_a_job_takes_is_not_there_for_the_next() -> None:
    left = BIG.without(Need(cpus=5, gpus=1))

    assert left.fits(Need(cpus=3, gpus=1))
    assert not left.fits(Need(cpus=4))
    assert not left.without(Need()).fits(Need()), "no slot is left"


def test_jobs_of_two_runners_do_not_share_an_answer() -> None:
    left = BIG.without(Need(runner="one"))

    assert left.fits(Need(runner="one"))
    assert left.fits(Need())
    assert not left.fits(Need(runner="other"))


def test_the_original_worker_gets_jobs_that_ask_for_nothing() -> None:
    offer = offer_of(read_poll(question("w", instance=None, labels=("lab",))))

    assert offer.fits(Need(frozenset({"lab"}), cpus=1))
    assert not any(map(offer.fits, (Need(cpus=2), Need(memory_bytes=1), Need(gpus=1))))


def test_a_question_of_ours_is_read_whole() -> None:
    poll = read_poll(question("w", "a", "b", slots=3, labels=("x",), gpus=1))

    assert ("w", 3, ("x",), ("a", "b")) == (
        poll.client_id,
        poll.available,
        poll.labels,
        poll.running,
    )
    assert poll.machine is not None
    assert poll.machine.free == Room(8, 2**33, 1)


def test_a_question_may_say_almost_nothing() -> None:
    assert 0 == read_poll({"clientId": "w"}).available


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"clientId": ""},
        {"clientId": 7},
        {"clientId": "a\nb"},
        {"clientId": "x" * 200},
        {"clientId": "w", "availableProcesses": "many"},
        {"clientId": "w", "availableProcesses": True},
        {"clientId": "w", "labels": "gpu"},
        {"clientId": "w", "runningJobs": {"a": 1}},
        {"clientId": "w", "runningJobs": [1]},
        {"clientId": "w", "deepforge": []},
        {"clientId": "w", "deepforge": {}},
        {"clientId": "w", "deepforge": {"instance": "i", "cpus": float("nan")}},
        {"clientId": "w", "deepforge": {"instance": "i", "free": 3}},
    ],
)
def test_a_question_of_the_wrong_shape_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        read_poll(asked)


@pytest.mark.parametrize(
    ("need", "workers", "reason"),
    [
        (Need(), [], "no worker is connected"),
        (Need(frozenset({"b", "a"})), [BIG], "no connected worker has the labels a, b"),
        (Need(gpus=3), [BIG], "no connected worker has 1 processors, 3 GPUs"),
        (
            Need(memory_bytes=2**40),
            [BIG],
            "no connected worker has 1 processors, 1024.0 GiB of memory",
        ),
        (Need(), [BIG], "every worker that could run it is busy"),
    ],
)
def test_why_a_job_waits_is_said_in_plain_words(
    need: Need, workers: list[Offer], reason: str
) -> None:
    assert reason == why_it_waits(need, workers)
