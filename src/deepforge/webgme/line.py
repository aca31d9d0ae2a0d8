"""The jobs of one owner that wait, as this process knows them. The database decides.

Jobs with the same need stand in one row, so that finding the next job for a worker takes as many
steps as there are different needs, however many jobs wait.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from deepforge.webgme.workers import Need, Offer


@dataclass(frozen=True)
class Waiting:
    """A job that waits."""

    hash: str
    created_at: str
    need: Need


class Line:
    """Gives out jobs in the order they came. Not for several threads."""

    def __init__(self) -> None:
        # not plain dicts: those look for their first item behind all that were removed
        self._rows: dict[Need, OrderedDict[str, Waiting]] = {}
        self._needs: dict[str, Need] = {}

    def __len__(self) -> int:
        return len(self._needs)

    def __contains__(self, hash: str) -> bool:
        return hash in self._needs

    def __iter__(self) -> Iterator[str]:
        return iter(self._needs)

    def add(self, one: Waiting) -> None:
        """Put a job behind those with the same need. One that is there stays in its place."""
        if one.hash not in self._needs:
            self._needs[one.hash] = one.need
            self._rows.setdefault(one.need, OrderedDict())[one.hash] = one

    def remove(self, hash: str) -> None:
        """One that is not there is fine."""
        need = self._needs.pop(hash, None)
        if need is not None:
            row = self._rows[need]
            del row[hash]
            if not row:
                del self._rows[need]

    def take(self, offer: Offer, *, patience: str = "") -> Waiting | None:
        """Remove and return the oldest job that fits; None when none does.

        A job created before `patience`, that would fit if the worker were free, is waited for: what
        is younger does not keep the worker busy for ever.
        """
        first: Waiting | None = None
        starving: Waiting | None = None
        for need, row in self._rows.items():
            head = next(iter(row.values()))
            if offer.fits(need):
                first = _older(first, head)
            elif head.created_at < patience and offer.would_fit(need):
                starving = _older(starving, head)
        if first is None or (starving is not None and _older(first, starving) is starving):
            return None
        self.remove(first.hash)
        return first

    def take_all(self, offer: Offer, *, patience: str = "") -> list[Waiting]:
        """Remove and return as many as fit together."""
        taken = []
        while offer.slots > 0 and (one := self.take(offer, patience=patience)) is not None:
            taken.append(one)
            offer = offer.without(one.need)
        return taken


def _older(one: Waiting | None, other: Waiting) -> Waiting:
    return other if one is None or other.created_at < one.created_at else one
