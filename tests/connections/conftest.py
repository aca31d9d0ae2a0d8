from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deepforge.connections import store
from deepforge.connections.secrets import SecretBox
from deepforge.documents.port import DocumentStore
from deepforge.documents.sqlite import SqliteStore


@pytest.fixture
async def documents(tmp_path: Path) -> AsyncIterator[DocumentStore]:
    async with SqliteStore(tmp_path / "deepforge.db", store.COLLECTIONS) as opened:
        yield opened


@pytest.fixture
def box(tmp_path: Path) -> SecretBox:
    return SecretBox(tmp_path / "secret.key", {})
