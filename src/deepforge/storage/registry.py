"""The storages that come with DeepForge, and how to open any that is installed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from deepforge.plugins import AdapterInfo, adapter
from deepforge.settings import build
from deepforge.storage.client import StorageClient
from deepforge.storage.receipts import Receipts

LOCAL = AdapterInfo(
    id="local",
    title="Folder",
    summary="Objects are files in a folder of the server's machine.",
    settings="deepforge.storage.local:LocalSettings",
    adapter="deepforge.storage.local:LocalAdapter",
    on_server=True,
)
MEMORY = AdapterInfo(
    id="memory",
    title="Memory",
    summary="Objects in the server's memory, gone when it ends. For trials.",
    settings="deepforge.storage.memory:MemorySettings",
    adapter="deepforge.storage.memory:MemoryAdapter",
    on_server=True,
)
S3 = AdapterInfo(
    id="s3",
    title="S3",
    summary="A bucket of Amazon S3, or of any other service that speaks its language.",
    settings="deepforge.storage.s3:S3Settings",
    adapter="deepforge.storage.s3:S3Adapter",
)
SCISERVER = AdapterInfo(
    id="sciserver",
    title="SciServer Files",
    summary="Files in a volume of your SciServer account, where SciServer jobs see them too.",
    settings="deepforge.storage.sciserver:SciServerFilesSettings",
    adapter="deepforge.storage.sciserver:SciServerFilesAdapter",
    account=("site", "username"),
)
WEBGME = AdapterInfo(
    id="webgme",
    title="WebGME Blob Server",
    summary="Files in the blob storage of a WebGME server: kept for ever, by their content.",
    settings="deepforge.storage.webgme:WebGMESettings",
    adapter="deepforge.storage.webgme:WebGMEAdapter",
)


Admit = Callable[[Mapping[str, str]], Awaitable[None]]
"""Raises if one of an adapter's endpoints may not be called."""


@asynccontextmanager
async def open_storage(
    name: str,
    adapter_id: str,
    values: Mapping[str, Any],
    *,
    admit: Admit | None = None,
    receipts: Receipts | None = None,
) -> AsyncIterator[StorageClient]:
    """Open the storage `name` with the settings in `values` (texts or typed values).

    Nothing is asked of the service yet; `admit` is asked first whether it may be. `receipts` are for
    storages that choose their keys. Raises `NotFound` for an adapter that is not installed and
    `ConfigError` for settings that are wrong.
    """
    info = adapter("storage", adapter_id)
    settings = build(info.settings_class(), values)
    made = info.adapter_class()(settings)
    if admit is not None:
        await admit(made.endpoints)
    async with made as opened:
        yield StorageClient(opened, name, receipts=receipts)
