"""Every test of this folder runs on both kinds of database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deepforge.documents.port import DocumentStore
from deepforge.documents.registry import open_documents
from deepforge.projects import artifacts, history, store
from mongo_server import MongoServer

COLLECTIONS = store.COLLECTIONS + history.COLLECTIONS + artifacts.COLLECTIONS


@pytest.fixture(params=["sqlite", "mongo"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new database."""
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/deepforge.db"
    server: MongoServer = request.getfixturevalue("mongo_server")
    return server.new_database()


@pytest.fixture
async def documents(database: str) -> AsyncIterator[DocumentStore]:
    """The database, open."""
    async with open_documents(database, COLLECTIONS) as opened:
        yield opened
