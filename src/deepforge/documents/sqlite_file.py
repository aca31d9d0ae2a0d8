"""The file of the embedded database: opening it, also where nothing can be written; what SQLite says."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from deepforge.documents.port import Collection
from deepforge.documents.sqlite_query import schema
from deepforge.errors import (
    AdapterBug,
    ConfigError,
    Corrupt,
    DeepForgeError,
    StorageFull,
    Unavailable,
)

SCHEMA_VERSION = 1

# how SQLite reports a quota or a limit on file sizes; a full disk has its own code
_CANNOT_GROW = (
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMOPEN,
)


def open_writing(
    path: Path, collections: Sequence[Collection], *, readers: int, busy_timeout_s: float
) -> list[sqlite3.Connection]:
    """Make the file, tables and indexes that are missing; return a writer and so many readers."""
    connections: list[sqlite3.Connection] = []
    try:
        _make_file(path)
        for _ in range(1 + readers):
            connections.append(_connect(path, busy_timeout_s))
        _prepare(connections[0], path, busy_timeout_s, collections)
        for reader in connections[1:]:
            reader.execute("pragma query_only = on")
    except BaseException as error:
        for connection in connections:
            connection.close()
        if isinstance(error, sqlite3.IntegrityError):
            raise ConfigError(
                f"{path} holds documents that a unique group forbids: {error}"
            ) from error
        if isinstance(error, sqlite3.Error):
            raise understood(error, path) from error
        if isinstance(error, OSError) and not isinstance(error, DeepForgeError):
            raise ConfigError(
                f"the database {path} cannot be opened: {error.strerror}",
                hint="name a file in a folder that you may write to",
            ) from error
        raise
    return connections


def open_reading(
    path: Path, collections: Sequence[Collection], *, count: int
) -> list[sqlite3.Connection]:
    """Return connections that write not one byte; none if not everything is there.

    To read a database in WAL mode SQLite keeps two files beside it, for which there may be no room.
    Where nobody has left any, nobody writes, and it can be read as it lies there.
    """
    wal = path.with_name(f"{path.name}-wal")
    wanted = {name for collection in collections for name, _ in schema(collection)}
    connections: list[sqlite3.Connection] = []
    try:
        has_wal = wal.exists() and wal.stat().st_size > 0
        option = "readonly_shm=1" if has_wal else "immutable=1"
        uri = f"{path.absolute().as_uri()}?mode=ro&{option}"
        for _ in range(count):
            connections.append(
                sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
            )
        version, present = _found(connections[0])
        if version == SCHEMA_VERSION and wanted <= present:
            return connections
    except (OSError, sqlite3.Error):  # what opening it for writing said is told instead
        pass
    for connection in connections:
        connection.close()
    return []


def understood(error: sqlite3.Error, path: Path) -> DeepForgeError:
    """Explain what SQLite says of the file."""
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


def _make_file(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # never opens a file that is there: closing it would drop the locks SQLite holds on it
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _connect(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path,
        timeout=busy_timeout_s,
        isolation_level=None,  # transactions begin and end where we say
        check_same_thread=False,  # opened here, then used by one thread alone
    )
    try:
        connection.execute("pragma synchronous = full")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _prepare(
    connection: sqlite3.Connection, path: Path, timeout_s: float, collections: Sequence[Collection]
) -> None:
    """Turn WAL on and make the tables and indexes that are missing."""
    version, present = _found(connection)
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


def _found(connection: sqlite3.Connection) -> tuple[int, set[str]]:
    """The version of the format, and the names of the tables and indexes that are there."""
    version = connection.execute("pragma user_version").fetchone()[0]
    return version, {row[0] for row in connection.execute("select name from sqlite_master")}


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


def _full(path: Path) -> StorageFull:
    return StorageFull(
        f"the database {path} cannot grow: the disk or a quota is full",
        hint="make room, then try again",
    )


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
