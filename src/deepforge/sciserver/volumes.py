"""A volume: its name in settings, its place, its room, and all that a user may choose from."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import category

from deepforge.errors import ConfigError, Forbidden, Unavailable
from deepforge.sciserver.files import FileService
from deepforge.settings import Choice, Choices, instead_of

DATA = "data"
"""Our name for the pool of data volumes: published data, which belong to nobody."""

_MADE_BY_US = "Data of DeepForge"
_LONGEST_NAME_BYTES = 255
_ACCOUNT = re.compile(r"\w[\w.@+-]{0,254}", re.ASCII)


@dataclass(frozen=True)
class Volume:
    """A user volume, `Storage/alice/deepforge_data`, or a data volume, `sdss`: that has no owner."""

    pool: str
    owner: str
    name: str

    @property
    def path(self) -> str:
        return self.name if self.is_data else f"{self.pool}/{self.owner}/{self.name}"

    @property
    def is_data(self) -> bool:
        return self.pool == DATA

    @staticmethod
    def named(text: str, *, pool: str, username: str) -> Volume:
        """Read `volume`, `owner/volume` or `pool/owner/volume`; of a data volume the name alone.

        Raises `ConfigError`, also for what no account can be called.
        """
        if _ACCOUNT.fullmatch(username) is None:
            raise ConfigError(
                f"{username!r} is no name of a SciServer account",
                fields={"username": "must be the name of an account"},
                hint="letters, digits and _, as you log in there",
            )
        parts = text.strip().strip("/").split("/")
        most, looks = 3, "must look like volume, owner/volume or Storage/owner/volume"
        if pool == DATA:
            most, looks = 1, "must be the name of a data volume"
        if len(parts) > most or not all(map(_is_name, parts)):
            raise ConfigError(
                f"{text!r} is no name of a SciServer volume: it {looks}", fields={"volume": looks}
            )
        if pool == DATA:
            return Volume(DATA, "", parts[0])
        return Volume(*[pool, username][: 3 - len(parts)], *parts)


@dataclass(frozen=True)
class Room:
    """What is used of a quota; `limit_bytes` is None where there is none."""

    used_bytes: int
    limit_bytes: int | None

    @property
    def free_bytes(self) -> int | None:
        return None if self.limit_bytes is None else max(0, self.limit_bytes - self.used_bytes)

    def has(self, size_bytes: int) -> bool:
        """Whether there is room for so much more."""
        return self.free_bytes is None or size_bytes <= self.free_bytes


@dataclass(frozen=True)
class Found:
    """A volume that is there, with the ids that the service uses for it."""

    volume: Volume
    id: int
    pool_id: int
    actions: tuple[str, ...]
    about: str = ""


async def find_volume(files: FileService, volume: Volume, username: str) -> Found:
    """Find a volume; the user's own is made if it is missing.

    Raises `ConfigError` naming what there is, `Forbidden` for one that may not be read.
    """
    listing = await files.volumes()
    found = _look_up(listing, volume)
    if found is None and volume.owner == username:
        await files.make_volume(volume.path, _MADE_BY_US)
        found = _look_up(await files.volumes(), volume)
    if found is None:
        raise _no_volume(listing, volume, username)
    if "read" not in found.actions:
        raise Forbidden(f"{username!r} may not read the volume {volume.path!r} of SciServer")
    return found


def all_volumes(listing: Mapping[str, Any]) -> list[Found]:
    """Every volume in what the file service tells: those of users, then data volumes."""
    try:
        return [
            *(
                _found(one, Volume(str(pool["name"]), str(one["owner"]), str(one["name"])), pool)
                for pool in listing["rootVolumes"]
                for one in pool.get("userVolumes") or ()
            ),
            *(
                _found(one, Volume(DATA, "", str(one["name"])), {"id": 0})
                for one in listing.get("dataVolumes") or ()
            ),
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unavailable("SciServer told its volumes in a way that is not known") from error


def choices_of(listing: Mapping[str, Any], pool: str, wanted: Volume, username: str) -> Choices:
    """The volumes of a pool that a user may read, one's own first, each by its shortest name; and what
    is wrong with the wanted one, if it is somebody else's."""
    offered = []
    there_are = all_volumes(listing)
    for one in sorted(there_are, key=lambda one: one.volume.owner != username):
        volume = one.volume
        if volume.pool != pool or "read" not in one.actions:
            continue
        if volume.is_data:
            offered.append(Choice(volume.name, one.about))
        elif volume.owner == username:
            offered.append(Choice(volume.name))
        else:
            rights = "" if "write" in one.actions else ", for reading"
            offered.append(
                Choice(f"{volume.owner}/{volume.name}", f"shared by {volume.owner}{rights}")
            )
    problem = ""
    if not wanted.is_data and wanted.owner != username:  # an own one is made
        found = next((one for one in there_are if one.volume == wanted), None)
        problem = why_not_foreign(
            wanted, None if found is None else found.actions, "read", username
        )
    return Choices(tuple(offered), others=pool != DATA, problem=problem)


