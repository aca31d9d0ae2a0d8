from __future__ import annotations

import asyncio
from typing import Any

import pytest

from deepforge.documents.port import DocumentStore
from deepforge.errors import InvalidRequest, NotFound
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


async def test_what_is_added_comes_back(documents: DocumentStore) -> None:
    artifacts = Artifacts(documents)
    provenance = {"execution": "e", "inputs": [{"name": "x", "digest": None}], "attributes": {}}

    added = await add(artifacts, "model", "p1", provenance=provenance)

    assert added == await artifacts.get(added.id)
    assert added == await artifacts.resolve("model", "p1")
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
    assert (await artifacts.resolve("model", "p1")).version == 20


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

    assert added[1] == await artifacts.resolve("model@2", "p1")
    assert added[1] == await artifacts.resolve("model@v2", "p1")
    assert added[2] == await artifacts.resolve("model@3", "p1")
    with pytest.raises(NotFound, match="has no version 4") as caught:
        await artifacts.resolve("model@4", "p1")
    assert caught.value.hint == "its latest version is 3"


@pytest.mark.parametrize(
    "text", ["model@", "model@0", "model@-1", "model@1.5", "model@latest", "model@٣", "m@1@2"]
)
async def test_what_is_no_version_is_said(documents: DocumentStore, text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"is not a version|contains '@'"):
        await Artifacts(documents).resolve(text)


@pytest.mark.parametrize("text", ["", "/", "p/", "/m", "a\nb", "../m", "x" * 101, "a/b/c", "\0"])
async def test_what_is_no_name_is_said(documents: DocumentStore, text: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be the name of"):
        await Artifacts(documents).resolve(text)
    with pytest.raises(InvalidRequest, match="cannot be the name of an artifact"):
        await add(Artifacts(documents), text)


async def test_the_own_project_comes_before_the_shared_ones(documents: DocumentStore) -> None:
    artifacts = Artifacts(documents)
    shared = await add(artifacts, "model")
    own = await add(artifacts, "model", "p1")
    only_shared = await add(artifacts, "images")

    assert own == await artifacts.resolve("model", "p1")
    assert shared == await artifacts.resolve("model", "p2")
    assert shared == await artifacts.resolve("model")
    assert only_shared == await artifacts.resolve("images", "p1")


async def test_the_project_s_name_decides_also_when_only_the_shared_one_has_the_version(
    documents: DocumentStore,
) -> None:
    artifacts = Artifacts(documents)
    await add(artifacts, "model")
    await add(artifacts, "model")
    await add(artifacts, "model", "p1")

    with pytest.raises(NotFound, match="no version 2"):
        await artifacts.resolve("model@2", "p1")


async def test_another_project_s_artifact_is_named_with_the_project(
    documents: DocumentStore,
) -> None:
    artifacts, projects = Artifacts(documents), Projects(documents)
    digits = await projects.create("ada", "digits & co")
    added = await add(artifacts, "model", digits.id)

    assert added == await artifacts.resolve("digits & co/model")
    assert added == await artifacts.resolve("digits & co/model@1", "p9")
    assert added == await artifacts.resolve(f"{digits.id}/model")
    with pytest.raises(NotFound, match="there is no project 'letters'"):
        await artifacts.resolve("letters/model")
    with pytest.raises(NotFound, match="there is no artifact 'digits & co/mode'") as caught:
        await artifacts.resolve("digits & co/mode")
    assert caught.value.hint == "did you mean digits & co/model?"


async def test_without_a_project_a_name_must_be_the_only_one(documents: DocumentStore) -> None:
    artifacts, projects = Artifacts(documents), Projects(documents)
    first = await projects.create("ada", "digits")
    second = await projects.create("ada", "letters")
    added = await add(artifacts, "model", first.id)
    assert added == await artifacts.resolve("model")

    await add(artifacts, "model", second.id)
    with pytest.raises(InvalidRequest, match="'model' may mean several artifacts") as caught:
        await artifacts.resolve("model")
    assert caught.value.hint == "say which: digits/model, letters/model"


async def test_projects_of_one_name_are_told_apart_by_id(documents: DocumentStore) -> None:
    artifacts, projects = Artifacts(documents), Projects(documents)
    ids = sorted([(await projects.create(owner, "digits")).id for owner in ("ada", "bob")])
    for project in ids:
        await add(artifacts, "model", project)

    for text in ("model", "digits/model"):
        with pytest.raises(InvalidRequest) as caught:
            await artifacts.resolve(text)
        assert caught.value.hint == f"say which: {ids[0]}/model, {ids[1]}/model"
    assert (await artifacts.resolve(f"{ids[1]}/model")).project == ids[1]


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
            await artifacts.resolve(text, project)
        assert hint == caught.value.hint


async def test_a_name_left_by_a_crash_before_its_first_version_is_nothing(
    documents: DocumentStore,
) -> None:
    await documents.insert("artifact_names", "p1:model", {"space": "p1", "name": "model"})
    artifacts = Artifacts(documents)

    with pytest.raises(NotFound):
        await artifacts.resolve("model")
    assert (await add(artifacts, "model", "p1")).version == 1
    assert (await artifacts.resolve("model")).version == 1


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
    assert await artifacts.list(project=SHARED) == [added[3]]
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

    assert (await artifacts.resolve("model", "p1")).version == 30
    assert len(found) == 1
