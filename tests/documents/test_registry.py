from __future__ import annotations

from pathlib import Path

import pytest

from deepforge.documents.registry import open_documents
from deepforge.errors import ConfigError
from deepforge.testing.documents import CONTRACT_COLLECTIONS


async def test_a_sqlite_path_is_taken_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "a b%20c?d=e#f" / "ü.db"

    async with open_documents(f"sqlite://{path}", CONTRACT_COLLECTIONS) as store:
        await store.insert("notes", "a", {})

    assert path.is_file()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "notes.db",
        "/tmp/notes.db",
        "sqlite:/tmp/notes.db",
        "sqlite://notes.db",
        "sqlite://",
        "sqlite:///",
        "sqlite:///tmp/",
        "sqlite:///:memory:",
        "sqlite:///tmp/a\0b",
        "postgres://me:s3cret@host/database",
        "me:s3cret@host",
        "me:s3cret://host",
        "mongodb:///me:s3cret@host",
        "mongodb://",
        "mongodb://me:s3cret@",
        "mongodb://me:s3/cret@host/database",
        "mongodb://me:s3cret@host:port/database",
        "mongodb://me:s3%cret@host/database",
        "mongodb://me:s3?cret=1@host/database",
        "mongodb://me:s3@cret@host/database",
        "mongodb://me@s3cret:s3cret:1@host/s3cret",
    ],
)
async def test_an_address_that_means_nothing_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        async with open_documents(url, CONTRACT_COLLECTIONS):
            pass

    shown = str(caught.value) + repr(caught.value.__cause__)
    assert caught.value.hint
    assert "cret" not in shown


def test_choosing_a_store_touches_nothing(tmp_path: Path) -> None:
    open_documents(f"sqlite://{tmp_path}/a/b.db", CONTRACT_COLLECTIONS)
    open_documents("mongodb://127.0.0.1:1/database", CONTRACT_COLLECTIONS)

    assert list(tmp_path.iterdir()) == []
