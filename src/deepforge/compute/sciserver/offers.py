"""What a user is offered at a site, and the choice for one job: domain, image, volumes.

The lists are the service's own; whatever is wished for and not on them is refused with what is.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepforge.compute.port import NeededPath
from deepforge.compute.sciserver.racm import Racm, Submitted
from deepforge.compute.sciserver.records import Domain, MountableVolume
from deepforge.errors import ConfigError, InvalidRequest
from deepforge.sciserver.files import FileService
from deepforge.sciserver.volumes import Volume, find_volume

_KNOWN_S = 60.0
_PREFERRED_IMAGE = "SciServer Essentials"


@dataclass(frozen=True)
class Wish:
    """What the settings say; empty names are for what is offered."""

    domain: str
    image: str
    data_volumes: tuple[str, ...]
    job_volume: Volume
    username: str


@dataclass(frozen=True)
class Choice:
    """What a job gets. `volumes` are ids of user volumes, each with whether it is written to."""

    domain: Domain
    image: str
    data_volumes: tuple[str, ...]
    volumes: Mapping[int, bool]

    def fields(self) -> dict[str, Any]:
        """Its part of a submission."""
        return {
            "dockerComputeEndpoint": self.domain.endpoint,
            "dockerImageName": self.image,
            "volumeContainers": [{"name": name, "writable": False} for name in self.data_volumes],
            "userVolumes": [
                {"userVolumeId": id, "needsWriteAccess": writes}
                for id, writes in self.volumes.items()
            ],
        }

    def is_granted(self, submitted: Submitted) -> bool:
        """Whether the job got it all: the service drops volumes and rights without a word."""
        return set(self.data_volumes) <= submitted.data_volumes and all(
            id in submitted.writable and (submitted.writable[id] or not writes)
            for id, writes in self.volumes.items()
        )


class Offers:
    """The lists, read again when they are a minute old."""

    def __init__(self, racm: Racm, files: FileService, wish: Wish) -> None:
        self._racm = racm
        self._files = files
        self._wish = wish
        self._read_at_s: float | None = None
        self._domains: list[Domain] = []

    def forget(self) -> None:
        """They may have changed: read them again."""
        self._read_at_s = None

    async def choose(self, paths: Sequence[NeededPath] = ()) -> Choice:
        """Choose for a job that needs these paths.

        Raises `ConfigError` naming a setting that asks for what is not offered, and
        `InvalidRequest` for a path that jobs cannot see, or not write to.
        """
        was_known = self._is_known
        try:
            return await self._choose(paths)
        except (ConfigError, InvalidRequest):
            if not was_known:
                raise
            self.forget()  # what is asked for may be new
            return await self._choose(paths)

    async def _choose(self, paths: Sequence[NeededPath]) -> Choice:
        wish = self._wish
        domain = await self._domain()
        image = _image(domain, wish.image)
        for name in wish.data_volumes:
            if name not in domain.data_volumes:
                raise _no_such("data_volumes", name, domain.data_volumes)
        own = domain.volume(wish.job_volume.path)
        if own is None:
            await self._make(wish.job_volume)
            self.forget()
            domain = await self._domain()
            own = domain.volume(wish.job_volume.path)
        if own is None:
            there_are = [one.path for one in domain.volumes]
            raise _no_such("job_volume", wish.job_volume.path, there_are)
        volumes = {_writable(own, "job_volume").id: True}
        data = dict.fromkeys(wish.data_volumes)
        for needed in paths:
            published = domain.data_volume(needed.path)
            if published is not None and not needed.writable:
                data[published] = None
                continue
            volume = domain.volume(needed.path)
            if volume is None:
                raise InvalidRequest(
                    f"jobs in {domain.name!r} cannot see {needed.path}",
                    part="paths",
                    hint="is it a volume of yours, or one that is shared with you?",
                )
            if needed.writable:
                _writable(volume, "paths")
            volumes[volume.id] = volumes.get(volume.id, False) or needed.writable
        return Choice(domain, image, tuple(data), volumes)

    @property
    def _is_known(self) -> bool:
        return self._read_at_s is not None and time.monotonic() - self._read_at_s < _KNOWN_S

    async def _domain(self) -> Domain:
        if not self._is_known:
            self._domains, self._read_at_s = await self._racm.domains(), time.monotonic()
        wanted = self._wish.domain
        for one in self._domains:
            if one.name == wanted or (not wanted and one.images):
                return one
        there_are = [one.name for one in self._domains]
        raise _no_such("domain", wanted or "domain with an image for you", there_are)

    async def _make(self, volume: Volume) -> None:
        """An own volume is made; what the file service says of another one is about our setting."""
        try:
            await find_volume(self._files, volume, self._wish.username)
        except ConfigError as error:
            fields = {"job_volume": next(iter(error.fields.values()), "cannot be used")}
            raise ConfigError(error.message, fields=fields, hint=error.hint) from error


def _image(domain: Domain, wanted: str) -> str:
    if wanted in domain.images:
        return wanted
    if wanted or not domain.images:
        raise _no_such("image", wanted or "image for you", domain.images)
    preferred = [one for one in domain.images if one.startswith(_PREFERRED_IMAGE)]
    return max(preferred, key=_version) if preferred else domain.images[0]


def _version(image: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", image)]


def _writable(volume: MountableVolume, part: str) -> MountableVolume:
    if "write" not in volume.actions:
        raise InvalidRequest(f"you may not write into the volume {volume.path}", part=part)
    return volume


def _no_such(field: str, name: str, there_are: Sequence[str]) -> ConfigError:
    listing = ", ".join(there_are) or "nothing"
    return ConfigError(
        f"SciServer offers no {name!r} for {field}",
        fields={field: "is not offered"},
        hint=f"what it offers: {listing}",
    )
