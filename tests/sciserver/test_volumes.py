from __future__ import annotations

from typing import Any

import pytest

from deepforge.errors import ConfigError
from deepforge.sciserver.volumes import DATA, Found, Room, Volume, room_of

MINE = Found(Volume("Storage", "alice", "data"), id=9, pool_id=1, actions=("read", "write"))
BOBS = Found(Volume("Storage", "bob", "data"), id=10, pool_id=1, actions=("read", "write"))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("data", "Storage/alice/data"),
        ("bob/data", "Storage/bob/data"),
        ("Temporary/bob/data", "Temporary/bob/data"),
        ("/data/", "Storage/alice/data"),
    ],
)
def test_a_volume_may_be_named_in_three_ways(text: str, path: str) -> None:
    assert path == Volume.named(text, pool="Storage", username="alice").path


LONG = "ä" * 128


@pytest.mark.parametrize(
    "text",
    ["", "/", " ", "a//b", "a/b/c/d", "..", "a/..", "./a", "a\nb", "a\\b", "a\0", "\x1b[31m", LONG],
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Volume.named(text, pool="Storage", username="alice")

    assert set(caught.value.fields) == {"volume"}


@pytest.mark.parametrize("text", ["a%2fb", "100%", "my vol", "😀", "a:b", ".hidden", "ä" * 127])
def test_odd_names_are_names(text: str) -> None:
    assert (
        f"Storage/alice/{text}" == Volume.named(f" {text}/ ", pool="Storage", username="alice").path
    )


@pytest.mark.parametrize(
    "username",
    ["", " ", "alice ", "al ice", "../bob", "alice/x", ".", "..", "a\nb", "a\\b", "😀", "%2e"],
)
def test_what_no_account_is_called_is_refused(username: str) -> None:
    """It is a part of every path."""
    with pytest.raises(ConfigError) as caught:
        Volume.named("data", pool="Storage", username=username)

    assert set(caught.value.fields) == {"username"}


@pytest.mark.parametrize("username", ["alice", "Alice_2", "a.b-c@example.org"])
def test_accounts_have_plain_names(username: str) -> None:
    assert username == Volume.named("data", pool="Storage", username=username).owner


def test_a_data_volume_has_a_name_alone() -> None:
    volume = Volume.named("SDSS DAS", pool=DATA, username="alice")

    assert (volume.path, volume.is_data) == ("SDSS DAS", True)
    for text in ("alice/sdss", "Storage/alice/sdss", "..", ""):
        with pytest.raises(ConfigError, match="data volume"):
            Volume.named(text, pool=DATA, username="alice")


def per_user(used: int, quota: int, pool: int = 1, name: str = "alice") -> dict[str, Any]:
    return {
        "type": "PER_USER", "username": name, "rootVolumeId": pool,
        "numberOfBytesUsed": used, "numberOfBytesQuota": quota,
    }  # fmt: skip


def per_volume(used: int, quota: int, id: int = 9) -> dict[str, Any]:
    return {
        "type": "PER_VOLUME", "userVolumeId": id, "rootVolumeId": 1,
        "numberOfBytesUsed": used, "numberOfBytesQuota": quota,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("usage", "found", "room"),
    [
        ([], MINE, None),
        ([per_user(5, 100)], MINE, Room(5, 100)),
        ([per_user(5, 0)], MINE, Room(5, None)),
        ([per_user(5, 100, pool=2)], MINE, None),
        ([per_user(5, 100), per_volume(2, 50)], MINE, Room(2, 50)),
        ([per_user(90, 100), per_volume(2, 50)], MINE, Room(90, 100)),
        ([per_user(5, 100), per_volume(2, 50)], BOBS, None),
        ([per_user(5, 100), per_volume(2, 50, id=10)], BOBS, Room(2, 50)),
    ],
)
def test_the_tightest_quota_counts(
    usage: list[dict[str, Any]], found: Found, room: Room | None
) -> None:
    assert room == room_of(usage, found, "alice")


def test_no_quota_has_room_for_anything() -> None:
    assert Room(5, None).has(10**15)
    assert Room(5, 10).has(5)
    assert not Room(5, 10).has(6)
    assert Room(15, 10).free_bytes == 0
