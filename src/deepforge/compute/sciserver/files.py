"""What lies in the folder of a job: what we put there, and what it left."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from deepforge.errors import Unavailable
from deepforge.sciserver.files import FileService, NoVolume

_LARGEST_RECORD_BYTES = 64 * 1024


async def put(files: FileService, path: str, data: bytes) -> None:
    """Put a new file there, whole, or raise."""

    async def once() -> AsyncIterator[bytes]:
        yield data

    await files.write(path, once(), len(data))
    found = await files.stat(path)
    if found is None or found.size_bytes != len(data):
        raise Unavailable(f"SciServer did not keep the {len(data)} bytes of {path!r}")


async def is_there(files: FileService, folder: str) -> bool:
    """Whether there is such a folder, in a volume that this user may see."""
    try:
        return await files.listing(folder) is not None
    except NoVolume:
        return False


async def record(files: FileService, path: str) -> Any:
    """Read a small JSON file; None if there is none, or something else in its place."""
    for _ in range(2):  # what is not JSON may have been garbled on its way
        data = await _whole(files, path)
        if data is None:
            return None
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            continue
    return None


async def read(files: FileService, path: str, start: int = 0) -> AsyncGenerator[bytes, None]:
    """Give a file from a byte on. Nothing if there is no file, or no such byte.

    The service has no ranges: what lies before is received too, but only if there is more.
    """
    found = await files.stat(path)
    if found is None or found.size_bytes <= start:
        return
    passed = 0
    async with files.read(path) as download:
        if download is None:
            return
        async for chunk in download.chunks():
            before, passed = passed, passed + len(chunk)
            if passed > start:
                yield chunk[max(0, start - before) :]


async def _whole(files: FileService, path: str) -> bytes | None:
    data = bytearray()
    async with files.read(path) as download:
        if download is None or download.info.size_bytes > _LARGEST_RECORD_BYTES:
            return None
        async for chunk in download.chunks():
            data += chunk
    return bytes(data)
