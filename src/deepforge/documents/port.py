"""The documents port: small documents with a revision, on SQLite or on MongoDB, honestly alike.

One compare-and-set on one document is enough for leases and for two people editing. There are no
transactions, no change streams and no query language beyond equality and order, so that both
backends can keep every promise made here. `deepforge.testing.documents` is the exam.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from deepforge.errors import InvalidRequest

MAX_DOCUMENT_BYTES = 8 * 1024 * 1024

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Collection:
    """A kind of document. `unique` and `indexes` name top-level fields of the body.

    Each entry of `unique` is a group of fields whose values together occur once; a document in
    which one of them is absent or null takes no part in that rule.
    """

    name: str
    unique: tuple[tuple[str, ...], ...] = ()
    indexes: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Document:
    """A stored document. `revision` is 1 after insert and grows by one with each replace.

    `body` holds JSON values with text keys; `data` is one optional binary payload beside it.
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

    Every method raises `Unavailable` when the database cannot be reached (trying again may help)
    and `AuthError` when it refuses us. What a method has returned survives a kill -9 of this
    process, and of the embedded database's machine losing power.
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

        Ordered by `id`, or by one top-level field and then by `id`; texts compare by code point,
        absent and null come first. `after` continues behind a document of an earlier page, whether
        or not it still exists; a page has at most `limit` documents. Binary payloads are not
        fetched: `data` is None here.
        """


def check_document(id: str, body: Mapping[str, Any], data: bytes | None, size_bytes: int) -> None:
    """Raise `InvalidRequest` unless every backend can keep this document unchanged.

    `size_bytes` is the size of the body as the backend encodes it. Both backends call this before
    they write.
    """
    if not id or len(id) > 256 or "\0" in id:
        raise InvalidRequest(
            f"document id {id[:40]!r} is not 1 to 256 characters without NUL", part="id"
        )
    _check_value(body, id, "")
    whole = size_bytes + len(data or b"")
    if whole > MAX_DOCUMENT_BYTES:
        raise InvalidRequest(
            f"document {id!r} has {whole} bytes; the limit is {MAX_DOCUMENT_BYTES}",
            hint="keep large content in a storage and a reference to it here",
            part=id,
        )


def _check_value(value: Any, id: str, path: str) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise InvalidRequest(f"document {id!r}: key {key!r} at {path!r} is not text")
            if "\0" in key or key.startswith("$") or (not path and ("." in key or key == "_id")):
                raise InvalidRequest(
                    f"document {id!r}: key {key!r} at {path!r} is not allowed",
                    hint="no NUL, no leading $; no dot in a top-level key",
                    part=key,
                )
            _check_value(inner, id, f"{path}/{key}")
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            _check_value(inner, id, f"{path}/{number}")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidRequest(f"document {id!r}: {value} at {path!r} is not a finite number")
    elif isinstance(value, int):
        if not isinstance(value, bool) and not -(2**63) <= value < 2**63:
            raise InvalidRequest(f"document {id!r}: {value} at {path!r} does not fit 64 bits")
    elif isinstance(value, str):
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise InvalidRequest(f"document {id!r}: text at {path!r} holds a lone surrogate")
    elif value is not None:
        raise InvalidRequest(f"document {id!r}: {type(value).__name__} at {path!r} is not JSON")
