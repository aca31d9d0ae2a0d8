"""The documents port: small documents with a revision, on SQLite or on MongoDB, honestly alike.

One compare-and-set on one document is enough for leases and for two people editing. There are no
transactions, no change streams and no query language beyond equality and order, so that both
backends can keep every promise made here. `deepforge.testing.documents` is the exam.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from deepforge.errors import InvalidRequest

MAX_DOCUMENT_BYTES = 8 * 1024 * 1024  # body as compact JSON, and payload, together
MAX_DEPTH = 100  # lists and objects inside each other, the body itself counted

Scalar = str | int | float | bool | None

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True)
class Collection:
    """A kind of document. `unique` and `indexes` name top-level fields of the body.

    The fields named here are the searchable ones: `find` knows no others, and they hold texts
    without NUL, numbers, booleans or null. Names are `[a-z][a-z0-9_]*`, and not `id`.

    Each entry of `unique` is a group of fields whose values together occur once; a document in
    which one of them is absent or null takes no part in that rule. A group must be there before the
    first document is; an index may be added at any time. An entry of `indexes` serves a `find` that
    gives values for its first fields, and sorts by the next one or by `id`.
    """

    name: str
    unique: tuple[tuple[str, ...], ...] = ()
    indexes: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        for name in (self.name, *self.searchable):
            if _NAME.fullmatch(name) is None or name == "id":
                raise InvalidRequest(f"{name!r} cannot name a collection or a searchable field")

    @cached_property
    def searchable(self) -> frozenset[str]:
        return frozenset(field for group in self.unique + self.indexes for field in group)


@dataclass(frozen=True)
class Document:
    """A stored document. `revision` is 1 after insert and grows by one with each replace.

    `body` holds JSON values with text keys (a tuple comes back as a list); `data` is one optional
    binary payload beside it.
    """

    id: str
    revision: int
    body: dict[str, Any]
    data: bytes | None = None


@dataclass(frozen=True)
class Draft:
    """A document that is not stored yet."""

    id: str
    body: Mapping[str, Any]
    data: bytes | None = None


class DocumentStore(ABC):
    """A set of collections. Open with `async with`; safe for many tasks of one event loop, and for
    several processes on the same database.

    Every method raises `Unavailable` when the database cannot be reached (trying again may help),
    `AuthError` when it refuses us, `StorageFull` when it has no room, and `InvalidRequest` for what
    no backend could do. `insert`, `replace` and a `delete` with a revision raise `OutcomeUnknown`
    when the answer was lost: read the document to learn what happened. What a method has returned
    survives a kill -9 of this process, and of the embedded database's machine losing power. A read
    that begins after a write returned sees that write, in every process. A caller that is cancelled
    does not know whether its write happened.
    """

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Connect, and create collections and indexes that are not there yet (idempotent)."""

    @abstractmethod
    async def __aexit__(self, *exception: object) -> None:
        """Finish what was begun, then close."""

    @abstractmethod
    async def get(self, collection: str, id: str) -> Document:
        """Raises `NotFound`."""

    @abstractmethod
    async def get_many(self, collection: str, ids: Sequence[str]) -> list[Document]:
        """Return those that exist, in the order asked for. Any number of ids."""

    @abstractmethod
    async def insert(
        self, collection: str, id: str, body: Mapping[str, Any], data: bytes | None = None
    ) -> Document:
        """Store a new document. Raises `AlreadyExists` if the id, or a unique group, is taken."""

    @abstractmethod
    async def insert_missing(self, collection: str, drafts: Sequence[Draft]) -> int:
        """Store those whose id is not there yet and return how many that were.

        Safe to repeat after any error. A crash may leave some stored and some not. Raises
        `AlreadyExists` when another document holds a unique group.
        """

    @abstractmethod
    async def replace(
        self,
        collection: str,
        id: str,
        body: Mapping[str, Any],
        *,
        if_revision: int,
        data: bytes | None = None,
    ) -> Document:
        """Put a new body (and payload) in place of revision `if_revision`.

        Raises `Conflict` if the document has another revision by now, `NotFound` if it is gone,
        `AlreadyExists` if a unique group is taken. Of many who race on one revision exactly one
        returns.
        """

    @abstractmethod
    async def delete(self, collection: str, id: str, *, if_revision: int | None = None) -> None:
        """Remove it. Absent is fine. With `if_revision`, raises `Conflict` if it has another."""

    @abstractmethod
    async def find(
        self,
        collection: str,
        equal: Mapping[str, Scalar] | None = None,
        *,
        sort: str = "id",
        descending: bool = False,
        after: Document | None = None,
        limit: int | None = None,
    ) -> list[Document]:
        """List documents whose top-level fields equal the given values.

        `equal` and `sort` name searchable fields of the collection, or `id`. Null equals null and
        absent; 1 equals 1.0 and not true. Ordered by `id`, or by one field and then by `id`: absent
        and null first, then numbers, then texts by code point, then false, then true; `descending`
        turns all of that round. `after` continues behind a document of an earlier page, whether or
        not it still exists; only its `id` and the field sorted by are read. A page has at most
        `limit` documents. Binary payloads are not fetched: `data` is None here.
        """
