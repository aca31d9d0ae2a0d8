from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deepforge.accounts.model import Identity, Scope
from deepforge.accounts.tokens import Tokens
from deepforge.accounts.users import Users
from deepforge.documents.port import Document, DocumentStore
from deepforge.errors import AlreadyExists, AuthError, InvalidRequest, NotFound, StorageFull
from deepforge.ids import timestamp
from deepforge.settings import Secret

DAY_S = 86400.0


class Clock:
    """Time as a test has it."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def tokens(documents: DocumentStore, users: Users, clock: Clock) -> Tokens:
    """Tokens, and two users to have them: ada, an administrator, and bob."""
    for name in ("ada", "bob"):
        await users.add(name, Secret("correct horse"))
    return Tokens(documents, users, clock=clock)


async def make(tokens: Tokens, owner: str = "ada", name: str = "laptop", **more: Any) -> str:
    return (await tokens.create(owner, name, ["api"], **more))[1].reveal()


async def test_a_token_says_whose_it_is_and_what_for(tokens: Tokens) -> None:
    ada = await tokens.authenticate(await make(tokens))
    _, text = await tokens.create("bob", "gpu", ["worker"])
    bob = await tokens.authenticate(text.reveal())

    assert ada == Identity("ada", is_admin=True, scopes=frozenset({"api"}))
    assert bob == Identity("bob", is_admin=False, scopes=frozenset({"worker"}))


async def test_only_a_digest_of_a_token_is_kept(
    tokens: Tokens, documents: DocumentStore, tmp_path: Path
) -> None:
    made, text = await tokens.create("ada", "laptop", ["api"])
    stored = await documents.find("tokens")

    assert re.fullmatch(r"df_[0-9A-Za-z]{32}", text.reveal())
    assert [one.id for one in stored] == [
        "sha256:" + hashlib.sha256(text.reveal().encode()).hexdigest()
    ]
    assert text.reveal() not in json.dumps(stored[0].body) + repr(made) + repr(text)
    for path in tmp_path.iterdir():
        assert text.reveal().encode() not in path.read_bytes()


async def test_no_two_tokens_are_alike(tokens: Tokens) -> None:
    texts = await asyncio.gather(*(make(tokens, name=f"n{number}") for number in range(20)))

    assert len(set(texts)) == 20


@pytest.mark.parametrize(
    "text", ["", "df_", "df_" + "0" * 32, "x" * 100_000, "\0", "\ud800", "é", "sha256:0"]
)
async def test_what_is_no_token_is_refused(tokens: Tokens, text: str) -> None:
    await make(tokens)

    with pytest.raises(AuthError, match="wrong or revoked"):
        await tokens.authenticate(text)


async def test_the_digest_itself_opens_nothing(tokens: Tokens, documents: DocumentStore) -> None:
    await make(tokens)
    stored = (await documents.find("tokens"))[0].id

    for text in (stored, stored.removeprefix("sha256:")):
        with pytest.raises(AuthError):
            await tokens.authenticate(text)


async def test_a_token_lasts_ninety_days_unless_asked_otherwise(
    tokens: Tokens, clock: Clock
) -> None:
    text, short = await make(tokens), await make(tokens, name="short", days=1)
    clock.now += DAY_S
    await tokens.authenticate(text)
    with pytest.raises(AuthError, match="'short' has expired") as caught:
        await tokens.authenticate(short)
    assert caught.value.expired

    clock.now += 89 * DAY_S - 1
    await tokens.authenticate(text)
    clock.now += 1
    with pytest.raises(AuthError, match="has expired"):
        await tokens.authenticate(text)


@pytest.mark.parametrize("days", [0, -1, 3651, float("inf"), float("nan")])
async def test_a_span_that_will_not_do_is_refused(tokens: Tokens, days: float) -> None:
    with pytest.raises(InvalidRequest, match="days"):
        await make(tokens, days=days)


async def test_a_revoked_token_is_refused_at_once(tokens: Tokens) -> None:
    text, other = await make(tokens), await make(tokens, name="other")
    await tokens.authenticate(text)
    await tokens.revoke("ada", "laptop")

    with pytest.raises(AuthError):
        await tokens.authenticate(text)
    await tokens.authenticate(other)
    assert await make(tokens) != text  # the name is free again


async def test_tokens_are_revoked_by_their_owner_only(tokens: Tokens) -> None:
    text = await make(tokens)

    for owner, name in (("bob", "laptop"), ("ada", "none")):
        with pytest.raises(NotFound):
            await tokens.revoke(owner, name)
    await tokens.authenticate(text)


async def test_a_disabled_users_tokens_stop_at_once_and_work_again_later(
    tokens: Tokens, users: Users
) -> None:
    text = await make(tokens)
    await users.change("ada", is_disabled=True)
    with pytest.raises(AuthError, match="disabled"):
        await tokens.authenticate(text)

    await users.change("ada", is_disabled=False, is_admin=False)
    assert not (await tokens.authenticate(text)).is_admin


async def test_a_user_without_an_account_gets_no_token(tokens: Tokens) -> None:
    with pytest.raises(NotFound, match="no user 'local'") as caught:
        await make(tokens, "local")

    assert "--user" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "a" * 64, "é", "\0"])
async def test_a_name_that_will_not_do_is_refused(tokens: Tokens, name: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be the name of a token"):
        await make(tokens, name=name)


async def test_a_name_is_taken_once_for_each_user(tokens: Tokens) -> None:
    await make(tokens)
    await make(tokens, "bob")

    with pytest.raises(AlreadyExists, match="ada has a token 'laptop'"):
        await make(tokens)


@pytest.mark.parametrize("scopes", [[], ["everything"], ["api", "root"]])
async def test_a_scope_that_there_is_not_is_refused(tokens: Tokens, scopes: list[Scope]) -> None:
    with pytest.raises(InvalidRequest, match="scopes"):
        await tokens.create("ada", "laptop", scopes)


async def test_the_last_use_is_right_to_the_minute_and_rarely_written(
    tokens: Tokens, documents: DocumentStore, clock: Clock
) -> None:
    async def last_use() -> str | None:
        return (await tokens.list("ada"))[0].last_used_at

    text = await make(tokens)
    assert await last_use() is None

    began = clock.now
    for _ in range(10):
        await tokens.authenticate(text)
        clock.now += 5
    assert await last_use() == timestamp(began)
    assert (await documents.find("tokens"))[0].revision == 2

    clock.now = began + 60
    await asyncio.gather(*(tokens.authenticate(text) for _ in range(10)))
    assert await last_use() == timestamp(began + 60)
    assert (await documents.find("tokens"))[0].revision == 3

    clock.now = began - 3600  # the clock was put right
    await tokens.authenticate(text)
    assert await last_use() == timestamp(began - 3600)


async def test_who_presents_a_token_gets_in_also_when_the_disk_is_full(
    tokens: Tokens, documents: DocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = await make(tokens)

    async def full(collection: str, id: str, body: Mapping[str, Any], **more: Any) -> Document:
        raise StorageFull("no room")

    monkeypatch.setattr(documents, "replace", full)

    assert (await tokens.authenticate(text)).user == "ada"


async def test_tokens_expired_long_ago_are_forgotten_when_one_is_made(
    tokens: Tokens, clock: Clock
) -> None:
    await make(tokens, name="old", days=1)
    await make(tokens, name="older", days=40)
    await make(tokens, "bob", name="his", days=1)
    clock.now += 40 * DAY_S
    await make(tokens, name="new")

    assert [one.name for one in await tokens.list("ada")] == ["new", "older"]
    assert [one.name for one in await tokens.list("bob")] == ["his"]


async def test_a_token_of_a_pool_is_a_workers_and_good_while_there_is_the_pool(
    documents: DocumentStore, users: Users
) -> None:
    pools = {"pool:lab"}

    async def is_pool(owner: str) -> bool:
        return owner in pools

    tokens = Tokens(documents, users, is_pool=is_pool)
    for scopes in (["api"], ["api", "worker"]):
        with pytest.raises(InvalidRequest):
            await tokens.create("pool:lab", "box", scopes)  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        await tokens.create("pool:attic", "box", ["worker"])
    made, text = await tokens.create("pool:lab", "box", ["worker"])

    assert Identity("pool:lab", False, frozenset({"worker"})) == (
        await tokens.authenticate(text.reveal())
    )
    assert [made.name] == [one.name for one in await tokens.list("pool:lab")]
    pools.clear()
    with pytest.raises(AuthError):
        await tokens.authenticate(text.reveal())


async def test_a_token_of_a_pool_that_goes_meanwhile_is_not_there_when_it_comes_again(
    documents: DocumentStore, users: Users
) -> None:
    answers = [True, False]

    async def is_pool(owner: str) -> bool:
        return answers.pop(0) if answers else True

    tokens = Tokens(documents, users, is_pool=is_pool)
    with pytest.raises(NotFound):
        await tokens.create("pool:lab", "box", ["worker"])

    assert [] == await tokens.list("pool:lab")
