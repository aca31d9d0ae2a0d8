"""Documents in one SQLite file: the embedded default.

One thread writes. It takes every write that waits, commits them together and then answers them all,
so many tasks share one sync of the disk. Other threads read and never wait for a commit (WAL).
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from deepforge.documents.checks import (
    check_document,
    check_find,
    check_id,
    check_revision,
    conflict,
    id_taken,
    not_found,
    unknown_collection,
    values_taken,
)
from deepforge.documents.port import Collection, Document, DocumentStore, Draft, Scalar
from deepforge.documents.sqlite_file import open_reading, open_writing, understood
from deepforge.documents.sqlite_query import find_statement, unique_index
from deepforge.documents.sqlite_threads import Desk, Statement, read_all, write_all
from deepforge.errors import AlreadyExists, ConfigError, StorageFull, Unavailable

T = TypeVar("T")

_READERS = 2


class SqliteStore(DocumentStore):
    """Documents in the file at `path`, which is made (0600, its folder 0700) if it is not there.

    The file lies on a local disk: SQLite cannot share it over a network file system. Opening raises
    `ConfigError` if it is not such a database, or was written by a newer DeepForge. A call raises
    `Unavailable` when another process held the database for longer than `busy_timeout_s`.

    With `reading_suffices` a whole database on a full or read-only disk is opened all the same: reads
    work, every write raises what is wrong (`StorageFull`, `ConfigError`) until it is opened anew. That
    is for those who leave soon: what other processes write meanwhile may not be seen.
    """

    def __init__(
        self,
        path: Path,
        collections: Sequence[Collection],
        *,
        busy_timeout_s: float = 20.0,
        reading_suffices: bool = False,
    ) -> None:
        self._path = path
        self._collections = {one.name: one for one in collections}
        self._busy_timeout_s = busy_timeout_s
        self._reading_suffices = reading_suffices
        self._unwritable: StorageFull | ConfigError | None = None
        self._desks: tuple[Desk, ...] = ()
        self._threads: list[threading.Thread] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        writer, *readers = await asyncio.to_thread(self._open)
        writes, reads = self._desks = (Desk(loop), Desk(loop))
        self._threads = [
            threading.Thread(target=write_all, args=(writer, writes), name="documents-writer"),
            *(
                threading.Thread(
                    target=read_all, args=(reader, reads), name=f"documents-reader-{n}"
                )
                for n, reader in enumerate(readers)
            ),
        ]
        for thread in self._threads:
            thread.daemon = True  # a program that forgot to close ends all the same
            thread.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        for desk in self._desks:
            desk.close()
        await asyncio.to_thread(self._join)

    async def get(self, collection: str, id: str) -> Document:
        found = await self.get_many(collection, [id])
        if not found:
            raise not_found(collection, id)
        return found[0]

    async def get_many(self, collection: str, ids: Sequence[str]) -> list[Document]:
        table = self._collection(collection).name
        for id in ids:
            check_id(id)
        sql = f'select id, revision, body, data from "{table}" where id '
        if len(ids) == 1:
            rows = await self._read(_fetch(sql + "= ?", [ids[0]]))
        else:
            wanted = json.dumps(list(ids))
            rows = await self._read(_fetch(sql + "in (select value from json_each(?))", [wanted]))
        found = {row[0]: _document(row) for row in rows}
        return [found[id] for id in ids if id in found]

    async def insert(
        self, collection: str, id: str, body: Mapping[str, Any], data: bytes | None = None
    ) -> Document:
        kind = self._collection(collection)
        text = check_document(kind, id, body, data)
        sql = f'insert into "{kind.name}" (id, revision, body, data) values (?, 1, ?, ?)'
        try:
            await self._write(Statement(sql, [id, text, data]))
        except sqlite3.IntegrityError as error:
            raise _taken(kind, id, error) from error
        return Document(id, 1, json.loads(text), data)

    async def insert_missing(self, collection: str, drafts: Sequence[Draft]) -> int:
        kind = self._collection(collection)
        rows = [
            (one.id, check_document(kind, one.id, one.body, one.data), one.data) for one in drafts
        ]
        sql = (
            f'insert into "{kind.name}" (id, revision, body, data) values (?, 1, ?, ?)'
            " on conflict (id) do nothing"
        )

        def work(connection: sqlite3.Connection) -> int:
            return connection.executemany(sql, rows).rowcount if rows else 0

        try:
            return await self._write(work)
        except sqlite3.IntegrityError as error:
            raise values_taken(kind.name, kind.unique) from error

    async def replace(
        self,
        collection: str,
        id: str,
        body: Mapping[str, Any],
        *,
        if_revision: int,
        data: bytes | None = None,
    ) -> Document:
        kind = self._collection(collection)
        check_revision(if_revision)
        text = check_document(kind, id, body, data)
        sql = (
            f'update "{kind.name}" set revision = revision + 1, body = ?, data = ?'
            " where id = ? and revision = ?"
        )
        try:
            changed = await self._write(Statement(sql, [text, data, id, if_revision]))
        except sqlite3.IntegrityError as error:
            raise _taken(kind, id, error) from error
        if not changed:
            found = await self._revision(kind, id)
            raise not_found(kind.name, id) if found is None else conflict(kind.name, id, found)
        return Document(id, if_revision + 1, json.loads(text), data)

    async def delete(self, collection: str, id: str, *, if_revision: int | None = None) -> None:
        kind = self._collection(collection)
        check_id(id)
        if if_revision is None:
            await self._write(Statement(f'delete from "{kind.name}" where id = ?', [id]))
            return
        check_revision(if_revision)
        sql = f'delete from "{kind.name}" where id = ? and revision = ?'
        if not await self._write(Statement(sql, [id, if_revision])):
            found = await self._revision(kind, id)
            if found is not None:
                raise conflict(kind.name, id, found)

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
        kind = self._collection(collection)
        check_find(kind, equal or {}, sort, after, limit)
        sql, values = find_statement(
            kind.name, equal or {}, sort=sort, descending=descending, after=after, limit=limit
        )
        return [_document(row) for row in await self._read(_fetch(sql, values))]

    async def _revision(self, kind: Collection, id: str) -> int | None:
        rows = await self._read(_fetch(f'select revision from "{kind.name}" where id = ?', [id]))
        return rows[0][0] if rows else None

    def _collection(self, name: str) -> Collection:
        try:
            return self._collections[name]
        except KeyError:
            raise unknown_collection(name) from None

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._unwritable is not None:
            raise type(self._unwritable)(self._unwritable.message, hint=self._unwritable.hint)
        return await self._ask(0, work)

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._ask(1, work)

    async def _ask(self, desk: int, work: Callable[[sqlite3.Connection], T]) -> T:
        if not self._desks:
            raise Unavailable(f"the database {self._path} is not open")
        try:
            return await self._desks[desk].ask(work)  # type: ignore[no-any-return]
        except sqlite3.IntegrityError:
            raise  # each method says what its constraint means
        except sqlite3.Error as error:
            raise understood(error, self._path) from error

    def _open(self) -> list[sqlite3.Connection]:
        collections = tuple(self._collections.values())
        try:
            return open_writing(
                self._path, collections, readers=_READERS, busy_timeout_s=self._busy_timeout_s
            )
        except (StorageFull, ConfigError) as error:
            if self._reading_suffices and (
                connections := open_reading(self._path, collections, count=1 + _READERS)
            ):
                self._unwritable = error
                return connections
            raise

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()


def _fetch(sql: str, values: Sequence[Any]) -> Callable[[sqlite3.Connection], list[Any]]:
    return lambda connection: connection.execute(sql, values).fetchall()


def _document(row: Sequence[Any]) -> Document:
    id, revision, body, *data = row
    return Document(id, revision, json.loads(body), data[0] if data else None)


def _taken(kind: Collection, id: str, error: sqlite3.IntegrityError) -> AlreadyExists:
    for fields in kind.unique:
        if f"'{unique_index(kind.name, fields)}'" in str(error):
            return values_taken(kind.name, [fields])
    return id_taken(kind.name, id)
