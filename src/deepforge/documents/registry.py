"""Which documents store a database address means. Each backend is imported when it is used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deepforge.documents.port import Collection, DocumentStore
from deepforge.errors import ConfigError

_HINT = "write sqlite:///absolute/path, mongodb://host/database or mongodb+srv://host/database"


def open_documents(
    url: str, collections: Sequence[Collection], *, reading_suffices: bool = False
) -> DocumentStore:
    """Return the store at an address, to be opened with `async with`; nothing is touched before.

    `sqlite:///absolute/path` takes the path as it stands, without percent signs or options;
    `mongodb://` and `mongodb+srv://` are MongoDB's own addresses. With `reading_suffices`, a file that
    cannot be written is opened all the same, and every write raises why. Raises `ConfigError` for
    anything else, and never shows more of an address than its kind: it may hold a password.
    """
    kind, separator, rest = url.partition("://")
    if separator and kind == "sqlite":
        from deepforge.documents.sqlite import SqliteStore

        return SqliteStore(_path(rest), collections, reading_suffices=reading_suffices)
    if separator and kind in ("mongodb", "mongodb+srv"):
        from deepforge.documents.mongo import MongoStore

        return MongoStore(url, collections)
    shown = f"of the kind {kind!r}" if separator and kind.isalnum() else "given"
    raise ConfigError(f"no database is known for the address {shown}", hint=_HINT)


def _path(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute():  # a drive letter stands behind the slash: sqlite:///C:/folder/file
        path = Path(text.removeprefix("/"))
    if not path.is_absolute() or "\0" in text or text.endswith(("/", "/:memory:")):
        raise ConfigError("a sqlite address holds the absolute path of a file", hint=_HINT)
    return path
