"""How documents and searches look in MongoDB. Pure functions.

A document is kept as

    {_id, revision, body: {status: "ready", plan: {json: "[…]"}}, unique: {name: "…"}, data}

Numbers, texts, booleans and null of the body stand for themselves. Lists and objects are JSON text,
so whatever they hold comes back unchanged: MongoDB has its own mind about some keys, and in a
search a list would match each of its items. `unique` holds the values of each unique group as one
text, and is absent where a value is: a sparse index then says what the port says.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from deepforge.documents.port import Collection, Document, Scalar

Raw = dict[str, Any]  # a document or a query as pymongo takes and gives it

_TYPES = ("null", "number", "string", "bool")  # in the order of the port, which is MongoDB's too


def to_raw(kind: Collection, id: str, revision: int, text: str, data: bytes | None) -> Raw:
    """`text` is the body as JSON."""
    body = json.loads(text)
    raw: Raw = {
        "_id": id,
        "revision": revision,
        "body": {
            key: {"json": _json(value)} if isinstance(value, dict | list) else value
            for key, value in body.items()
        },
    }
    unique = {
        group_name(fields): _json([_plain_number(body[field]) for field in fields])
        for fields in kind.unique
        if all(body.get(field) is not None for field in fields)
    }
    if unique:
        raw["unique"] = unique
    if data is not None:
        raw["data"] = data
    return raw


def from_raw(raw: Raw) -> Document:
    body: dict[str, Any] = {}
    for key, value in raw["body"].items():
        if isinstance(value, dict):
            body[key] = json.loads(value["json"])
        elif isinstance(value, int) and not isinstance(value, bool):
            body[key] = int(value)  # BSON has a class of its own for long ones
        else:
            body[key] = value
    return Document(raw["_id"], int(raw["revision"]), body, raw.get("data"))


def group_name(fields: Sequence[str]) -> str:
    return "-".join(fields)


def path_of(field: str) -> str:
    return "_id" if field == "id" else f"body.{field}"


def behind(after: Document, sort: str, descending: bool) -> Raw:
    """The condition that a document comes behind `after`. Null comes first, ties go by id."""
    beyond = "$lt" if descending else "$gt"
    if sort == "id":
        return {"_id": {beyond: after.id}}
    path, value = path_of(sort), after.body.get(sort)
    rank = _TYPES.index(_type(value))
    ways: list[Raw] = [{path: value, "_id": {beyond: after.id}}]
    if value is not None:
        ways.append({path: {beyond: value}})  # MongoDB compares within one type
    further = _TYPES[1:rank] if descending else _TYPES[rank + 1 :]
    if further:
        ways.append({path: {"$type": list(further)}})
    if descending and value is not None:
        ways.append({path: None})  # absent has no type
    return {"$or": ways}


def _type(value: Scalar) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    return "string" if isinstance(value, str) else "number"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _plain_number(value: Scalar) -> Scalar:
    """Spell 1.0 as 1, since the port holds them equal."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
