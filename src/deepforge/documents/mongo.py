"""Documents in MongoDB (4.4 or newer). The only file that imports pymongo."""

from __future__ import annotations

import asyncio
import contextlib
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import structlog
from bson.errors import BSONError
from pymongo import ASCENDING, DESCENDING, AsyncMongoClient, IndexModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    DocumentTooLarge,
    InvalidName,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WTimeoutError,
)
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

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
from deepforge.documents.mongo_shape import Raw, behind, from_raw, group_name, path_of, to_raw
from deepforge.documents.port import Collection, Document, DocumentStore, Draft, Scalar
from deepforge.errors import (
    AdapterBug,
    AlreadyExists,
    AuthError,
    ConfigError,
    DeepForgeError,
    InvalidRequest,
    OutcomeUnknown,
    StorageFull,
    Unavailable,
)

DEFAULT_DATABASE = "deepforge"

_log = structlog.get_logger()

_DEADLINES_MS = {
    "serverSelectionTimeoutMS": 10_000,
    "connectTimeoutMS": 10_000,
    "socketTimeoutMS": 60_000,
}
_IDS_AT_ONCE = 1000
_INSERT_TRIES = 4
_REFUSED_US = (13, 18, 33, 8000)  # unauthorized, authentication failed, key not found, Atlas
_NO_ROOM = (14031,)


