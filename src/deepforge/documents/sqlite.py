"""Documents in one SQLite file: the embedded default.

One thread writes. It takes every write that waits, commits them together and then answers them all,
so many tasks share one sync of the disk. Other threads read and never wait for a commit (WAL).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from deepforge.documents.sqlite_query import find_statement, schema, unique_index
from deepforge.documents.sqlite_threads import Desk, read_all, write_all
from deepforge.errors import (
    AdapterBug,
    AlreadyExists,
    ConfigError,
    Corrupt,
    DeepForgeError,
    StorageFull,
    Unavailable,
)

T = TypeVar("T")

SCHEMA_VERSION = 1

_READERS = 2

# how SQLite reports a quota or a limit on file sizes; a full disk has its own code
_CANNOT_GROW = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)


class SqliteStore(DocumentStore):
    """Documents in the file at `path`, which is made (0600, its folder 0700) if it is not there.

    The file lies on a local disk: SQLite cannot share it over a network file system. Opening raises
    `ConfigError` if it is not such a database, or was written by a newer DeepForge. A call raises
    `Unavailable` when another process held the database for longer than `busy_timeout_s`.
    """

    def __init__(
        self, path: Path, collections: Sequence[Collection], *, busy_timeout_s: float = 20.0
    ) -> None:
        self._path = path
        self._collections = {one.name: one for one in collections}
        self._busy_timeout_s = busy_timeout_s
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
            await self._write(_execute(sql, [id, text, data]))
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
            changed = await self._write(_execute(sql, [text, data, id, if_revision]))
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
            await self._write(_execute(f'delete from "{kind.name}" where id = ?', [id]))
            return
        check_revision(if_revision)
        sql = f'delete from "{kind.name}" where id = ? and revision = ?'
        if not await self._write(_execute(sql, [id, if_revision])):
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
            raise _understood(error, self._path) from error

    def _open(self) -> list[sqlite3.Connection]:
        connections: list[sqlite3.Connection] = []
        try:
            _make_file(self._path)
            for _ in range(1 + _READERS):
                connections.append(self._connect())
            _prepare(connections[0], self._path, self._busy_timeout_s, self._collections.values())
            for reader in connections[1:]:
                reader.execute("pragma query_only = on")
        except BaseException as error:
            for connection in connections:
                connection.close()
            if isinstance(error, sqlite3.IntegrityError):
                raise ConfigError(
                    f"{self._path} holds documents that a unique group forbids: {error}"
                ) from error
            if isinstance(error, sqlite3.Error):
                raise _understood(error, self._path) from error
            if isinstance(error, OSError) and not isinstance(error, DeepForgeError):
                raise ConfigError(
                    f"the database {self._path} cannot be opened: {error.strerror}",
                    hint="name a file in a folder that you may write to",
                ) from error
            raise
        return connections

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=self._busy_timeout_s,
            isolation_level=None,  # transactions begin and end where we say
            check_same_thread=False,  # opened here, then used by one thread alone
        )
        connection.execute("pragma synchronous = full")
        return connection

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()


def _make_file(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # never opens a file that is there: closing it would drop the locks SQLite holds on it
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _prepare(
    connection: sqlite3.Connection, path: Path, timeout_s: float, collections: Iterable[Collection]
) -> None:
    """Turn WAL on and make the tables and indexes that are missing."""
    version = connection.execute("pragma user_version").fetchone()[0]
    present = {row[0] for row in connection.execute("select name from sqlite_master")}
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"the database {path} has the format {version}; this DeepForge knows {SCHEMA_VERSION}",
            hint="use the newer DeepForge that wrote it",
        )
    if version == 0 and present:
        raise ConfigError(
            f"the database {path} belongs to another program",
            hint="name a file that does not exist yet",
        )
    _turn_wal_on(connection, path, timeout_s)
    wanted = [one for collection in collections for one in schema(collection)]
    if version == SCHEMA_VERSION and all(name in present for name, _ in wanted):
        return
    connection.execute("begin immediate")
    for _, statement in wanted:
        connection.execute(statement)
    connection.execute(f"pragma user_version = {SCHEMA_VERSION}")
    connection.execute("commit")


def _turn_wal_on(connection: sqlite3.Connection, path: Path, timeout_s: float) -> None:
    """SQLite does not wait for this lock by itself, so processes that open a new file race."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            mode = connection.execute("pragma journal_mode = wal").fetchone()[0]
        except sqlite3.OperationalError as error:
            if _primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
            continue
        if mode != "wal":
            raise ConfigError(
                f"the file system of {path} cannot hold a database that several processes share",
                hint="name a file on a local disk",
            )
        return


def _execute(sql: str, values: Sequence[Any]) -> Callable[[sqlite3.Connection], int]:
    return lambda connection: connection.execute(sql, values).rowcount


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


def _understood(error: sqlite3.Error, path: Path) -> DeepForgeError:
    match _primary_code(error):
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Unavailable(
                f"the database {path} was locked by another process for too long",
                hint="see which process holds it, then try again",
            )
        case sqlite3.SQLITE_FULL:
            return _full(path)
        case sqlite3.SQLITE_IOERR if error.sqlite_errorcode in _CANNOT_GROW:
            return _full(path)
        case sqlite3.SQLITE_IOERR:
            return Unavailable(f"the disk of the database {path} fails: {error}")
        case sqlite3.SQLITE_NOTADB:
            return ConfigError(
                f"{path} is not a database", hint="name a file that does not exist yet"
            )
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return ConfigError(
                f"the database {path} cannot be opened for writing: {error}",
                hint="name a file in a folder that you may write to",
            )
        case sqlite3.SQLITE_CORRUPT:
            return Corrupt(
                f"the database {path} is damaged",
                expected="a sound database",
                found=str(error),
                hint="restore it from a copy",
            )
    return AdapterBug(f"SQLite cannot do this with {path}: {error}")


def _full(path: Path) -> StorageFull:
    return StorageFull(
        f"the database {path} cannot grow: the disk or a quota is full",
        hint="make room, then try again",
    )


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
