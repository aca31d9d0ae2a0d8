from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from projects.databases import open_database

from deepforge.documents.port import DocumentStore


@pytest.fixture(params=["sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database of either kind, as a text that `open_database` understands."""
    return str(tmp_path / "deepforge.db")


@pytest.fixture
async def documents(database: str) -> AsyncIterator[DocumentStore]:
    """The database, open."""
    async with open_database(database) as opened:
        yield opened
