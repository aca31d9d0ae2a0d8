"""Both backends and a plain model of the port do the same things, whatever the order of events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from deepforge.documents.checks import check_document
from deepforge.documents.port import Collection, Document, DocumentStore, Scalar
from deepforge.documents.registry import open_documents
from deepforge.errors import AlreadyExists, Conflict, DeepForgeError, NotFound
from mongo_server import MongoServer

KIND = Collection("notes", unique=(("a", "b"),), indexes=(("a",), ("b", "a")))

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3)
scalars: st.SearchStrategy[Scalar] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0.5, -0.5, 1.0, 2.0, 1e300, 0.1]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "a", "A", "1"]),
    texts,
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)
bodies = st.fixed_dictionaries({}, optional={"a": scalars, "b": scalars, "rest": anything})
ids = st.sampled_from(["1", "2", "3", "4", "5", "é"])
operations = st.one_of(
    st.tuples(st.just("insert"), ids, bodies, st.none() | st.binary(max_size=3)),
    st.tuples(st.just("replace"), ids, bodies, st.integers(1, 3)),
    st.tuples(st.just("delete"), ids, st.none() | st.integers(1, 3)),
)
questions = st.fixed_dictionaries(
    {
        "equal": st.fixed_dictionaries({}, optional={"a": scalars, "b": scalars, "id": ids}),
        "sort": st.sampled_from(["id", "a", "b"]),
        "descending": st.booleans(),
        "limit": st.none() | st.integers(1, 3),
    }
)


@dataclass
class Model:
    """The port in its own words."""

    documents: dict[str, Document] = field(default_factory=dict)

    def do(self, what: str, id: str, *rest: Any) -> Document | None:
        there = self.documents.get(id)
        if what == "delete":
            if there and rest[0] not in (None, there.revision):
                raise Conflict("")
            self.documents.pop(id, None)
            return None
        if what == "insert" and there:
            raise AlreadyExists("")
        if what == "replace" and not there:
            raise NotFound("")
        if there and there.revision != rest[1]:
            raise Conflict("")
        group = [_rank(rest[0].get(name)) for name in ("a", "b")]
        others = [one.body for one in self.documents.values() if one.id != id]
        if (0,) not in group and group in [[_rank(o.get(n)) for n in ("a", "b")] for o in others]:
            raise AlreadyExists("")
        revision = there.revision + 1 if there else 1
        data = rest[1] if what == "insert" else None
        self.documents[id] = Document(id, revision, rest[0], data)
        return self.documents[id]

    def find(
        self, equal: dict[str, Scalar], sort: str, descending: bool, limit: int | None
    ) -> list[str]:
        def value(one: Document, name: str) -> tuple[Any, ...]:
            return _rank(one.id if name == "id" else one.body.get(name))

        found = [
            one
            for one in self.documents.values()
            if all(value(one, name) == _rank(wanted) for name, wanted in equal.items())
        ]
        found.sort(key=lambda one: (value(one, sort), one.id), reverse=descending)
        return [one.id for one in found]


def _rank(value: Scalar) -> tuple[Any, ...]:
    if value is None:
        return (0,)
    if isinstance(value, bool):
        return (3, value)
    return (2, value) if isinstance(value, str) else (1, value)


_numbers = count()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(operations, max_size=14), st.lists(questions, min_size=1, max_size=4))
def test_sqlite_does_as_the_port_says(
    tmp_path: Path, steps: list[tuple[Any, ...]], asked: list[dict[str, Any]]
) -> None:
    asyncio.run(_compare(f"sqlite://{tmp_path}/{next(_numbers)}.db", steps, asked))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(operations, max_size=14), st.lists(questions, min_size=1, max_size=4))
def test_mongo_does_as_the_port_says(
    mongo_server: MongoServer, steps: list[tuple[Any, ...]], asked: list[dict[str, Any]]
) -> None:
    asyncio.run(_compare(mongo_server.new_database(), steps, asked))


async def _compare(
    url: str, steps: Sequence[tuple[Any, ...]], asked: Sequence[dict[str, Any]]
) -> None:
    model = Model()
    async with open_documents(url, [KIND]) as store:
        for step in steps:
            assert _outcome_of(model, step) == await _outcome(store, step)
        for question in asked:
            expected = model.find(**question)
            found = await _pages(store, **question)
            assert expected == [one.id for one in found]
            for one in found:
                kept = model.documents[one.id]
                assert _text(kept) == _text(one)


def _outcome_of(model: Model, step: tuple[Any, ...]) -> object:
    try:
        return _seen(model.do(*step))
    except DeepForgeError as error:
        return type(error)


async def _outcome(store: DocumentStore, step: tuple[Any, ...]) -> object:
    what, id, *rest = step
    try:
        if what == "insert":
            return _seen(await store.insert("notes", id, rest[0], rest[1]))
        if what == "replace":
            return _seen(await store.replace("notes", id, rest[0], if_revision=rest[1]))
        await store.delete("notes", id, if_revision=rest[0])
    except DeepForgeError as error:
        return type(error)
    return None


async def _pages(
    store: DocumentStore, equal: dict[str, Scalar], sort: str, descending: bool, limit: int | None
) -> list[Document]:
    found: list[Document] = []
    while page := await store.find(
        "notes",
        equal,
        sort=sort,
        descending=descending,
        after=found[-1] if found else None,
        limit=limit,
    ):
        found += page
        assert len(found) < 100, "the pages do not end"
    return found


def _seen(document: Document | None) -> object:
    return document and (document.id, document.revision, _text(document), document.data)


def _text(document: Document) -> str:
    """The body as JSON, which tells 1 from 1.0 and from true."""
    return check_document(KIND, document.id, document.body, None).replace("-0.0", "0.0")
