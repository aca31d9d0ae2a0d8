"""Pools kept: who may use them, and that nothing else goes by their names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deepforge.accounts.model import is_user_name
from deepforge.documents.sqlite import SqliteStore
from deepforge.errors import AlreadyExists, Forbidden, InvalidRequest, NotFound
from deepforge.webgme import pools as pool_store
from deepforge.webgme.pools import Pools, owner_of, pool_of


@pytest.fixture
async def pools(tmp_path: Path) -> AsyncIterator[Pools]:
    async with SqliteStore(tmp_path / "deepforge.db", pool_store.COLLECTIONS) as documents:
        yield Pools(documents)


async def test_members_may_use_a_pool_and_nobody_else(pools: Pools) -> None:
    await pools.add("lab", ["ada", "bob", "ada"])
    await pools.admit("lab", "ada")
    for name, user in (("lab", "eve"), ("other", "ada"), ("", "ada"), ("pool:lab", "ada")):
        with pytest.raises(Forbidden) as caught:
            await pools.admit(name, user)
        assert "deepforge pools list" in (caught.value.hint or "")
    with pytest.raises(Forbidden) as caught:
        await pools.admit("lab; halt\n" * 99, "ada")
    assert "halt" not in (caught.value.hint or "")
    assert len(caught.value.message) < 100

    changed = await pools.change("lab", add=["eve", "ada"], remove=["bob", "nobody"])

    assert {"ada", "eve"} == changed.members == (await pools.get("lab")).members
    await pools.admit("lab", "eve")
    with pytest.raises(Forbidden):
        await pools.admit("lab", "bob")


async def test_a_pool_can_be_for_everyone_and_no_longer(pools: Pools) -> None:
    await pools.add("lab", everyone=True)
    await pools.admit("lab", "anybody")
    await pools.change("lab", add=["ada"], everyone=False)

    await pools.admit("lab", "ada")
    with pytest.raises(Forbidden):
        await pools.admit("lab", "anybody")


async def test_changes_at_the_same_time_all_count(pools: Pools) -> None:
    await pools.add("lab")
    users = [f"u{number}" for number in range(8)]
    await asyncio.gather(*(pools.change("lab", add=[user]) for user in users))

    assert set(users) == (await pools.get("lab")).members


@pytest.mark.parametrize("name", ["", "Lab", "a b", "a:b", "../x", "a" * 33, "lab\n", "pool:lab"])
async def test_names_that_will_not_do_are_refused(pools: Pools, name: str) -> None:
    with pytest.raises(InvalidRequest):
        await pools.add(name)
    with pytest.raises(NotFound):
        await pools.get(name)


async def test_a_name_is_taken_once_and_free_again(pools: Pools) -> None:
    await pools.add("lab")
    with pytest.raises(AlreadyExists):
        await pools.add("lab", ["ada"])
    assert await pools.is_owner(owner_of("lab"))
    await pools.remove("lab")
    await pools.remove("lab")

    assert not await pools.is_owner(owner_of("lab"))
    assert [] == await pools.list()
    await pools.add("lab")


def test_a_pool_is_never_taken_for_a_user() -> None:
    for name in ("lab", "ada", "local"):
        assert not is_user_name(owner_of(name))
        assert name == pool_of(owner_of(name))
        assert pool_of(name) is None
