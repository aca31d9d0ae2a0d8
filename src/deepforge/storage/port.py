"""The storage port: what an author writes to connect one kind of object storage.

`storage/client.py` stands over it and adds, once for all adapters: key rules, digests, retries with
growing pauses, limits, error discipline. `deepforge.testing.storage` is the exam.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from deepforge.errors import NotSupported
from deepforge.settings import Choices

Method = Literal["GET", "PUT"]


@dataclass(frozen=True)
class Capabilities:
    """What an adapter can do, readable without credentials. The exam picks its tests by it."""

    atomic_put: bool = True
    """Nobody ever sees part of an object. Where false, readers must trust digests alone."""
    chosen_keys: bool = True
    """`put` keeps the key it was given. Where false, only the key it returns can be read."""
    conditional_put: bool = False
    """`only_if_absent` holds even among writers that race."""
    range_get: bool = True
    """Where false, `get` refuses any start but 0, and any end."""
    listing: bool = True
    deletion: bool = True
    """Where false, objects stay for ever: `delete` refuses."""
    server_copy: bool = False
    grants: bool = False
    part_grants: bool = False
    """Large objects may be written in parts by a process without credentials."""
    max_object_bytes: int | None = None
    max_grant_bytes: int | None = None
    """The largest object one granted PUT may write; larger ones need `part_grants`."""
    choices: bool = False
    """The service knows values for some of the settings."""


@dataclass(frozen=True)
class ObjectInfo:
    """One object as the service knows it. `modified_at` is RFC 3339 text in UTC."""

    key: str
    size_bytes: int
    modified_at: str
    etag: str | None = None


@dataclass(frozen=True)
class Grant:
    """How a process without credentials may read or write one object until `expires_at`.

    Either a file (`path` is absolute; a writer makes the parent folders, writes a temporary file
    beside it whose name begins with `.deepforge-`, so that no listing shows it, and renames) or one
    HTTP request (`url`, `headers` to send as they are).
    """

    kind: Literal["file", "http"]
    method: Method
    path: str | None = None
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    expires_at: str | None = None


@dataclass(frozen=True)
class ObjectRef:
    """A reference to stored data, as documents keep it. Never a secret.

    `storage` is the name of the connection, `digest` is `sha256:<hex>` of the content.
    """

    storage: str
    key: str
    size_bytes: int
    digest: str | None = None
    """None only for data that was imported where they lay and not read yet."""


class StorageAdapter(ABC):
    """One open connection to a storage. An async context manager; safe for many tasks at once.

    Raises errors of `deepforge.errors` only. `Unavailable`, `RateLimited` and `OutcomeUnknown` are
    retried by the client, nothing else is. Keys come checked: relative, `/`-separated, NFC UTF-8,
    1 to 900 bytes, no empty part, no `.` or `..`, no control character and no backslash.
    """

    capabilities: ClassVar[Capabilities]

    def __init__(self, settings: Any) -> None:  # the adapter's own settings dataclass
        self.settings = settings

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        return None

    @property
    def file_space(self) -> str | None:
        """Where the objects are also files: `host:<machine>`, `sciserver:<service>`, or None."""
        return None

    @property
    def file_root(self) -> str:
        """The folder in `file_space` in which all its objects lie: what a job there must see."""
        return "/"

    @property
    def read_only(self) -> bool:
        """Whether its objects are for reading only: `put` and `delete` raise `Forbidden`."""
        return False

    @property
    def endpoints(self) -> Mapping[str, str]:
        """The URLs of the services that are called for it, each by the setting it comes from.

        They are checked before the adapter is opened: a server that others can reach calls no
        endpoint in its operator's network unless the operator allows it.
        """
        return {}

    async def choices(self) -> Mapping[str, Choices]:
        """What the service offers for settings, by the setting's name, the other settings being as
        they are. Values that are wrong are no errors. Errors as of `check`. Capability `choices`."""
        return {}

    @abstractmethod
    async def check(self) -> None:
        """Reach the service with these credentials, write, read back and leave nothing behind.

        One that is `read_only` is only looked at. Raises `AuthError`, `ConfigError(fields)`,
        `Unavailable`, `StorageFull`.
        """

    @abstractmethod
    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectInfo:
        """Store an object, all or nothing, and return the key to keep.

        `chunks` may have any sizes; they are not retained. A failed or cancelled put leaves what
        was there before untouched. With `only_if_absent`, raises `AlreadyExists`. Raises
        `StorageFull` when there is no room.
        """

    @abstractmethod
    def get(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Give the bytes `[start, end)`. Raises `NotFound` before the first chunk.

        Closing the iterator early frees the connection. A range that begins at or behind the end
        of the object is empty. Parts need the capability `range_get`.
        """

    @abstractmethod
    async def stat(self, key: str) -> ObjectInfo:
        """Raises `NotFound`."""

    @abstractmethod
    def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """Every object whose key starts with `prefix`, ascending by the UTF-8 bytes of the key.

        Flat and recursive; an empty prefix lists all; `after` resumes behind a key. No such prefix
        is an empty listing. Capability `listing`.
        """

    @abstractmethod
    async def delete(self, keys: Sequence[str]) -> None:
        """Remove objects. Keys that do not exist are fine; safe to repeat after any error.

        Capability `deletion`.
        """

    async def copy(self, source: str, target: str) -> ObjectInfo:
        """Copy within the storage, with the promises of `put`. Capability `server_copy`."""
        raise NotSupported("server_copy", f"{type(self).__name__} cannot copy by itself")

    async def grant(self, key: str, method: Method, *, expires_s: float) -> Grant:
        """Allow one object to be read or written without credentials. Capability `grants`.

        The object need not exist. Makes no request where signing is enough.
        """
        raise NotSupported("grants", f"{type(self).__name__} cannot grant access to one object")

    async def begin_parts(self, key: str) -> str:
        """Begin an object that is written in parts; return the upload's id. `part_grants`."""
        raise NotSupported("part_grants", f"{type(self).__name__} has no uploads in parts")

    async def grant_part(self, key: str, upload: str, number: int, *, expires_s: float) -> Grant:
        """Allow part `number` (from 1) to be written. The answer's `ETag` header names it."""
        raise NotSupported("part_grants", f"{type(self).__name__} has no uploads in parts")

    async def complete_parts(self, key: str, upload: str, etags: Sequence[str]) -> ObjectInfo:
        """Make the object of its parts, in order. Safe to repeat with the same etags."""
        raise NotSupported("part_grants", f"{type(self).__name__} has no uploads in parts")

    async def abort_parts(self, key: str, upload: str) -> None:
        """Give up an upload in parts and free its room. An unknown upload is fine."""
        raise NotSupported("part_grants", f"{type(self).__name__} has no uploads in parts")