class MongoStore(DocumentStore):
    """Documents in the database that the URI's path names, else in `deepforge`.

    Writes are acknowledged by a majority, from its journal; reads come from the primary. Opening
    raises `ConfigError` for a URI that cannot be read. No error shows the URI.

    FerretDB 1 speaks the same protocol but reads and then writes, so of two updates that race both
    succeed and one is lost. Opening logs a warning; it is good for a trial, not for work.
    """

    def __init__(self, uri: str, collections: Sequence[Collection]) -> None:
        self._uri = uri
        self._kinds = {one.name: one for one in collections}
        self._place = _place(uri)
        self._client: AsyncMongoClient[Raw] | None = None
        self._tables: dict[str, AsyncCollection[Raw]] = {}
        self._calls = 0  # under way
        self._idle = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._client = _client(self._uri, self._place)
        try:
            with self._errors():
                await self._prepare(self._client)
        except BaseException:
            await self._client.close()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._tables = {}
        while self._calls:
            self._idle.clear()
            await self._idle.wait()
        if self._client is not None:
            await self._client.close()

    async def get(self, collection: str, id: str) -> Document:
        _, table = self._collection(collection)
        check_id(id)
        with self._errors():
            raw = await table.find_one({"_id": id})
        if raw is None:
            raise not_found(collection, id)
        return from_raw(raw)

    async def get_many(self, collection: str, ids: Sequence[str]) -> list[Document]:
        _, table = self._collection(collection)
        for id in ids:
            check_id(id)
        found: dict[str, Document] = {}
        with self._errors():
            for start in range(0, len(ids), _IDS_AT_ONCE):
                wanted = list(ids[start : start + _IDS_AT_ONCE])
                async for raw in table.find({"_id": {"$in": wanted}}):
                    found[raw["_id"]] = from_raw(raw)
        return [found[id] for id in ids if id in found]

    async def insert(
        self, collection: str, id: str, body: Mapping[str, Any], data: bytes | None = None
    ) -> Document:
        kind, table = self._collection(collection)
        raw = to_raw(kind, id, 1, check_document(kind, id, body, data), data)
        try:
            with self._errors(once=True):
                await table.insert_one(raw)
        except _Duplicate as error:
            raise await self._taken(kind, table, id) from error.__cause__
        return from_raw(raw)

    async def insert_missing(self, collection: str, drafts: Sequence[Draft]) -> int:
        kind, table = self._collection(collection)
        raws = [
            to_raw(kind, one.id, 1, check_document(kind, one.id, one.body, one.data), one.data)
            for one in drafts
        ]
        stored = 0
        for tries_left in reversed(range(_INSERT_TRIES)):
            if not raws:
                break
            try:
                with self._errors():
                    return stored + len((await table.insert_many(raws, ordered=False)).inserted_ids)
            except _Duplicate as error:
                stored += error.stored
                there = await self._ids(table, error.ids)
                missing = {id for id in error.ids if id not in there}
                if missing and not tries_left:
                    raise values_taken(kind.name, kind.unique) from error.__cause__
                # its values are taken, or it was there and somebody removed it just now: not every
                # server tells which
                raws = [raw for raw in raws if raw["_id"] in missing]
        return stored

    async def replace(
        self,
        collection: str,
        id: str,
        body: Mapping[str, Any],
        *,
        if_revision: int,
        data: bytes | None = None,
    ) -> Document:
        kind, table = self._collection(collection)
        check_revision(if_revision)
        raw = to_raw(kind, id, if_revision + 1, check_document(kind, id, body, data), data)
        try:
            with self._errors(once=True):
                done = await table.replace_one({"_id": id, "revision": if_revision}, raw)
        except _Duplicate as error:
            raise values_taken(kind.name, kind.unique) from error.__cause__
        if not done.matched_count:
            found = await self._revision(table, id)
            raise not_found(kind.name, id) if found is None else conflict(kind.name, id, found)
        return from_raw(raw)

    async def delete(self, collection: str, id: str, *, if_revision: int | None = None) -> None:
        kind, table = self._collection(collection)
        check_id(id)
        if if_revision is None:
            with self._errors():
                await table.delete_one({"_id": id})
            return
        check_revision(if_revision)
        with self._errors(once=True):
            done = await table.delete_one({"_id": id, "revision": if_revision})
        if not done.deleted_count:
            found = await self._revision(table, id)
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
        kind, table = self._collection(collection)
        check_find(kind, equal or {}, sort, after, limit)
        clauses = [{path_of(field): value} for field, value in (equal or {}).items()]
        if after is not None:
            clauses.append(behind(after, sort, descending))
        direction = DESCENDING if descending else ASCENDING
        order = [(path, direction) for path in dict.fromkeys([path_of(sort), "_id"])]
        query = {"$and": clauses} if clauses else {}
        with self._errors():
            cursor = table.find(query, {"data": 0, "unique": 0}, sort=order, limit=limit or 0)
            return [from_raw(raw) async for raw in cursor]

    async def _prepare(self, client: AsyncMongoClient[Raw]) -> None:
        server = await client.admin.command("buildInfo")
        if "ferretdbVersion" in server:
            _log.warning(
                "documents_server_loses_racing_updates",
                server=f"FerretDB {server['ferretdbVersion']}",
                hint="use MongoDB for anything but a trial",
            )
        database = client.get_default_database(
            DEFAULT_DATABASE,
            read_preference=ReadPreference.PRIMARY,
            write_concern=WriteConcern("majority", wtimeout=30_000, j=True),
        )
        for kind in self._kinds.values():
            table = self._tables[kind.name] = database[kind.name]
            present = await table.index_information()
            for index in _indexes(kind):
                if index.document["name"] not in present:
                    await self._create_index(table, index)

    async def _create_index(self, table: AsyncCollection[Raw], index: IndexModel) -> None:
        try:
            await table.create_indexes([index])
        except OperationFailure as error:
            if not _is_duplicate(error):
                raise
            raise ConfigError(
                f"{table.name} at {self._place} holds documents that a unique group forbids"
            ) from error

    async def _revision(self, table: AsyncCollection[Raw], id: str) -> int | None:
        with self._errors():
            raw = await table.find_one({"_id": id}, {"revision": 1})
        return None if raw is None else int(raw["revision"])

    async def _ids(self, table: AsyncCollection[Raw], ids: Sequence[str]) -> set[str]:
        found: set[str] = set()
        with self._errors():
            for start in range(0, len(ids), _IDS_AT_ONCE):
                wanted = {"_id": {"$in": list(ids[start : start + _IDS_AT_ONCE])}}
                found |= {raw["_id"] async for raw in table.find(wanted, {"_id": 1})}
        return found

    async def _taken(self, kind: Collection, table: AsyncCollection[Raw], id: str) -> AlreadyExists:
        if await self._ids(table, [id]):
            return id_taken(kind.name, id)
        return values_taken(kind.name, kind.unique)

    def _collection(self, name: str) -> tuple[Collection, AsyncCollection[Raw]]:
        if name not in self._kinds:
            raise unknown_collection(name)
        if name not in self._tables:
            raise Unavailable(f"the database at {self._place} is not open")
        return self._kinds[name], self._tables[name]

    @contextlib.contextmanager
    def _errors(self, *, once: bool = False) -> Iterator[None]:
        """Turn what pymongo raises into our errors; a duplicate into `_Duplicate`.

        With `once`, what is done inside is not the same when it is done twice, so a lost answer
        leaves the outcome unknown.
        """
        self._calls += 1
        try:
            yield
        except (PyMongoError, BSONError) as error:
            raise _understood(error, self._place, once) from error
        except RuntimeError as error:  # pymongo's own locks, while it looks for a lost server
            raise _lost(self._place, once) from error
        finally:
            self._calls -= 1
            self._idle.set()


