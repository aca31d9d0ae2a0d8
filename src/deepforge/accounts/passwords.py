"""Hash passwords and compare them, slowly on purpose: argon2id."""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING

from deepforge.errors import RateLimited
from deepforge.settings import Secret

if TYPE_CHECKING:
    from argon2 import PasswordHasher

_AT_ONCE = 2
_MOST_WAITING = 50


class Passwords:
    """Takes about 50 ms and 64 MiB for each password, for `_AT_ONCE` of them at the same time.

    Raises `RateLimited` when too many wait already.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    async def hashed(self, password: Secret) -> str:
        """Return what may be kept in place of the password."""
        return await self._in_turn(password, None)

    async def match(self, hash: str | None, password: Secret) -> bool:
        """Whether the hash was made of this password. Without a hash: False, after the same time."""
        made_of = hash if hash is not None else self._hash_of_nothing
        found = await self._in_turn(password, made_of)
        return found == made_of and hash is not None

    async def _in_turn(self, password: Secret, hash: str | None) -> str:
        if self._waiting >= _MOST_WAITING:
            raise RateLimited("too many want to log in at this moment", retry_after_s=2)
        self._waiting += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(self._work, password.reveal().encode(), hash)
        finally:
            self._waiting -= 1

    def _work(self, password: bytes, hash: str | None) -> str:
        """Return a new hash; with `hash`, that one if it fits, else nothing."""
        from argon2.exceptions import VerifyMismatchError

        if hash is None:
            return self._hasher.hash(password)
        try:
            self._hasher.verify(hash, password)
        except VerifyMismatchError:
            return ""
        return hash

    @cached_property
    def _hasher(self) -> PasswordHasher:
        from argon2 import PasswordHasher

        return PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=4)

    @cached_property
    def _hash_of_nothing(self) -> str:
        return self._hasher.hash(b"")
