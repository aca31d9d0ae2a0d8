"""The storages that come with DeepForge, and how to open any that is installed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from deepforge.plugins import AdapterInfo, adapter
from deepforge.settings import build
from deepforge.storage.client import StorageClient

LOCAL = AdapterInfo(
    id="local",
    title="Folder",
    summary="Objects are files in a folder of the server's machine.",
    settings="deepforge.storage.local:LocalSettings",
    adapter="deepforge.storage.local:LocalAdapter",
)
MEMORY = AdapterInfo(
    id="memory",
    title="Memory",
    summary="Objects in the server's memory, gone when it ends. For trials.",
    settings="deepforge.storage.memory:MemorySettings",
    adapter="deepforge.storage.memory:MemoryAdapter",
)
S3 = AdapterInfo(
    id="s3",
    title="S3",
    summary="A bucket of Amazon S3, or of any other service that speaks its language.",
    settings="deepforge.storage.s3:S3Settings",
    adapter="deepforge.storage.s3:S3Adapter",
)


@asynccontextmanager
async def open_storage(
    name: str, adapter_id: str, values: Mapping[str, Any]
) -> AsyncIterator[StorageClient]:
    """Open the storage `name` with the settings in `values` (texts or typed values).

    Nothing is asked of the service yet. Raises `NotFound` for an adapter that is not installed and
    `ConfigError` for settings that are wrong.
    """
    info = adapter("storage", adapter_id)
    settings = build(info.settings_class(), values)
    async with info.adapter_class()(settings) as opened:
        yield StorageClient(opened, name)
