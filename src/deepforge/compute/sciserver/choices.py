"""What a user may choose from for the settings: the lists of the site, in words for a form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from deepforge.compute.sciserver.offers import Wish, domain_among, image_in
from deepforge.compute.sciserver.records import Domain, MountableVolume
from deepforge.sciserver.volumes import Volume, why_not_foreign
from deepforge.settings import Choice, Choices

_POOL = "Temporary"
"""The pool of a job volume that is named without one."""


def choices_of(domains: Sequence[Domain], wish: Wish) -> Mapping[str, Choices]:
    """The choices for each setting. What lies within a domain is that of the wished one; nothing, if
    it is not offered."""
    found = {"domain": Choices(tuple(Choice(one.name, _about(one)) for one in domains))}
    domain = domain_among(domains, wish.domain)
    if domain is None:
        return found
    preferred = image_in(domain, "") if domain.images else None
    found["image"] = Choices(
        tuple(
            Choice(name, "taken if none is chosen" if name == preferred else "")
            for name in domain.images
        )
    )
    found["data_volumes"] = Choices(
        tuple(Choice(name) for name in domain.data_volumes), several=True
    )
    found["job_volume"] = Choices(
        tuple(_job_volumes(domain.volumes, wish.username)),
        others=True,  # an own one is made, and each has several names
        problem=_problem(domain, wish.job_volume, wish.username),
    )
    return found


def _problem(domain: Domain, wanted: Volume, username: str) -> str:
    if wanted.owner == username:
        return ""
    found = domain.volume(wanted.path)
    return why_not_foreign(wanted, None if found is None else found.actions, "write", username)


def _about(domain: Domain) -> str:
    count = len(domain.images)
    return f"{count} image{'' if count == 1 else 's'} for you" if count else "no image for you"


def _job_volumes(volumes: Sequence[MountableVolume], username: str) -> Iterator[Choice]:
    """Those that may be written to, one's own first, each by its shortest name."""
    for one in sorted(volumes, key=lambda one: one.owner != username):
        if "write" in one.actions:
            is_own = one.owner == username
            name = one.name if is_own and one.root == _POOL else one.path
            yield Choice(name, f"in {one.root}" if is_own else f"shared by {one.owner}")
