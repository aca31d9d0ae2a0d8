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
from deepforge.settings import instead_of

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

    async def domains(self) -> Sequence[Domain]:
        """All domains with what this user may use there, as they are now."""
        self._domains, self._read_at_s = await self._racm.domains(), time.monotonic()
        return self._domains

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
        image = image_in(domain, wish.image)
        for name in wish.data_volumes:
            if name not in domain.data_volumes:
                raise _no_such("data_volumes", name, domain.data_volumes)
        if await self._make_missing(domain, paths):
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
                raise self._invisible(domain, needed)
            if needed.writable:
                _writable(volume, "paths")
            volumes[volume.id] = volumes.get(volume.id, False) or needed.writable
        return Choice(domain, image, tuple(data), volumes)

    @property
    def _is_known(self) -> bool:
        return self._read_at_s is not None and time.monotonic() - self._read_at_s < _KNOWN_S

    async def _domain(self) -> Domain:
        if not self._is_known:
            await self.domains()
        wanted = self._wish.domain
        found = domain_among(self._domains, wanted)
        if found is None:
            there_are = [one.name for one in self._domains]
            raise _no_such("domain", wanted or "domain with an image for you", there_are)
        return found

    def _invisible(self, domain: Domain, needed: NeededPath) -> InvalidRequest:
        """The error for a path that no volume of the domain holds."""
        elsewhere = [one.name for one in self._domains if one.data_volume(needed.path) is not None]
        hint = "is it a volume of yours, or one that is shared with you?"
        if domain.data_volume(needed.path) is not None:
            hint = "it is a data volume, which is for reading only"
        elif elsewhere:
            hint = f"it is a data volume of another domain: {', '.join(elsewhere)}"
        elif needed.path.strip("/").partition("/")[0] not in {one.root for one in domain.volumes}:
            told = ", ".join(domain.data_volumes) or "none"
            hint = f"the data volumes that jobs there can see: {told}"
        return InvalidRequest(
            f"jobs in {domain.name!r} of SciServer cannot see {needed.path}"
            f"{' to write to' if needed.writable else ''}",
            part="paths",
            hint=hint,
        )

    async def _make_missing(self, domain: Domain, paths: Sequence[NeededPath]) -> bool:
        """Make own volumes that are missing, as their storages do at first use."""
        username, made = self._wish.username, False
        for parts in (one.path.strip("/").split("/") for one in paths):
            own = Volume(*parts[:3]) if len(parts) >= 3 and parts[1] == username else None
            if own is not None and domain.volume(own.path) is None:
                await find_volume(self._files, own, username)
                made = True
        if domain.volume(self._wish.job_volume.path) is None:
            await self._make_job_volume(self._wish.job_volume)
            made = True
        return made

    async def _make_job_volume(self, volume: Volume) -> None:
        """An own volume is made; what the file service says of another one is about our setting."""
        try:
            await find_volume(self._files, volume, self._wish.username)
        except ConfigError as error:
            fields = {"job_volume": next(iter(error.fields.values()), "cannot be used")}
            raise ConfigError(error.message, fields=fields, hint=error.hint) from error


def domain_among(domains: Sequence[Domain], wanted: str) -> Domain | None:
    """The domain of that name; without a name the first one with an image."""
    return next((one for one in domains if one.name == wanted or (not wanted and one.images)), None)


def image_in(domain: Domain, wanted: str) -> str:
    """The image of that name; without a name the newest of the usual ones, or else the first.

    Raises `ConfigError`.
    """
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
        raise InvalidRequest(
            f"you may not write into the volume {volume.path} of SciServer",
            part=part,
            hint=f"ask {volume.owner} to share it for writing, or choose another volume",
        )
    return volume


def _no_such(field: str, name: str, there_are: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"SciServer offers no {name!r} for {field}",
        fields={field: "is not offered"},
        hint=instead_of(name, there_are),
    )
