from __future__ import annotations

import asyncio

import pytest

from deepforge.documents.port import DocumentStore
from deepforge.errors import AlreadyExists, InvalidRequest, NotFound
from deepforge.projects.store import Projects


async def test_a_project_is_found_by_name_and_by_id(documents: DocumentStore) -> None:
    projects = Projects(documents)
    made = await projects.create("ada", "digits")

    assert made == await projects.find("ada", "digits")
    assert made == await projects.find("ada", made.id)
    assert made == await projects.get(made.id)
    assert (made.owner, made.name) == ("ada", "digits")


async def test_names_are_unique_for_one_owner(documents: DocumentStore) -> None:
    projects = Projects(documents)
    made = await projects.create("ada", "digits")

    with pytest.raises(AlreadyExists, match="'digits'"):
        await projects.create("ada", "digits")

    other = await projects.create("bob", "digits")
    assert other.id != made.id
    assert other == await projects.find("bob", "digits")


async def test_others_projects_are_not_found(documents: DocumentStore) -> None:
    projects = Projects(documents)
    made = await projects.create("ada", "digits")

    for asked in (made.id, "digits", "nothing"):
        with pytest.raises(NotFound, match="there is no project"):
            await projects.find("bob", asked)
    with pytest.raises(NotFound, match="there is no project"):
        await projects.get("nothing")


async def test_a_name_comes_before_an_id(documents: DocumentStore) -> None:
    projects = Projects(documents)
    first = await projects.create("ada", "first")
    named = await projects.create("ada", first.id)

    assert named == await projects.find("ada", first.id)


async def test_one_project_is_made_however_many_race(documents: DocumentStore) -> None:
    projects = Projects(documents)

    made = await asyncio.gather(*(projects.create_or_get("ada", "digits") for _ in range(20)))

    assert len({one.id for one in made}) == 1
    assert await projects.list("ada") == [made[0]]


async def test_both_spellings_of_a_name_are_one_project(documents: DocumentStore) -> None:
    projects = Projects(documents)

    made = await projects.create_or_get("ada", "e\u0301")

    assert made.name == "\u00e9"
    assert made == await projects.create_or_get("ada", "\u00e9")
    assert made == await projects.find("ada", "e\u0301")


@pytest.mark.parametrize("name", ["../x", "", "a\nb", "\0", "\ud800"])
async def test_names_not_allowed_are_refused(documents: DocumentStore, name: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be the name of a project"):
        await Projects(documents).create_or_get("ada", name)
    with pytest.raises(InvalidRequest, match="cannot be the name of a project"):
        await Projects(documents).find("ada", name)


async def test_projects_are_listed_in_pages_newest_first(documents: DocumentStore) -> None:
    projects = Projects(documents)
    made = []
    for number in range(5):
        made.append(await projects.create("ada", f"p{number}"))
        await asyncio.sleep(0.002)  # ids sort by the millisecond
    await projects.create("bob", "other")

    assert await projects.list("ada") == made[::-1]
    first = await projects.list("ada", limit=2)
    assert first == [made[4], made[3]]
    assert await projects.list("ada", after=first[-1].id, limit=2) == [made[2], made[1]]
    assert len(await projects.list()) == 6