class _Duplicate(Exception):
    """A unique index refused a write. Never leaves this file."""

    def __init__(self, ids: Sequence[str] = (), stored: int = 0) -> None:
        super().__init__()
        self.ids = ids
        self.stored = stored


def _client(uri: str, place: str) -> AsyncMongoClient[Raw]:
    given = uri.lower()
    defaults: dict[str, Any] = {  # Any: pymongo's own parameters have other types
        name: ms for name, ms in _DEADLINES_MS.items() if name.lower() not in given
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return AsyncMongoClient(uri, appname="deepforge", **defaults)
    except (ConfigurationError, InvalidName, ValueError, Warning):
        # what pymongo says quotes pieces of the URI, and so perhaps of the password
        raise ConfigError(
            f"the address of the MongoDB at {place} cannot be read",
            hint="write mongodb://user:password@host:27017/database?option=value; "
            "in the user and the password write : as %3A, / as %2F, @ as %40, ? as %3F, % as %25",
        ) from None


def _place(uri: str) -> str:
    """Return `host:port`, the part of a URI that may be shown."""
    hosts = re.split(r"[/?]", uri.partition("://")[2].rpartition("@")[2])[0]
    return hosts if re.fullmatch(r"[\w.:,\[\]-]+", hosts) else "its host"


def _indexes(kind: Collection) -> list[IndexModel]:
    made = []
    for fields in kind.unique:
        path = [(f"unique.{group_name(fields)}", ASCENDING)]
        name = f"unique_{group_name(fields)}"
        made.append(IndexModel(path, name=name, unique=True, sparse=True))
    for fields in dict.fromkeys(kind.unique + kind.indexes):
        path = [(path_of(field), ASCENDING) for field in (*fields, "id")]
        made.append(IndexModel(path, name=f"by_{group_name(fields)}"))
    return made


def _is_duplicate(error: OperationFailure) -> bool:
    # FerretDB 1 has no code for it when it comes from an update
    return error.code == 11000 or "UNIQUE constraint failed" in str(error)


def _understood(error: PyMongoError | BSONError, place: str, once: bool) -> Exception:
    if isinstance(error, BulkWriteError):
        return _bulk(error, place)
    if isinstance(error, OperationFailure) and _is_duplicate(error):
        return _Duplicate()
    if isinstance(error, ServerSelectionTimeoutError | WaitQueueTimeoutError):
        return Unavailable(
            f"MongoDB at {place} cannot be reached",
            hint="see whether it runs and whether this machine may connect to it",
        )
    if isinstance(error, AutoReconnect | WTimeoutError):
        return _lost(place, once)
    if isinstance(error, OperationFailure):
        return _failure(error.code, str(error), place)
    if isinstance(error, DocumentTooLarge):
        return InvalidRequest(f"a document is too large for MongoDB: {error}")
    if isinstance(error, ConfigurationError):
        return ConfigError(f"MongoDB at {place} cannot be used: {error}")
    if isinstance(error, InvalidOperation):
        return Unavailable(f"the database at {place} was closed")
    return AdapterBug(f"MongoDB at {place}: {error}")


def _failure(code: int | None, text: str, place: str) -> DeepForgeError:
    if code in _REFUSED_US:
        return AuthError(
            f"MongoDB at {place} refuses us",
            hint="check the user, the password, authSource, and that the user may read and write",
        )
    if code in _NO_ROOM:
        return StorageFull(f"MongoDB at {place} has no room left", hint="make room, then try again")
    return AdapterBug(f"MongoDB at {place}: {text}")


def _lost(place: str, once: bool) -> DeepForgeError:
    if once:
        return OutcomeUnknown(
            f"MongoDB at {place} did not answer a write",
            hint="read the document to learn whether it happened",
        )
    return Unavailable(f"the connection to MongoDB at {place} was lost", hint="try again")


def _bulk(error: BulkWriteError, place: str) -> Exception:
    refused: Iterable[Raw] = error.details["writeErrors"]
    others = [one for one in refused if one["code"] != 11000]
    if others:
        return _failure(others[0]["code"], others[0]["errmsg"], place)
    if error.details["writeConcernErrors"]:
        return _lost(place, once=False)
    return _Duplicate([one["op"]["_id"] for one in refused], error.details["nInserted"])
