"""The SQL of the embedded database: tables, indexes and searches. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from deepforge.documents.port import Collection, Document, Scalar


def find_statement(
    table: str,
    equal: Mapping[str, Scalar],
    *,
    sort: str,
    descending: bool,
    after: Document | None,
    limit: int | None,
) -> tuple[str, list[Any]]:
    """Return the SQL of a `find`, and its parameters."""
    clauses: list[str] = []
    values: list[Any] = []
    for field, value in equal.items():
        if value is None:
            clauses.append(f"{_key(field)} is null")
        else:
            operand, bound = _operand(field, value)
            clauses.append(f"{_key(field)} = {operand}")
            values.append(bound)
    if after is not None:
        clause, bounds = _behind(after, sort, descending)
        clauses.append(clause)
        values += bounds
    direction = " desc" if descending else ""
    order = [key + direction for key in ([_key(sort), "id"] if sort != "id" else ["id"])]
    sql = f'select id, revision, body from "{table}"'
    sql += f" where {' and '.join(clauses)}" if clauses else ""
    sql += f" order by {', '.join(order)}"
    if limit is not None:
        sql += " limit ?"
        values.append(limit)
    return sql, values


def _behind(after: Document, sort: str, descending: bool) -> tuple[str, list[Any]]:
    """The condition that a document comes behind `after`. Null comes first, ties go by id."""
    beyond = "<" if descending else ">"
    if sort == "id":
        return f"id {beyond} ?", [after.id]
    key, value = _key(sort), after.body.get(sort)
    if value is None:
        null = f"{key} is null and id < ?" if descending else f"({key} is not null or id > ?)"
        return null, [after.id]
    operand, bound = _operand(sort, value)
    if descending:  # a comparison with null is null; null comes last here
        further = f"{key} < {operand} or {key} = {operand} and id < ?"
        return f"coalesce({further}, true)", [bound, bound, after.id]
    # the first comparison is where an index begins
    return f"{key} >= {operand} and ({key} > {operand} or id > ?)", [bound, bound, after.id]


def _key(field: str) -> str:
    """The SQL of a field's value, in the order of the port: true and false are blobs, which SQLite
    sorts after texts. Indexes are made of the very same text, or they would not be used."""
    if field == "id":
        return "id"
    value = f"json_extract(body, '$.{field}')"
    return (
        f"case json_type(body, '$.{field}')"
        f" when 'true' then x'01' when 'false' then x'00' else {value} end"
    )


def _operand(field: str, value: Scalar) -> tuple[str, Any]:
    """What to compare with `_key(field)`: an SQL expression and the parameter in it."""
    if isinstance(value, bool):
        return "?", bytes([value])
    if isinstance(value, float):  # so that SQLite reads the same digits in the same way twice
        return "json_extract(?, '$')", json.dumps(value)
    return "?", value


def schema(collection: Collection) -> list[tuple[str, str]]:
    """Names and statements of what a collection needs in the file."""
    table = collection.name
    made = [
        (
            table,
            f'create table if not exists "{table}"'
            " (id text primary key not null, revision integer not null, body text not null,"
            " data blob)",
        )
    ]
    for fields in collection.unique:  # null is distinct from null in a unique index, as in the port
        name = unique_index(table, fields)
        keys = ", ".join(_key(field) for field in fields)
        made.append((name, f'create unique index if not exists "{name}" on "{table}" ({keys})'))
    for fields in collection.indexes:
        name = f"{table}__by_{'-'.join(fields)}"
        keys = ", ".join(_key(field) for field in (*fields, "id"))
        made.append((name, f'create index if not exists "{name}" on "{table}" ({keys})'))
    return made


def unique_index(table: str, fields: Sequence[str]) -> str:
    """The name of the index of a unique group; SQLite says it when a write breaks the rule."""
    return f"{table}__unique_{'-'.join(fields)}"
