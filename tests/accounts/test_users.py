from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from deepforge.accounts.throttle import FREE_TRIES
from deepforge.accounts.users import Users
from deepforge.documents.port import DocumentStore
from deepforge.errors import (
    AlreadyExists,
    AuthError,
    Forbidden,
    InvalidRequest,
    NotFound,
    RateLimited,
)
from deepforge.settings import Secret

PASSWORD = Secret("correct horse")


async def test_the_first_account_is_an_administrators_and_no_other_by_itself(users: Users) -> None:
    assert not await users.exist()
    ada = await users.add("ada", PASSWORD)
    bob = await users.add("bob", PASSWORD)
    eve = await users.add("eve", PASSWORD, is_admin=True)

    assert (ada.is_admin, bob.is_admin, eve.is_admin) == (True, False, True)
    assert await users.list() == [ada, bob, eve]
    assert await users.get("bob") == bob
    assert await users.exist()


async def test_only_a_slow_hash_of_a_password_is_kept(
    users: Users, documents: DocumentStore, tmp_path: Path
) -> None:
    await users.add("ada", PASSWORD)
    await users.add("bob", PASSWORD)
    first, second = await documents.find("users")

    assert first.body["password"].startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert first.body["password"] != second.body["password"]
    assert PASSWORD.reveal() not in json.dumps(first.body)
    for path in tmp_path.iterdir():
        assert PASSWORD.reveal().encode() not in path.read_bytes()


@pytest.mark.parametrize(
    "name", ["", "Ada", "1a", "a b", "a/b", "../a", "ä", "a" * 33, "a\n", "a\0", "-a", "\ud800"]
)
async def test_a_name_that_will_not_do_is_refused(users: Users, name: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be the name of a user"):
        await users.add(name, PASSWORD)
    with pytest.raises(NotFound):
        await users.get(name)
    with pytest.raises(AuthError):
        await users.log_in(name, PASSWORD, address="::1")


@pytest.mark.parametrize("password", ["", "1234567", "x" * 1001], ids=["none", "short", "long"])
async def test_a_password_that_will_not_do_is_refused(users: Users, password: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await users.add("ada", Secret(password))

    assert not await users.exist()
    assert not password or password not in str(caught.value)


async def test_a_name_is_taken_once_however_many_want_it(users: Users) -> None:
    results = await asyncio.gather(
        *(users.add("ada", PASSWORD) for _ in range(5)), return_exceptions=True
    )

    refused = [one for one in results if isinstance(one, AlreadyExists)]
    assert len(refused) == 4
    assert "deepforge users passwd ada" in str(refused[0].hint)


async def test_only_the_right_password_logs_in(users: Users) -> None:
    made = await users.add("ada", PASSWORD)
    await users.add("bob", Secret("another horse"))

    assert await users.log_in("ada", PASSWORD, address="::1") == made
    for name, password in [("ada", "another horse"), ("ada", ""), ("nobody", "correct horse")]:
        with pytest.raises(AuthError, match="the user or the password is wrong"):
            await users.log_in(name, Secret(password), address="::1")


async def test_a_password_is_the_same_from_every_keyboard(users: Users) -> None:
    await users.add("ada", Secret("zürich see"))  # one character for ü

    await users.log_in("ada", Secret("zu\u0308rich see"), address="::1")  # two


async def test_an_unknown_user_takes_as_long_as_a_wrong_password(users: Users) -> None:
    """Who asks cannot learn from the time which accounts there are."""
    await users.add("ada", PASSWORD)
    await users.add("bob", PASSWORD)
    await users.change("bob", is_disabled=True)

    async def seconds(name: str) -> float:
        taken = []
        for number in range(5):
            began = time.perf_counter()
            with pytest.raises(AuthError):
                await users.log_in(name, Secret("wrong horse"), address=str(number))
            taken.append(time.perf_counter() - began)
        return min(taken)

    await seconds("warm")
    known, unknown, disabled = [await seconds(name) for name in ("ada", "nobody", "bob")]

    assert 0.3 < unknown / known < 3
    assert 0.3 < disabled / known < 3


async def test_who_keeps_guessing_must_wait_even_with_the_right_password(users: Users) -> None:
    await users.add("ada", PASSWORD)
    await users.add("bob", PASSWORD)
    for _ in range(FREE_TRIES):
        with pytest.raises(AuthError):
            await users.log_in("ada", Secret("wrong horse"), address="10.0.0.1")

    with pytest.raises(RateLimited) as caught:
        await users.log_in("ada", PASSWORD, address="10.0.0.1")
    assert 0 < (caught.value.retry_after_s or 0) <= 1
    await users.log_in("ada", PASSWORD, address="10.0.0.2")
    await users.log_in("bob", PASSWORD, address="10.0.0.1")


async def test_guesses_all_at_once_do_not_slip_through(users: Users) -> None:
    await users.add("ada", PASSWORD)
    results = await asyncio.gather(
        *(users.log_in("ada", Secret(f"guess {n:03}"), address="10.0.0.1") for n in range(30)),
        return_exceptions=True,
    )

    assert sum(isinstance(one, AuthError) for one in results) == FREE_TRIES
    assert sum(isinstance(one, RateLimited) for one in results) == 30 - FREE_TRIES


async def test_a_disabled_user_is_told_so_only_with_the_right_password(users: Users) -> None:
    await users.add("ada", PASSWORD)
    await users.change("ada", is_disabled=True)

    with pytest.raises(Forbidden, match="disabled"):
        await users.log_in("ada", PASSWORD, address="::1")
    with pytest.raises(AuthError):
        await users.log_in("ada", Secret("wrong horse"), address="::1")
    await users.change("ada", is_disabled=False)
    await users.log_in("ada", PASSWORD, address="::1")


async def test_a_new_password_takes_the_place_of_the_old_one(users: Users) -> None:
    await users.add("ada", PASSWORD)
    await users.set_password("ada", Secret("another horse"))

    await users.log_in("ada", Secret("another horse"), address="::1")
    with pytest.raises(AuthError):
        await users.log_in("ada", PASSWORD, address="::1")
    with pytest.raises(NotFound):
        await users.set_password("nobody", PASSWORD)
    with pytest.raises(InvalidRequest):
        await users.set_password("ada", Secret("short"))


async def test_changes_that_race_all_happen(users: Users) -> None:
    await users.add("ada", PASSWORD)
    await users.add("bob", PASSWORD)
    await asyncio.gather(
        users.change("bob", is_admin=True),
        users.change("bob", server_compute=True),
        users.change("bob", is_disabled=True),
        users.set_password("bob", Secret("another horse")),
    )
    bob = await users.get("bob")

    assert (bob.is_admin, bob.server_compute, bob.is_disabled) == (True, True, True)
    with pytest.raises(Forbidden):
        await users.log_in("bob", Secret("another horse"), address="::1")


async def test_the_servers_machine_is_for_administrators_and_those_allowed(users: Users) -> None:
    for name in ("ada", "bob", "eve"):
        await users.add(name, PASSWORD)
    await users.change("bob", server_compute=True)

    found = {
        name: await users.may_use_server(name) for name in ("ada", "bob", "eve", "no", "local", "")
    }

    assert found == {"ada": True, "bob": True, "eve": False, "no": False, "local": True, "": False}


async def test_the_account_of_the_home_is_and_stays_an_administrators(users: Users) -> None:
    await users.add("ada", PASSWORD)

    assert (await users.add("local", PASSWORD)).is_admin
    with pytest.raises(InvalidRequest, match="owns this home"):
        await users.change("local", is_admin=False)
