"""A volume of a user: its name in settings, its place, its room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepforge.errors import ConfigError, Forbidden
from deepforge.sciserver.files import FileService

_MADE_BY_US = "Data of DeepForge"


@dataclass(frozen=True)
class Volume:
    """A user volume: `Storage/alice/deepforge_data`."""

    pool: str
    owner: str
    name: str

    @property
    def path(self) -> str:
        return f"{self.pool}/{self.owner}/{self.name}"

    @staticmethod
    def named(text: str, *, pool: str, username: str) -> Volume:
        """Read `volume`, `owner/volume` or `pool/owner/volume`. Raises `ConfigError`."""
        parts = text.strip("/").split("/")
        if len(parts) > 3 or any(part in ("", ".", "..") for part in parts):
            raise ConfigError(
                f"{text!r} is no volume of SciServer",
                fields={"volume": "must look like volume, owner/volume or Storage/owner/volume"},
            )
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
        known = ", ".join(one.volume.path for one in all_volumes(listing)) or "none"
        raise ConfigError(
            f"SciServer shows {username!r} no volume {volume.path!r}",
            fields={"volume": "does not exist, or is not shared with you"},
            hint=f"ask its owner to share it; you may use: {known}",
        )
    if "read" not in found.actions:
        raise Forbidden(f"{username!r} may not read the volume {volume.path!r} of SciServer")
    return found


def all_volumes(listing: Mapping[str, Any]) -> list[Found]:
    """Every user volume in what the file service tells."""
    return [
        Found(
            Volume(str(pool["name"]), str(one["owner"]), str(one["name"])),
            int(one["id"]),
            int(pool["id"]),
            tuple(one.get("allowedActions") or ()),
        )
        for pool in listing["rootVolumes"]
        for one in pool.get("userVolumes") or ()
    ]


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


def _look_up(listing: Mapping[str, Any], volume: Volume) -> Found | None:
    pools = [str(one["name"]) for one in listing["rootVolumes"]]
    if volume.pool not in pools:
        raise ConfigError(
            f"this SciServer site has no pool {volume.pool!r}",
            fields={"pool": f"must be one of {', '.join(pools)}"},
        )
    return next((one for one in all_volumes(listing) if one.volume == volume), None)
