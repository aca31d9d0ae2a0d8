"""The indexes are used: SQLite falls back to reading everything without a word."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from deepforge.documents.port import Document, Scalar
from deepforge.documents.sqlite_query import find_statement, schema
from deepforge.testing.documents import CONTRACT_COLLECTIONS

_LAST = Document("m", 1, {"rank": 3, "name": "n"})


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("after", [None, _LAST])
@pytest.mark.parametrize(
    ("equal", "sort", "index"),
    [
        ({}, "id", "sqlite_autoindex_notes_1"),
        ({"id": "x"}, "id", "sqlite_autoindex_notes_1"),
        ({"owner": "x"}, "id", "notes__by_owner"),
        ({"owner": None}, "id", "notes__by_owner"),
        ({"owner": True}, "id", "notes__by_owner"),
        ({"owner": 1.5}, "id", "notes__by_owner"),
        ({"owner": "x", "name": "y"}, "id", "notes__unique_owner-name"),
        ({"code": 1}, "id", "notes__unique_code"),
        ({"state": "s"}, "rank", "notes__by_state-rank"),
        ({"state": "s", "rank": 1}, "id", "notes__by_state-rank"),
        ({}, "rank", "notes__by_rank"),
    ],
)
def test_find_reads_an_index_in_its_order(
    equal: dict[str, Scalar], sort: str, index: str, after: Document | None, descending: bool
) -> None:
    plan = _plan(equal, sort, after, descending)

    assert f"USING INDEX {index}" in plan[0]
    assert len(plan) == 1, "it sorts by itself"
    if equal:
        assert plan[0].startswith("SEARCH")


@pytest.mark.parametrize("equal", [{}, {"state": "s"}])
def test_a_further_page_begins_in_the_index(equal: dict[str, Scalar]) -> None:
    assert "<expr>>?" in _plan(equal, "rank", _LAST, descending=False)[0]
    assert "id>?" in _plan({}, "id", _LAST, descending=False)[0]
    assert "id<?" in _plan({}, "id", _LAST, descending=True)[0]


def _plan(
    equal: dict[str, Scalar], sort: str, after: Document | None, descending: bool
) -> list[str]:
    sql, values = find_statement(
        "notes", equal, sort=sort, descending=descending, after=after, limit=10
    )
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for _, statement in schema(CONTRACT_COLLECTIONS[0]):
            connection.execute(statement)
        return [row[3] for row in connection.execute(f"explain query plan {sql}", values)]
