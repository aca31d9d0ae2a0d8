from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from deepforge.documents.port import DocumentStore
from deepforge.errors import Corrupt, InvalidRequest, NotFound
from deepforge.projects import artifacts as artifact_store
from deepforge.projects.artifacts import SHARED, Artifacts
from deepforge.projects.model import Artifact
from deepforge.projects.store import Projects
from deepforge.storage.port import ObjectRef

REF = ObjectRef("lab", "executions/e/j/1/outputs/model", 1234, "sha256:" + "0" * 64)


async def add(artifacts: Artifacts, name: str, project: str | None = None, **more: Any) -> Artifact:
    details: dict[str, Any] = {
        "type": "numpy.ndarray",
        "format": "npy",
        "ref": REF,
        "owner": "ada",
        **more,
    }
    return await artifacts.add(project=project, name=name, **details)


async def resolve(
    artifacts: Artifacts, text: str, project: str | None = None, owner: str = "ada"
) -> Artifact:
    return await artifacts.resolve(text, owner=owner, project=project)


async def test_what_is_added_comes_back(documents: DocumentStore) -> None:
    artifacts = Artifacts(documents)
    provenance = {"execution": "e", "inputs": [{"name": "x", "digest": None}], "attributes": {}}

    added = await add(artifacts, "model", "p1", provenance=provenance)

    assert added == await artifacts.get(added.id)
    assert added == await resolve(artifacts, "model", "p1")
    assert (added.project, added.name, added.version) == ("p1", "model", 1)
    assert (added.type, added.format, added.ref) == ("numpy.ndarray", "npy", REF)
    assert (added.owner, added.provenance) == ("ada", provenance)
    with pytest.raises(NotFound, match="no artifact with the id 'nothing'"):
        await artifacts.get("nothing")


async def test_versions_count_for_each_name_and_project(documents: DocumentStore) -> None:
    artifacts = Artifacts(documents)

    versions = [
        (await add(artifacts, name, project)).version
        for name, project in [
            *(("m", "p1"), ("m", "p1"), ("m", None), ("n", "p1"), ("m", "p2"), ("m", "p1")),
        ]
    ]

    assert versions == [1, 2, 1, 1, 1, 3]


async def test_versions_have_no_gap_and_no_double_however_many_race(
    documents: DocumentStore,
) -> None:
    artifacts = Artifacts(documents)

    added = await asyncio.gather(
        *(add(artifacts, "model", "p1", origin=f"e/{number}/out/model") for number in range(20))
    )

    assert sorted(one.version for one in added) == list(range(1, 21))
    assert (await resolve(artifacts, "model", "p1")).version == 20


async def test_one_origin_makes_one_artifact_however_often_it_is_added(
    documents: DocumentStore,
) -> None:
    artifacts = Artifacts(documents)
    origin = "e1/train/model/model"

    first = await add(artifacts, "model", "p1", origin=origin)
    later = ObjectRef("lab", "another", 1, None)
    again = await add(artifacts, "model", "p1", origin=origin, ref=later)
    racing = await asyncio.gather(
        *(add(artifacts, "other", "p1", origin="e1/x/o/other") for _ in range(20))
    )

    assert again == first
    assert len({one.id for one in racing}) == 1
    assert {one.version for one in racing} == {1}
    assert len(await artifacts.list()) == 2


async def test_a_version_is_asked_for_by_number(documents: DocumentStore) -> None:
    artifacts = Artifacts(documents)
    added = [await add(artifacts, "model", "p1") for _ in range(3)]

    assert added[1] == await resolve(artifacts, "model@2", "p1")
    assert added[1] == await resolve(artifacts, "model@v2", "p1")
    assert added[2] == await resolve(artifacts, "model@3", "p1")
    with pytest.raises(NotFound, match="has no version 4") as caught:
        await resolve(artifacts, "model@4", "p1")
    assert caught.value.hint == "its latest version is 3"


@pytest.mark.parametrize(
    "text", ["model@", "model@0", "model@-1", "model@1.5", "model@latest", "model@٣", "m@1@2"]
)
async def test_what_is_no_version_is_said(documents: DocumentStore, text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"is not a version|contains '@'"):
        await resolve(Artifacts(documents), text)


