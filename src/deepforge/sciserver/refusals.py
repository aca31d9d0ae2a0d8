"""Passwords that a site refused: remembered beyond this process, as three wrong ones lock an account."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakKeyDictionary

from deepforge.settings import Secret


class Refusals(Protocol):
    """Which secrets of which accounts were refused. `account` is the site and the user's name."""

    async def has(self, account: tuple[str, ...], secret: Secret) -> bool:
        """Whether it was refused, in whichever process. Raises if that cannot be known."""
        ...

    async def add(self, account: tuple[str, ...], secret: Secret) -> None:
        """Remember it. Safe to repeat."""
        ...


@contextmanager
def remembered_by(refusals: Refusals) -> Iterator[None]:
    """Within the block, all sessions of this event loop ask and tell these refusals.

    Adapters are made of their settings alone, so nobody could hand it to their sessions.
    """
    loop = asyncio.get_running_loop()
    before = _REFUSALS.get(loop)
    _REFUSALS[loop] = refusals
    try:
        yield
    finally:
        if before is None:
            del _REFUSALS[loop]
        else:
            _REFUSALS[loop] = before


def known_refusals() -> Refusals | None:
    """Those of this event loop; None if nobody remembers."""
    return _REFUSALS.get(asyncio.get_running_loop())


_REFUSALS: WeakKeyDictionary[asyncio.AbstractEventLoop, Refusals] = WeakKeyDictionary()
