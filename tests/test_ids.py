from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepforge.ids import digest, epoch_s, is_digest, new_id, slug, timestamp, utc_now


def test_ids_are_unique_and_sort_by_time() -> None:
    first = new_id()
    many = {new_id() for _ in range(10_000)}
    deadline = time.time() + 0.002
    while time.time() < deadline:
        pass
    last = new_id()

    assert len(many) == 10_000
    assert all(re.fullmatch(r"[0-9a-z]{20}", one) for one in many)
    assert first < last
    assert max(many)[:9] <= last[:9]


@given(st.floats(0, 4e9))
def test_times_come_back_to_the_microsecond(seconds: float) -> None:
    assert epoch_s(timestamp(seconds)) == pytest.approx(seconds, abs=1e-6)


@given(st.lists(st.floats(0, 4e9)))
def test_times_sort_as_texts(times: list[float]) -> None:
    spelled = [timestamp(one) for one in times]

    assert sorted(spelled) == [timestamp(one) for one in sorted(times)]


def test_now_is_utc() -> None:
    assert utc_now().endswith("Z")
    assert epoch_s(utc_now()) == pytest.approx(time.time(), abs=5)


def test_digest_of_nothing() -> None:
    found = digest(b"")

    assert found == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert is_digest(found)
    assert not is_digest(found[:-1])
    assert not is_digest(found.upper())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("outer/Train", "outer-train"),
        ("modèle", "modele"),
        ("数据", "job"),
        ("__x__", "x"),
        ("a" * 50, "a" * 32),
    ],
)
def test_slugs_still_tell_the_name(name: str, expected: str) -> None:
    assert slug(name) == expected


@given(st.lists(st.text(max_size=60), max_size=40))
def test_slugs_are_unique_and_safe(names: list[str]) -> None:
    taken: list[str] = []
    for name in names:
        taken.append(slug(name, taken=taken))

    assert len(set(taken)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", one) for one in taken)
