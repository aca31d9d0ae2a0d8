"""Open the database that a text names, as these tests and the processes they start do."""

from __future__ import annotations

from pathlib import Path

from deepforge.documents.port import DocumentStore
from deepforge.documents.sqlite import SqliteStore
from deepforge.projects import artifacts, history, store

COLLECTIONS = store.COLLECTIONS + history.COLLECTIONS + artifacts.COLLECTIONS


def open_database(database: str) -> DocumentStore:
    """`database` is the path of an SQLite file, or a `mongodb://` address with a database's name."""
    return SqliteStore(Path(database), COLLECTIONS)
