from __future__ import annotations

import pytest

from deepforge.accounts.throttle import (
    FORGOTTEN_AFTER_S,
    FREE_TRIES,
    LONGEST_PAUSE_S,
    Throttle,
)
from deepforge.errors import RateLimited


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pause(throttle: Throttle, key: str = "ada") -> float:
    """How long the next try has to wait; counts one if it need not."""
    try:
        throttle.attempt(key)
    except RateLimited as error:
        return error.retry_after_s or 0
    return 0


def test_pauses_grow_and_end_growing(clock: Clock) -> None:
    throttle = Throttle(clock)
    for _ in range(FREE_TRIES):
        assert pause(throttle) == 0
    found = []
    for _ in range(12):
        found.append(pause(throttle))
        clock.now += found[-1]
        assert pause(throttle) == 0

    assert found[:4] == [1, 2, 4, 8]
    assert found == sorted(found)
    assert found[-1] == LONGEST_PAUSE_S


def test_asking_again_too_early_makes_it_no_longer(clock: Clock) -> None:
    throttle = Throttle(clock)
    for _ in range(FREE_TRIES):
        pause(throttle)

    assert [pause(throttle) for _ in range(100)] == [1] * 100


def test_success_and_time_make_it_forget(clock: Clock) -> None:
    throttle = Throttle(clock)
    for _ in range(FREE_TRIES):
        pause(throttle)
    throttle.succeeded("ada")
    assert [pause(throttle) for _ in range(FREE_TRIES)] == [0] * FREE_TRIES

    clock.now += FORGOTTEN_AFTER_S + 1
    assert [pause(throttle) for _ in range(FREE_TRIES)] == [0] * FREE_TRIES


def test_one_key_does_not_slow_another(clock: Clock) -> None:
    throttle = Throttle(clock)
    for _ in range(20):
        pause(throttle, "ada")

    assert pause(throttle, "bob") == 0


def test_made_up_names_do_not_fill_the_memory(clock: Clock) -> None:
    throttle = Throttle(clock)
    for number in range(20_000):
        pause(throttle, str(number))

    assert len(throttle._tries) <= 10_000
