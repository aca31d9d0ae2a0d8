"""What every backend refuses alike, and the errors that they spell alike."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from deepforge.documents.port import MAX_DEPTH, MAX_DOCUMENT_BYTES, Collection, Document, Scalar
from deepforge.errors import AlreadyExists, Conflict, InvalidRequest, NotFound


def check_document(
    collection: Collection, id: str, body: Mapping[str, Any], data: bytes | None
) -> str:
    """Return the body as compact JSON text. Every backend calls this before it writes.

    Raises `InvalidRequest` unless every backend can keep this document unchanged.
    """
    check_id(id)
    if not (_is_plain(body, MAX_DEPTH) and all(map(_is_plain_field, body))):
        _check_value(body, id, ())  # finds what is wrong and says where, or nothing
    for field in collection.searchable & body.keys():
        _check_searchable(field, body[field], f"document {id!r}")
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), default=dict)
    size_bytes = len(text if text.isascii() else text.encode()) + len(data or b"")
    if size_bytes > MAX_DOCUMENT_BYTES:
        raise InvalidRequest(
            f"document {id!r} has {size_bytes} bytes; the limit is {MAX_DOCUMENT_BYTES}",
            hint="keep large content in a storage and a reference to it here",
            part=id,
        )
    return text


def check_id(id: object) -> None:
    """Raise `InvalidRequest` unless this can be the id of a document."""
    if not isinstance(id, str) or not 0 < len(id) <= 256 or "\0" in id or not _is_unicode(id):
        raise InvalidRequest(
            f"document id {str(id)[:40]!r} is not a text of 1 to 256 characters without NUL",
            part="id",
        )


def check_revision(revision: int) -> None:
    """Raise `InvalidRequest` unless this can be a revision."""
    if not 0 < revision < 2**63:
        raise InvalidRequest(f"{revision} is not a revision", part="if_revision")


def check_find(
    collection: Collection,
    equal: Mapping[str, Scalar],
    sort: str,
    after: Document | None,
    limit: int | None,
) -> None:
    """Raise `InvalidRequest` unless every backend can answer this `find` by its indexes."""
    for field in (*equal, sort):
        if field != "id" and field not in collection.searchable:
            known = ", ".join(sorted(collection.searchable | {"id"}))
            raise InvalidRequest(
                f"{collection.name} cannot be searched or sorted by {field!r}",
                hint=f"name it in `indexes` of the collection; searchable are: {known}",
                part=field,
            )
    values: list[tuple[str, Any]] = list(equal.items())
    if after is not None:
        values += [("id", after.id), (sort, after.id if sort == "id" else after.body.get(sort))]
    for field, value in values:
        if field == "id":
            check_id(value)
        _check_value(value, "", (field,))
        _check_searchable(field, value, f"a search of {collection.name}")
    if limit is not None and limit < 1:
        raise InvalidRequest(f"a page of {limit} documents cannot be asked for", part="limit")


def not_found(collection: str, id: str) -> NotFound:
    return NotFound(f"there is no document {id!r} in {collection}")


def id_taken(collection: str, id: str) -> AlreadyExists:
    return AlreadyExists(f"there is a document {id!r} in {collection} already")


def values_taken(collection: str, groups: Sequence[Sequence[str]]) -> AlreadyExists:
    fields = ", or the same ".join(" and ".join(group) for group in groups)
    return AlreadyExists(f"another document in {collection} has the same {fields}")


def conflict(collection: str, id: str, revision: int) -> Conflict:
    return Conflict(
        f"document {id!r} in {collection} has revision {revision} by now",
        hint="read it again, then decide again",
    )


def unknown_collection(name: str) -> InvalidRequest:
    return InvalidRequest(f"this store was opened without a collection {name!r}")


def _check_searchable(field: str, value: Any, where: str) -> None:
    if isinstance(value, Mapping | list | tuple):
        raise InvalidRequest(
            f"{where}: {field!r} is searchable, so it cannot hold a list or an object", part=field
        )
    if isinstance(value, str) and "\0" in value:
        raise InvalidRequest(
            f"{where}: {field!r} is searchable, so it cannot hold a NUL character", part=field
        )


def _is_plain(value: Any, depth: int) -> bool:
    """Whether a value is as most are, so that nothing has to be said about it. Every write asks."""
    kind = type(value)
    if kind is dict:
        for key in value:
            if type(key) is not str or not key.isascii() or "\0" in key:
                return False
        value = value.values()
    elif kind is not list:
        return _is_plain_scalar(value)
    if depth <= 0:
        return False
    for inner in value:
        if inner is None:
            continue
        kind = type(inner)
        if kind is str:
            if not inner.isascii():
                return False
        elif kind is dict or kind is list:
            if not _is_plain(inner, depth - 1):
                return False
        elif not _is_plain_scalar(inner):
            return False
    return True


def _is_plain_scalar(value: Any) -> bool:
    kind = type(value)
    if kind is int:
        return bool(-(2**63) <= value < 2**63)
    if kind is float:
        return math.isfinite(value)
    return kind is bool


def _is_plain_field(key: str) -> bool:
    return key.isidentifier() and key != "_id"


def _check_value(value: Any, id: str, path: tuple[str | int, ...]) -> None:
    if isinstance(value, str):
        if not value.isascii() and not _is_unicode(value):
            raise _refused(id, path, "holds half a character (a lone surrogate)")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise _refused(id, path, "is a whole number that does not fit 64 bits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _refused(id, path, f"is {value}, not a finite number")
    elif isinstance(value, dict | list | tuple | Mapping):
        if len(path) >= MAX_DEPTH:
            raise _refused(id, path[:3], f"is nested deeper than {MAX_DEPTH} levels")
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            if isinstance(value, Mapping):
                _check_key(key, id, path)
            _check_value(inner, id, (*path, key))
    elif value is not None:
        raise _refused(id, path, f"is {type(value).__name__}, which is not a JSON value")


def _check_key(key: Any, id: str, path: tuple[str | int, ...]) -> None:
    if not isinstance(key, str):
        raise _refused(id, path, f"has the key {key!r}, which is not text")
    if "\0" in key or not (key.isascii() or _is_unicode(key)):
        raise _refused(id, path, f"has the key {key!r}, with a NUL or half a character in it")
    if not path and (not key or key[0] == "$" or "." in key or key == "_id"):
        raise InvalidRequest(
            f"document {id!r}: the top-level key {key!r} is not allowed",
            hint="top-level keys are not empty, have no dot and no leading $, and are not _id",
            part=key,
        )


def _refused(id: str, path: tuple[str | int, ...], why: str) -> InvalidRequest:
    where = "/".join(str(part) for part in path)[:200]
    what = f"{where!r} of document {id!r}" if path else f"the body of document {id!r}"
    return InvalidRequest(f"{what} {why}", part=where or id)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
