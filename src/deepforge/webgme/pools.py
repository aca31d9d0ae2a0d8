"""Pools: workers that several users share, and the queue of those workers.

A pool is an owner, as users are: workers with a token of the pool are its own, and its jobs wait in a
queue of its own, in the order they came. Each job remembers the user who submitted it.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterable
from dataclasses import dataclass

from deepforge.compute.port import Record, Records
from deepforge.documents.port import Collection
from deepforge.errors import AlreadyExists, Conflict, Forbidden, InvalidRequest, NotFound
from deepforge.ids import utc_now

COLLECTIONS = (Collection("pools"),)

_PREFIX = "pool:"  # no user's name has a colon
_NAME = re.compile(r"[a-z][a-z0-9._-]{0,31}")
_TRIES = 20


@dataclass(frozen=True)
class Pool:
    """Who may have jobs run by the workers of a pool."""

    name: str
    members: frozenset[str]
    everyone: bool
    """Every user may, whoever is a member."""
    created_at: str

    @property
    def owner(self) -> str:
        """To whom its workers, tokens and jobs belong."""
        return owner_of(self.name)

    def admits(self, user: str) -> bool:
        return self.everyone or user in self.members


class Pools:
    """Over records that were opened with `COLLECTIONS`. Nothing is remembered here."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def add(self, name: str, members: Iterable[str] = (), *, everyone: bool = False) -> Pool:
        """Make a pool. Raises `AlreadyExists`, and `InvalidRequest` for a name that will not do."""
        if _NAME.fullmatch(name) is None:
            raise InvalidRequest(
                f"{name[:40]!r} cannot be the name of a pool",
                part="name",
                hint="1 to 32 small letters, digits, and . _ - behind the first letter",
            )
        body = {
            "members": sorted(set(members)),
            "everyone": everyone,
            "created_at": utc_now(),
        }
        try:
            return _pool(await self._records.insert("pools", name, body))
        except AlreadyExists as error:
            raise AlreadyExists(
                f"there is a pool {name!r} already",
                hint=f"change who may use it: deepforge pools members {name}",
            ) from error

    async def get(self, name: str) -> Pool:
        """Raises `NotFound`."""
        return _pool(await self._record(name))

    async def list(self) -> builtins.list[Pool]:
        """All pools, by name."""
        return [_pool(one) for one in await self._records.find("pools")]

    async def change(
        self,
        name: str,
        *,
        add: Iterable[str] = (),
        remove: Iterable[str] = (),
        everyone: bool | None = None,
    ) -> Pool:
        """Change who may use a pool. What runs goes on; what still waits of others does not start.

        Raises `NotFound`.
        """
        added, removed = set(add), set(remove)
        for _ in range(_TRIES):
            record = await self._record(name)
            body = {
                **record.body,
                "members": sorted({*record.body["members"], *added} - removed),
                "everyone": record.body["everyone"] if everyone is None else everyone,
            }
            try:
                return _pool(
                    await self._records.replace("pools", name, body, if_revision=record.revision)
                )
            except Conflict:
                continue
        raise Conflict(f"the pool {name!r} is being changed by others; try again")

    async def remove(self, name: str) -> None:
        """Forget a pool: nobody may use it, and none of its tokens is good any more. Safe to repeat."""
        await self._records.delete("pools", name)

    async def admit(self, name: str, user: str) -> None:
        """Return if this user may use the pool now. Raises `Forbidden`, the same for a pool that does
        not exist."""
        try:
            if (await self.get(name)).admits(user):
                return
        except NotFound:
            pass
        hint = "see which there are: deepforge pools list"
        if _NAME.fullmatch(name) is not None:
            hint += f"; or ask an administrator for: deepforge pools members {name} --add {user}"
        raise Forbidden(f"{user} is not a member of a pool {name[:40]!r}", hint=hint)

    async def is_owner(self, owner: str) -> bool:
        """Whether this is the owner that a pool is, and the pool exists."""
        name = pool_of(owner)
        if name is None:
            return False
        try:
            await self.get(name)
        except NotFound:
            return False
        return True

    async def _record(self, name: str) -> Record:
        found = await self._records.get_many("pools", [name]) if _NAME.fullmatch(name) else []
        if not found:
            raise NotFound(f"there is no pool {name[:40]!r}", hint="see: deepforge pools list")
        return found[0]


def owner_of(pool: str) -> str:
    return f"{_PREFIX}{pool}"


def pool_of(owner: str) -> str | None:
    """The name of the pool that this owner is; None for a user."""
    return owner.removeprefix(_PREFIX) if owner.startswith(_PREFIX) else None


def _pool(record: Record) -> Pool:
    body = record.body
    return Pool(
        name=record.id,
        members=frozenset(body["members"]),
        everyone=body["everyone"],
        created_at=body["created_at"],
    )
