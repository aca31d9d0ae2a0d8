"""Keys of our choice for storages that choose their own: where each object went is remembered."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

from deepforge.errors import AlreadyExists, Conflict, NotFound

RECEIPTS = "receipts"
"""The collection that receipts are kept in. Nothing in it is searched for."""


class Record(Protocol):
    """A small document that is kept. `revision` grows by one with each replace."""

    @property
    def revision(self) -> int: ...
    @property
    def body(self) -> dict[str, Any]: ...


class Records(Protocol):
    """What is asked of a document store; every promise and error is that of `DocumentStore`."""

    async def get(self, collection: str, id: str) -> Record: ...
    async def insert(self, collection: str, id: str, body: Mapping[str, Any]) -> Record: ...
    async def replace(
        self, collection: str, id: str, body: Mapping[str, Any], *, if_revision: int
    ) -> Record: ...


class Receipts:
    """The receipts of one storage. Errors are those of the records."""

    def __init__(self, records: Records, storage: str) -> None:
        """`storage` tells this storage's receipts from others'."""
        self._records = records
        self._storage = storage

    async def stored(self, key: str) -> str | None:
        """The storage's own key of what was put last under `key`; None if nothing was."""
        try:
            record = await self._records.get(RECEIPTS, self._id(key))
        except NotFound:
            return None
        return str(record.body["stored"])

    async def keep(self, key: str, stored: str, *, only_if_absent: bool) -> None:
        """Remember where the object of `key` is. Raises `AlreadyExists` as a put does."""
        body = {"key": key, "stored": stored}
        id = self._id(key)
        while True:
            try:
                await self._records.insert(RECEIPTS, id, body)
                return
            except AlreadyExists as error:
                if only_if_absent:
                    raise AlreadyExists(f"there is an object {key!r} already") from error
            old = await self._records.get(RECEIPTS, id)
            try:
                await self._records.replace(RECEIPTS, id, body, if_revision=old.revision)
                return
            except Conflict:  # another put of this key came between: the later one stays
                continue

    def _id(self, key: str) -> str:
        return f"{self._storage}:{hashlib.sha256(key.encode()).hexdigest()}"
