"""The exam of the documents port. A backend passes it or is not one.

    class TestMine(DocumentsContract):
        @pytest.fixture
        def make_store(self, tmp_path: Path) -> MakeStore:
            return lambda: MyStore(tmp_path / "file", CONTRACT_COLLECTIONS)

`make_store` returns a store that is not open yet, on a database that is empty when the test begins.
Called again in the same test it returns another store on the same database, as a second process
would have it. Needs pytest and pytest-asyncio.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from typing import Any

import pytest
import pytest_asyncio

from deepforge.documents.port import (
    MAX_DEPTH,
    MAX_DOCUMENT_BYTES,
    Collection,
    Document,
    DocumentStore,
    Draft,
    Scalar,
)
from deepforge.errors import AlreadyExists, Conflict, InvalidRequest, NotFound, Unavailable
from deepforge.testing.document_cases import ORDER, REFUSED, ROUND_TRIPS

MakeStore = Callable[[], DocumentStore]

CONTRACT_COLLECTIONS = (
    Collection(
        "notes",
        unique=(("owner", "name"), ("code",)),
        indexes=(("owner",), ("state", "rank"), ("rank",)),
    ),
    Collection("others"),
)


class DocumentsContract:
    """Subclass it with a fixture `make_store`."""

    @pytest_asyncio.fixture
    async def store(self, make_store: MakeStore) -> AsyncIterator[DocumentStore]:
        async with make_store() as opened:
            yield opened

    @pytest_asyncio.fixture
    async def second(
        self, make_store: MakeStore, store: DocumentStore
    ) -> AsyncIterator[DocumentStore]:
        """Another store on the same database."""
        async with make_store() as opened:
            yield opened

    # one document

    async def test_get_returns_what_insert_stored(self, store: DocumentStore) -> None:
        inserted = await store.insert("notes", "a", {"name": "first", "n": (1, 2)}, b"\0payload")

        assert inserted == Document("a", 1, {"name": "first", "n": [1, 2]}, b"\0payload")
        assert await store.get("notes", "a") == inserted

    @pytest.mark.parametrize("value", ROUND_TRIPS, ids=lambda value: repr(value)[:30])
    async def test_values_come_back_as_they_were(self, store: DocumentStore, value: Any) -> None:
        body = {"value": value, "inner": {"value": value}, "items": [value, value]}
        await store.insert("notes", "a", body)

        found = (await store.get("notes", "a")).body

        assert json.dumps(body, sort_keys=True) == json.dumps(found, sort_keys=True)  # 1 is not 1.0

    @pytest.mark.parametrize("size_bytes", [None, 0, 1, 1024 * 1024])
    async def test_payloads_come_back_as_they_were(
        self, store: DocumentStore, size_bytes: int | None
    ) -> None:
        data = None if size_bytes is None else bytes(i % 251 for i in range(size_bytes))
        await store.insert("notes", "a", {}, data)

        assert data == (await store.get("notes", "a")).data
        assert [data] == [one.data for one in await store.get_many("notes", ["a"])]

    @pytest.mark.parametrize("id", ["x" * 256, "a/b c", "../..", "😀'\"\n%$.", "\x01"])
    async def test_ids_may_be_ugly(self, store: DocumentStore, id: str) -> None:
        await store.insert("notes", id, {"n": 1})
        await store.replace("notes", id, {"n": 2}, if_revision=1)

        assert [Document(id, 2, {"n": 2})] == await store.find("notes", {"id": id})
        await store.delete("notes", id)
        with pytest.raises(NotFound):
            await store.get("notes", id)

    async def test_a_missing_document_is_not_found(self, store: DocumentStore) -> None:
        with pytest.raises(NotFound, match="'a' in notes"):
            await store.get("notes", "a")
        with pytest.raises(NotFound):
            await store.replace("notes", "a", {}, if_revision=1)

    async def test_an_id_is_taken_once(self, store: DocumentStore) -> None:
        await store.insert("notes", "a", {"n": 1})

        with pytest.raises(AlreadyExists, match="'a' in notes"):
            await store.insert("notes", "a", {"n": 2})
        assert (await store.get("notes", "a")).body == {"n": 1}

    async def test_collections_are_apart(self, store: DocumentStore) -> None:
        await store.insert("notes", "a", {"n": 1})
        await store.insert("others", "a", {"n": 2})
        await store.delete("notes", "a")

        assert (await store.get("others", "a")).body == {"n": 2}

    async def test_replace_puts_everything_in_place_of_everything(
        self, store: DocumentStore
    ) -> None:
        await store.insert("notes", "a", {"code": "x", "old": 1}, b"data")

        replaced = await store.replace("notes", "a", {"new": 2}, if_revision=1)

        assert replaced == Document("a", 2, {"new": 2})
        assert await store.get("notes", "a") == replaced

    async def test_a_stale_revision_is_a_conflict(self, store: DocumentStore) -> None:
        await store.insert("notes", "a", {"n": 1})
        await store.replace("notes", "a", {"n": 2}, if_revision=1)

        for stale in (1, 3):
            with pytest.raises(Conflict, match="revision 2"):
                await store.replace("notes", "a", {"n": 3}, if_revision=stale)
            with pytest.raises(Conflict):
                await store.delete("notes", "a", if_revision=stale)
        assert await store.get("notes", "a") == Document("a", 2, {"n": 2})

    async def test_delete_removes_and_absent_is_fine(self, store: DocumentStore) -> None:
        await store.insert("notes", "a", {})
        await store.delete("notes", "a", if_revision=1)
        await store.delete("notes", "a")
        await store.delete("notes", "a", if_revision=1)

        assert await store.find("notes") == []
        assert (await store.insert("notes", "a", {})).revision == 1

    async def test_get_many_keeps_the_order_asked_for(self, store: DocumentStore) -> None:
        ids = [f"{n:04}" for n in range(3000)]
        await store.insert_missing("notes", [Draft(id, {}, id.encode()) for id in ids])
        asked = [*reversed(ids), "absent"]

        found = await store.get_many("notes", asked)

        assert [(id, id.encode()) for id in reversed(ids)] == [(one.id, one.data) for one in found]
        assert await store.get_many("notes", []) == []

    # races

    async def test_of_many_who_race_on_one_revision_one_wins(
        self, store: DocumentStore, second: DocumentStore
    ) -> None:
        await store.insert("notes", "a", {"winner": None})
        for revision in range(1, 16):
            outcomes = await _outcomes(
                (store, second)[n % 2].replace("notes", "a", {"winner": n}, if_revision=revision)
                for n in range(20)
            )
            winners = [one for one in outcomes if isinstance(one, Document)]

            assert len(winners) == 1
            assert [Conflict] * 19 == [type(one) for one in outcomes if one not in winners]
            assert await store.get("notes", "a") == winners[0]

    async def test_no_increment_is_lost(self, store: DocumentStore, second: DocumentStore) -> None:
        await store.insert("notes", "a", {"n": 0})

        async def add_five(one: DocumentStore) -> None:
            added = 0
            while added < 5:
                found = await one.get("notes", "a")
                body = {"n": found.body["n"] + 1}
                try:
                    await one.replace("notes", "a", body, if_revision=found.revision)
                except Conflict:
                    continue
                added += 1

        await asyncio.gather(*(add_five((store, second)[n % 2]) for n in range(8)))

        assert await store.get("notes", "a") == Document("a", 41, {"n": 40})

    async def test_of_many_who_insert_one_id_one_wins(
        self, store: DocumentStore, second: DocumentStore
    ) -> None:
        for id in "abcde":
            outcomes = await _outcomes(
                (store, second)[n % 2].insert("notes", id, {"n": n}) for n in range(20)
            )

            assert [AlreadyExists] * 19 + [Document] == _types(outcomes)

    async def test_of_many_who_want_one_name_one_wins(
        self, store: DocumentStore, second: DocumentStore
    ) -> None:
        for name in "abcde":
            outcomes = await _outcomes(
                (store, second)[n % 2].insert("notes", f"{name}{n}", {"owner": 1, "name": name})
                for n in range(20)
            )

            assert [AlreadyExists] * 19 + [Document] == _types(outcomes)
        assert len(await store.find("notes", {"owner": 1})) == 5

    async def test_a_write_is_seen_at_once_by_everybody(
        self, store: DocumentStore, second: DocumentStore
    ) -> None:
        for revision in range(1, 31):
            if revision == 1:
                await store.insert("notes", "a", {"rank": 1})
            else:
                await store.replace("notes", "a", {"rank": revision}, if_revision=revision - 1)
            assert (await second.get("notes", "a")).revision == revision
            assert len(await second.find("notes", {"rank": revision})) == 1

    async def test_one_failure_leaves_its_neighbours_alone(self, store: DocumentStore) -> None:
        await store.insert("notes", "taken", {"code": 1})

        outcomes = await _outcomes(
            store.insert("notes", f"{n:02}", {"code": 1 if n % 3 else None, "rank": n})
            for n in range(60)
        )

        assert [AlreadyExists] * 40 + [Document] * 20 == _types(outcomes)
        found = await store.find("notes", sort="rank")
        assert [None, *range(0, 60, 3)] == [one.body.get("rank") for one in found]

    async def test_a_caller_that_gives_up_disturbs_nobody(self, store: DocumentStore) -> None:
        tasks = [asyncio.create_task(store.insert("notes", f"{n}", {})) for n in range(40)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        assert all(not task.cancelled() and task.exception() is None for task in tasks[1::2])
        assert {f"{n}" for n in range(1, 40, 2)} <= {one.id for one in await store.find("notes")}

    async def test_closing_finishes_what_was_begun(self, make_store: MakeStore) -> None:
        async with make_store() as store:
            tasks = [asyncio.create_task(store.insert("notes", f"{n}", {})) for n in range(30)]
            await asyncio.sleep(0)
        assert [Document] * 30 == [type(one) for one in await asyncio.gather(*tasks)]
        with pytest.raises(Unavailable):
            await store.get("notes", "1")

        async with make_store() as again:
            assert len(await again.find("notes")) == 30

    # unique groups

    async def test_a_unique_group_occurs_once(self, store: DocumentStore) -> None:
        await store.insert("notes", "a", {"owner": "me", "name": "x", "code": 1})
        await store.insert("notes", "b", {"owner": "you", "name": "x", "code": 2})

        with pytest.raises(AlreadyExists, match="same owner and name"):
            await store.insert("notes", "c", {"owner": "me", "name": "x"})
        with pytest.raises(AlreadyExists):
            await store.replace("notes", "b", {"code": 1}, if_revision=1)
        with pytest.raises(AlreadyExists):
            await store.insert_missing("notes", [Draft("d", {"code": 2})])
        assert [(one.id, one.revision) for one in await store.find("notes")] == [("a", 1), ("b", 1)]

    async def test_a_document_may_keep_its_own_values(self, store: DocumentStore) -> None:
        await store.insert("notes", "a", {"code": 1})

        assert (await store.replace("notes", "a", {"code": 1, "n": 2}, if_revision=1)).revision == 2

    @pytest.mark.parametrize("way", ["delete", "replace", "null"])
    async def test_values_are_free_again(self, store: DocumentStore, way: str) -> None:
        await store.insert("notes", "a", {"code": "x"})
        if way == "delete":
            await store.delete("notes", "a")
        else:
            body = {"code": None} if way == "null" else {}
            await store.replace("notes", "a", body, if_revision=1)

        await store.insert("notes", "b", {"code": "x"})

    async def test_absent_and_null_take_no_part(self, store: DocumentStore) -> None:
        bodies: list[dict[str, Any]] = [{}, {"code": None}, {"owner": 1}, {"name": "x"}]
        for n, body in enumerate(bodies * 2):
            await store.insert("notes", str(n), body)

        assert len(await store.find("notes")) == 8

    async def test_equal_means_the_same_for_unique_and_find(self, store: DocumentStore) -> None:
        for n, code in enumerate([1, True, "1", "a", "A", "é", "e\u0301", 0.1, False, ""]):
            await store.insert("notes", str(n), {"code": code})
        with pytest.raises(AlreadyExists):
            await store.insert("notes", "again", {"code": 1.0})

        expected: list[tuple[Scalar, list[str]]] = [
            (1.0, ["0"]),
            (True, ["1"]),
            ("1", ["2"]),
            ("A", ["4"]),
            (0.1, ["7"]),
            (0, []),
        ]
        for code, ids in expected:
            assert ids == [one.id for one in await store.find("notes", {"code": code})]

    # many at once

    async def test_insert_missing_may_be_repeated(self, store: DocumentStore) -> None:
        await store.insert("notes", "05", {"mine": True}, b"mine")
        drafts = [Draft(f"{n:02}", {"code": n}, b"%d" % n) for n in range(10)]

        assert await store.insert_missing("notes", drafts) == 9
        assert await store.insert_missing("notes", drafts) == 0
        assert await store.insert_missing("notes", [*drafts, Draft("10", {})]) == 1
        assert await store.insert_missing("notes", []) == 0
        assert (await store.get("notes", "05")).body == {"mine": True}
        assert (await store.get("notes", "07")) == Document("07", 1, {"code": 7}, b"7")

    async def test_racing_insert_missing_stores_each_once(
        self, store: DocumentStore, second: DocumentStore
    ) -> None:
        drafts = [Draft(f"{n:03}", {"rank": n}) for n in range(100)]

        counts = await asyncio.gather(
            *((store, second)[n % 2].insert_missing("notes", drafts) for n in range(6))
        )

        assert sum(counts) == 100
        assert len(await store.find("notes")) == 100

    # find

    async def test_find_wants_all_fields_equal(self, store: DocumentStore) -> None:
        await store.insert("notes", "a", {"state": "new", "rank": 1, "text": "x"}, b"data")
        await store.insert("notes", "b", {"state": "new", "rank": None})
        await store.insert("notes", "c", {"state": "old", "rank": 1})
        await store.insert("notes", "d", {"state": "new"})

        async def ids(equal: dict[str, Scalar]) -> str:
            return "".join(one.id for one in await store.find("notes", equal))

        assert await ids({}) == "abcd"
        assert await ids({"state": "new"}) == "abd"
        assert await ids({"state": "new", "rank": 1}) == "a"
        assert await ids({"state": "new", "rank": None}) == "bd"
        assert await ids({"state": "new", "id": "d"}) == "d"
        assert await ids({"state": "ne"}) == ""
        body = {"state": "new", "rank": 1, "text": "x"}
        assert await store.find("notes", {"id": "a"}) == [Document("a", 1, body, None)]

    @pytest.mark.parametrize("descending", [False, True])
    @pytest.mark.parametrize("size", [3, 1000])
    async def test_order_is_the_same_everywhere(
        self, store: DocumentStore, descending: bool, size: int
    ) -> None:
        groups = [[*group, *group] for group in ORDER]  # each twice, so that ids decide too
        expected: list[str] = []
        drafts: list[Draft] = []
        for place, group in enumerate(groups):
            for n, value in enumerate(group):
                id = f"{(place * 7) % 19:02}-{n}"
                expected.append(id)
                body = {} if value is None and n else {"rank": value}
                drafts.append(Draft(id, {**body, "state": "s"}))
        await store.insert_missing("notes", sorted(drafts, key=lambda one: one.id))
        if descending:
            expected.reverse()

        for equal in ({}, {"state": "s"}):
            found = await _pages(store, equal, "rank", descending=descending, size=size)
            assert expected == [one.id for one in found]

    @pytest.mark.parametrize(("sort", "descending"), [("id", False), ("id", True), ("rank", True)])
    async def test_pages_are_stable_while_others_write(
        self, store: DocumentStore, second: DocumentStore, sort: str, descending: bool
    ) -> None:
        """2,000 documents; while they are read, some go and others come on both sides."""
        ids = [f"{n:04}" for n in range(2000)]
        body = {"state": "s", "rank": 5}
        await store.insert_missing("notes", [Draft(id, body) for id in ids])
        gone: set[str] = set()
        seen: list[str] = []
        after: Document | None = None
        while page := await store.find(
            "notes", {"state": "s"}, sort=sort, descending=descending, after=after, limit=250
        ):
            seen += [one.id for one in page]
            assert len(page) <= 250
            assert len(seen) < 5000, "the pages do not end"
            after = page[-1]
            here = ids.index(after.id[:4])
            victims = [after.id, *ids[max(here - 3, 0) : here + 4 : 6]]
            gone.update(victims)
            await asyncio.gather(
                *(second.delete("notes", id) for id in victims),
                second.insert_missing("notes", [Draft(f"{after.id[:4]}+", body)]),
                second.insert_missing("notes", [Draft(f"{after.id[:4]}!", body)]),
            )

        assert seen == sorted(set(seen), reverse=descending)
        assert set(ids) - gone <= set(seen)

    # what no backend does

    @pytest.mark.parametrize("case", REFUSED)
    async def test_a_document_that_cannot_be_kept_is_refused(
        self, store: DocumentStore, case: str
    ) -> None:
        body, why = REFUSED[case]
        await store.insert("notes", "there", {})

        for attempt in (
            store.insert("notes", "a", body),
            store.insert_missing("notes", [Draft("a", body)]),
            store.replace("notes", "there", body, if_revision=1),
        ):
            with pytest.raises(InvalidRequest, match=why):
                await attempt
        assert await store.find("notes") == [Document("there", 1, {})]

    async def test_size_and_depth_have_the_same_limits_everywhere(
        self, store: DocumentStore
    ) -> None:
        half = MAX_DOCUMENT_BYTES // 2
        await store.insert("notes", "text", {"x": "ü" * (half - 4)})
        await store.insert("notes", "data", {"x": "y" * (half - 8)}, bytes(half))
        deep: dict[str, Any] = {}
        for _ in range(MAX_DEPTH - 1):
            deep = {"x": deep}
        await store.insert("notes", "deep", deep)

        assert len((await store.get("notes", "text")).body["x"]) == half - 4
        assert (await store.get("notes", "data")).data == bytes(half)
        assert (await store.get("notes", "deep")).body == deep
        for body, data in (({"x": "ü" * half}, None), ({}, bytes(2 * half)), ({"x": deep}, None)):
            with pytest.raises(InvalidRequest, match=r"limit|deeper"):
                await store.insert("notes", "over", body, data)

    async def test_questions_without_an_answer_are_refused(self, store: DocumentStore) -> None:
        for attempt in (
            store.get("nothing", "a"),
            store.get("notes", ""),
            store.get("notes", "a\0"),
            store.delete("notes", "\ud83d"),
            store.insert("notes", "x" * 257, {}),
            store.replace("notes", "a", {}, if_revision=0),
            store.replace("notes", "a", {}, if_revision=2**63),
            store.find("notes", {"text": "x"}),
            store.find("notes", {"state": math.nan}),
            store.find("notes", {"id": 5}),
            store.find("notes", sort="text"),
            store.find("notes", sort="state'); drop table notes; --"),
            store.find("notes", limit=0),
        ):
            with pytest.raises(InvalidRequest):
                await attempt


async def _outcomes(attempts: Iterable[Coroutine[Any, Any, Document]]) -> list[Any]:
    """Do all at once; a document or an exception for each."""
    return list(await asyncio.gather(*attempts, return_exceptions=True))


def _types(outcomes: list[Any]) -> list[type]:
    return sorted((type(one) for one in outcomes), key=lambda kind: kind.__name__)


async def _pages(
    store: DocumentStore, equal: Mapping[str, Scalar], sort: str, *, descending: bool, size: int
) -> list[Document]:
    found: list[Document] = []
    while page := await store.find(
        "notes",
        equal,
        sort=sort,
        descending=descending,
        after=found[-1] if found else None,
        limit=size,
    ):
        found += page
        assert len(found) < 5000, "the pages do not end"
    return found
