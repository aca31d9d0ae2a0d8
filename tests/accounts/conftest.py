from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deepforge.accounts import tokens as token_store
from deepforge.accounts import users as user_store
from deepforge.accounts.users import Users
from deepforge.documents.port import DocumentStore
from deepforge.documents.sqlite import SqliteStore


@pytest.fixture
async def documents(tmp_path: Path) -> AsyncIterator[DocumentStore]:
    collections = (*user_store.COLLECTIONS, *token_store.COLLECTIONS)
    async with SqliteStore(tmp_path / "deepforge.db", collections) as opened:
        yield opened


@pytest.fixture
def users(documents: DocumentStore) -> Users:
    return Users(documents)
