"""Both backends take the exam of the port, MongoDB over the wire."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepforge.documents.registry import open_documents
from deepforge.testing.documents import CONTRACT_COLLECTIONS, DocumentsContract, MakeStore
from mongo_server import MongoServer


class TestSqlite(DocumentsContract):
    @pytest.fixture
    def make_store(self, tmp_path: Path) -> MakeStore:
        return lambda: open_documents(f"sqlite://{tmp_path}/deepforge.db", CONTRACT_COLLECTIONS)


class TestMongo(DocumentsContract):
    @pytest.fixture
    def make_store(self, mongo_server: MongoServer) -> MakeStore:
        uri = mongo_server.new_database()
        return lambda: open_documents(uri, CONTRACT_COLLECTIONS)