def why_not_foreign(
    volume: Volume, actions: Collection[str] | None, action: str, username: str
) -> str:
    """Why somebody else's volume will not do; nothing, if it does. `actions`: what the user may do
    there, None if it is not shown to the user."""
    if actions is None:
        return (
            f"SciServer shows {username!r} no volume {volume.path!r}: it does not exist, or "
            f"{volume.owner} does not share it"
        )
    return "" if action in actions else f"{username!r} may not {action} the volume {volume.path!r}"


def room_of(usage: Sequence[Mapping[str, Any]], found: Found, username: str) -> Room | None:
    """The room in a volume, or in all of the owner's in its pool; None if the service does not say."""
    rooms = []
    for one in usage:
        whole = (
            one.get("type") == "PER_USER"
            and one.get("rootVolumeId") == found.pool_id
            and one.get("username") == found.volume.owner == username
        )
        if whole or (one.get("type") == "PER_VOLUME" and one.get("userVolumeId") == found.id):
            limit = int(one.get("numberOfBytesQuota") or 0)
            rooms.append(Room(int(one.get("numberOfBytesUsed") or 0), limit or None))
    limited = [one for one in rooms if one.limit_bytes is not None]
    if limited:
        return min(limited, key=lambda one: one.free_bytes or 0)
    return rooms[0] if rooms else None


def _is_name(text: str) -> bool:
    """Whether a volume or an account can be called so: what an address cannot hold is refused."""
    if text in ("", ".", "..") or "\\" in text:
        return False
    is_short = len(text.encode("utf-8", "replace")) <= _LONGEST_NAME_BYTES
    return is_short and not any(category(letter) in ("Cc", "Cs") for letter in text)


def _found(one: Mapping[str, Any], volume: Volume, pool: Mapping[str, Any]) -> Found:
    about = str(one.get("displayName") or one.get("description") or "")
    return Found(
        volume,
        int(one["id"]),
        int(pool["id"]),
        tuple(one.get("allowedActions") or ()),
        about if about != volume.name else "",
    )


def _no_volume(listing: Mapping[str, Any], volume: Volume, username: str) -> ConfigError:
    there_are = [
        one.volume.path for one in all_volumes(listing) if one.volume.is_data == volume.is_data
    ]
    if volume.is_data:
        return ConfigError(
            f"SciServer shows {username!r} no data volume {volume.name!r}",
            fields={"volume": "is no data volume that you may read"},
            hint=instead_of(volume.name, there_are),
        )
    return ConfigError(
        f"SciServer shows {username!r} no volume {volume.path!r}",
        fields={"volume": "does not exist, or is not shared with you"},
        hint=f"ask {volume.owner} to share it; {instead_of(volume.path, there_are)}",
    )


def _look_up(listing: Mapping[str, Any], volume: Volume) -> Found | None:
    pools = [str(one["name"]) for one in listing["rootVolumes"]]
    if volume.pool not in (*pools, DATA):
        raise ConfigError(
            f"this SciServer site has no pool {volume.pool!r}",
            fields={"pool": f"must be one of {', '.join(pools)}"},
            hint=instead_of(volume.pool, pools),
        )
    return next((one for one in all_volumes(listing) if one.volume == volume), None)
