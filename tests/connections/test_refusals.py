"""Logins that were refused: known to all who share a home, until they are given anew."""

from __future__ import annotations

from pathlib import Path

from deepforge.connections.refusals import REFUSED, Refusals
from deepforge.connections.secrets import SecretBox
from deepforge.connections.store import Connections
from deepforge.documents.port import DocumentStore
from deepforge.settings import Secret

ACCOUNT = ("https://sky.example.org", "alice")
WRONG, OTHER = Secret("looking-glass"), Secret("wonderland")
SKY = {"username": "alice", "password": "looking-glass", "site": "https://sky.example.org/"}


async def test_a_refusal_is_of_one_secret_of_one_account(
    documents: DocumentStore, box: SecretBox
) -> None:
    refusals = Refusals(documents, box)
    await refusals.add(ACCOUNT, WRONG)
    await refusals.add(ACCOUNT, WRONG)

    later = Refusals(documents, box)
    assert await later.has(ACCOUNT, WRONG)
    assert await later.has(("https://SKY.example.org/", "alice"), WRONG), "the same site"
    assert not await later.has(ACCOUNT, OTHER)
    assert not await later.has((ACCOUNT[0], "bob"), WRONG)
    await later.forget(ACCOUNT, WRONG)
    assert not await refusals.has(ACCOUNT, WRONG)


async def test_what_is_kept_tells_nothing_without_the_key(
    documents: DocumentStore, box: SecretBox, tmp_path: Path
) -> None:
    await Refusals(documents, box).add(ACCOUNT, WRONG)

    (kept,) = await documents.find(REFUSED.name)
    assert list(kept.body) == ["refused_at"]
    other_home = Refusals(documents, SecretBox(tmp_path / "other.key", {}))
    assert not await other_home.has(ACCOUNT, WRONG)


async def test_another_login_takes_the_place_of_one_that_was_refused(
    documents: DocumentStore, box: SecretBox, tmp_path: Path
) -> None:
    connections = Connections(documents, box, home=tmp_path, environ={})
    for name in ("one", "two"):
        await connections.add("storage", name, "sciserver", SKY, owner="ada")
    await connections.refusals.add(ACCOUNT, WRONG)

    for name in ("one", "two"):
        linked = await connections.replace_secrets(
            "storage", name, {"token": "gAAAAA-token"}, owner="ada"
        )
        assert linked.secret_names == ("token",)


async def test_a_secret_that_is_given_anew_may_be_tried(
    documents: DocumentStore, box: SecretBox, tmp_path: Path
) -> None:
    connections = Connections(documents, box, home=tmp_path, environ={})
    await connections.refusals.add(ACCOUNT, WRONG)

    await connections.add("storage", "one", "sciserver", SKY, owner="ada")
    assert not await connections.refusals.has(ACCOUNT, WRONG)

    await connections.refusals.add(ACCOUNT, WRONG)
    password = {"password": WRONG.reveal()}
    kept = await connections.replace_secrets("storage", "one", password, owner="ada")
    assert kept.secret_names == ("password",)
    assert not await connections.refusals.has(ACCOUNT, WRONG)