@pytest.mark.parametrize("text", ["", "/", "p/", "/m", "a\nb", "../m", "x" * 101, "a/b/c", "\0"])
async def test_what_is_no_name_is_said(documents: DocumentStore, text: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be the name of"):
        await resolve(Artifacts(documents), text)
    with pytest.raises(InvalidRequest, match="cannot be the name of an artifact"):
        await add(Artifacts(documents), text)


async def test_the_own_project_comes_before_the_shared_ones(documents: DocumentStore) -> None:
    artifacts = Artifacts(documents)
    shared = await add(artifacts, "model")
    own = await add(artifacts, "model", "p1")
    only_shared = await add(artifacts, "images")

    assert own == await resolve(artifacts, "model", "p1")
    assert shared == await resolve(artifacts, "model", "p2")
    assert shared == await resolve(artifacts, "model")
    assert only_shared == await resolve(artifacts, "images", "p1")


async def test_the_project_s_name_decides_also_when_only_the_shared_one_has_the_version(
    documents: DocumentStore,
) -> None:
    artifacts = Artifacts(documents)
    await add(artifacts, "model")
    await add(artifacts, "model")
    await add(artifacts, "model", "p1")

    with pytest.raises(NotFound, match="no version 2"):
        await resolve(artifacts, "model@2", "p1")


async def test_another_project_s_artifact_is_named_with_the_project(
    documents: DocumentStore,
) -> None:
    artifacts, projects = Artifacts(documents), Projects(documents)
    digits = await projects.create("ada", "digits & co")
    added = await add(artifacts, "model", digits.id)

    assert added == await resolve(artifacts, "digits & co/model")
    assert added == await resolve(artifacts, "digits & co/model@1", "p9")
    assert added == await resolve(artifacts, f"{digits.id}/model")
    with pytest.raises(NotFound, match="there is no project 'letters'"):
        await resolve(artifacts, "letters/model")
    with pytest.raises(NotFound, match="there is no artifact 'digits & co/mode'") as caught:
        await resolve(artifacts, "digits & co/mode")
    assert caught.value.hint == "did you mean digits & co/model?"


async def test_without_a_project_a_name_must_be_the_only_one(documents: DocumentStore) -> None:
    artifacts, projects = Artifacts(documents), Projects(documents)
    first = await projects.create("ada", "digits")
    second = await projects.create("ada", "letters")
    added = await add(artifacts, "model", first.id)
    assert added == await resolve(artifacts, "model")

    await add(artifacts, "model", second.id)
    with pytest.raises(InvalidRequest, match="'model' may mean several artifacts") as caught:
        await resolve(artifacts, "model")
    assert caught.value.hint == "say which: digits/model, letters/model"


async def test_what_others_own_is_not_there(documents: DocumentStore) -> None:
    """The same project name, the same artifact name, shared or not: nothing meets, nothing shows."""
    artifacts, projects = Artifacts(documents), Projects(documents)
    owned = {}
    for owner in ("ada", "bob"):
        project = (await projects.create(owner, "digits")).id
        owned[owner] = (
            await add(artifacts, "model", project, owner=owner),
            await add(artifacts, "images", owner=owner),
        )
    await add(artifacts, "accuracy", owned["bob"][0].project, owner="bob")

    for owner, (model, images) in owned.items():
        assert (model.version, images.version) == (1, 1)
        assert model == await resolve(artifacts, "model", owner=owner)
        assert model == await resolve(artifacts, "digits/model", owner=owner)
        assert images == await resolve(artifacts, "images", owner=owner)
    for text in (f"{owned['bob'][0].project}/model", "accuracy", "acuracy", "digits/accuracy"):
        with pytest.raises(NotFound) as caught:
            await resolve(artifacts, text, owner="ada")
        assert "accuracy" not in (caught.value.hint or "")


async def test_close_names_are_offered(documents: DocumentStore) -> None:
    artifacts, projects = Artifacts(documents), Projects(documents)
    digits = await projects.create("ada", "digits")
    await add(artifacts, "accuracy", digits.id)
    await add(artifacts, "images")

    for text, project, hint in [
        ("acuracy", digits.id, "did you mean accuracy?"),
        ("acuracy", None, "did you mean digits/accuracy?"),
        ("accuracy", "p9", "did you mean digits/accuracy?"),
        ("image", digits.id, "did you mean images?"),
        ("zzz", None, "see: deepforge artifacts list"),
    ]:
        with pytest.raises(NotFound, match=f"there is no artifact '{text}'") as caught:
            await resolve(artifacts, text, project)
        assert hint == caught.value.hint


async def test_a_name_left_by_a_crash_before_its_first_version_is_nothing(
    documents: DocumentStore,
) -> None:
    await documents.insert(
        "artifact_names", "p1:model", {"space": "p1", "owner": "ada", "name": "model"}
    )
    artifacts = Artifacts(documents)

    with pytest.raises(NotFound):
        await resolve(artifacts, "model")
    assert (await add(artifacts, "model", "p1")).version == 1
    assert (await resolve(artifacts, "model")).version == 1


async def test_artifacts_are_listed_newest_first_and_in_pages(documents: DocumentStore) -> None:
    artifacts = Artifacts(documents)
    added = []
    for name, project, owner in [
        *(("m", "p1", "ada"), ("m", "p1", "ada"), ("n", "p1", "bob"), ("m", None, "ada")),
    ]:
        added.append(await add(artifacts, name, project, owner=owner))
        await asyncio.sleep(0.002)  # ids sort by the millisecond

    assert await artifacts.list() == added[::-1]
    assert await artifacts.list(project="p1") == [added[2], added[1], added[0]]
    assert await artifacts.list(project=f"{SHARED}ada") == [added[3]]
    assert await artifacts.list(project="p1", name="m") == [added[1], added[0]]
    assert await artifacts.list(owner="bob") == [added[2]]
    first = await artifacts.list(limit=3)
    assert await artifacts.list(after=first[-1].id, limit=3) == [added[0]]


async def test_the_latest_of_many_versions_is_found_without_reading_them_all(
    documents: DocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = Artifacts(documents)
    for _ in range(30):
        await add(artifacts, "model", "p1")
    find, found = documents.find, []

    async def counted(*arguments: Any, **named: Any) -> Any:
        page = await find(*arguments, **named)
        found.extend(page)
        return page

    monkeypatch.setattr(documents, "find", counted)

    assert (await resolve(artifacts, "model", "p1")).version == 30
    assert len(found) == 1


ONE, OTHER = (f"sha256:{digit * 64}" for digit in "12")
IMPORTED = replace(REF, digest=None)


async def test_a_digest_is_learnt_once_by_all_who_read_the_same(documents: DocumentStore) -> None:
    artifacts = Artifacts(documents)
    added = await add(artifacts, "images", ref=IMPORTED)

    learnt = await asyncio.gather(
        *(artifacts.learn(added.id, size_bytes=1234, digest=ONE) for _ in range(10))
    )

    expected = replace(added, ref=replace(IMPORTED, digest=ONE))
    assert learnt == [expected] * 10
    assert expected == await artifacts.get(added.id)


async def test_of_two_who_read_different_data_one_hears_of_it(documents: DocumentStore) -> None:
    artifacts = Artifacts(documents)
    added = await add(artifacts, "images", ref=IMPORTED)

    answers = await asyncio.gather(
        *(artifacts.learn(added.id, size_bytes=1234, digest=one) for one in (ONE, OTHER)),
        return_exceptions=True,
    )

    (corrupt,) = (one for one in answers if isinstance(one, Corrupt))
    (kept,) = (one for one in answers if isinstance(one, Artifact))
    assert "artifact images@1 is not what it was" in corrupt.message
    assert (kept.ref.digest or "?") in corrupt.expected
    assert kept == await artifacts.get(added.id)
    assert "deepforge artifacts import images" in (corrupt.hint or "")


async def test_another_size_is_other_data_too(documents: DocumentStore) -> None:
    artifacts = Artifacts(documents)
    added = await add(artifacts, "images", ref=IMPORTED)

    with pytest.raises(Corrupt, match="had 1234 bytes, and has 7 bytes"):
        await artifacts.learn(added.id, size_bytes=7, digest=ONE)
    assert added == await artifacts.get(added.id)


async def test_those_that_lie_in_a_storage_are_counted(
    documents: DocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = Artifacts(documents)
    monkeypatch.setattr(artifact_store, "_COUNTED_AT_ONCE", 2)
    for number in range(5):
        await add(artifacts, f"a{number}", ref=replace(REF, storage="lab" if number else "other"))
    await add(artifacts, "bobs", owner="bob")

    assert await artifacts.count_in("lab", owner="ada") == 4
    assert await artifacts.count_in("other", owner="ada") == 1
    assert await artifacts.count_in("nothing", owner="ada") == 0
