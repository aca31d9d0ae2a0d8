"""What SciServer says is read for what it means, and odd things for what they are."""

from __future__ import annotations

from typing import Any

import pytest

from deepforge.compute.port import State
from deepforge.compute.sciserver.records import (
    Phase,
    forward,
    places,
    read_domain,
    read_job,
)
from deepforge.errors import Unavailable

COLUMNS = ["domainName", "ranking", "username", "status"]


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        (0, "unknown"),
        (1, "queued"),
        (2, "queued"),
        (4, "queued"),
        (8, "running"),
        (16, "running"),
        (24, "running"),
        (32, "over"),
        (48, "over"),
        (64, "over"),
        (80, "over"),
        (128, "over"),
        (136, "over"),
        (256, "queued"),
    ],
)
def test_a_status_is_bits(status: int, phase: Phase) -> None:
    assert phase == read_job({"id": 1, "status": status}).phase


@pytest.mark.parametrize(
    ("before", "phase", "expected"),
    [
        (None, "queued", "queued"),
        (None, "unknown", "queued"),
        ("running", "unknown", "running"),
        ("running", "queued", "running"),
        ("queued", "running", "running"),
    ],
)
def test_states_never_go_back(before: State | None, phase: Phase, expected: State) -> None:
    assert expected == forward(before, phase)


@pytest.mark.parametrize("value", [None, [], "job", {}, {"id": "x"}, {"id": 1, "messages": 5}])
def test_what_is_no_job_is_not_taken_for_one(value: Any) -> None:
    with pytest.raises(Unavailable):
        read_job(value)


@pytest.mark.parametrize(
    "value", [None, {}, {"name": "x"}, {"name": "x", "apiEndpoint": "y", "images": 3}]
)
def test_what_is_no_domain_is_not_taken_for_one(value: Any) -> None:
    with pytest.raises(Unavailable):
        read_domain(value)


def test_a_path_is_found_in_its_volume_and_in_no_other() -> None:
    volume = {"id": 9, "rootVolumeName": "Storage", "owner": "alice", "name": "lab"}
    domain = read_domain({"name": "x", "apiEndpoint": "y", "userVolumes": [volume]})

    assert domain.volume("/Storage/alice/lab/a/b") == domain.volumes[0]
    assert domain.volume("Storage/alice/lab") == domain.volumes[0]
    assert domain.volume("/Storage/alice/laboratory") is None
    assert domain.volume("/") is None


def test_places_are_counted_in_each_queue() -> None:
    rows = [
        ["Small", -1, "alice", 8],
        ["Small", 2, "alice", 1],
        ["Small", 1, "b0b5", 1],
        ["Small", 3, "alice", 0],
        ["Large", 1, "alice", 1],
    ]

    assert places({"columns": COLUMNS, "rows": rows}, "alice") == [2, 1]


@pytest.mark.parametrize(
    "table",
    [None, [], {"columns": 1, "rows": []}, {"columns": COLUMNS, "rows": [[1], 5, [None] * 4]}],
)
def test_a_queue_that_is_not_understood_gives_no_place(table: Any) -> None:
    assert places(table, "alice") == []
