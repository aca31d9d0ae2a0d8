"""What jobs read from our own blob server is read where it lies: nobody asks us for it over HTTP."""

from __future__ import annotations

from urllib.parse import urlsplit

from deepforge.errors import InvalidRequest, NotFound
from deepforge.execution.access import Address
from deepforge.storage.client import StorageClient
from deepforge.storage.port import ObjectRef
from deepforge.webgme.blob_store import BlobStore
from deepforge.webgme.blobs import is_hash

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


class OwnBlobs:
    """Call it with an owner, a storage of theirs and a key in it: where that object lies here.

    None unless the storage is the blob server that this server is itself, and the blob this owner's:
    what others stored is only read as its API gives it, with the token of the storage. A hash stands
    for the same content wherever it is known, so the short way gives no other bytes.
    """

    def __init__(self, blobs: BlobStore, address: Address) -> None:
        self._blobs = blobs
        self._address = address

    async def __call__(self, owner: str, storage: StorageClient, key: str) -> ObjectRef | None:
        if storage.capabilities.chosen_keys or not self._is_ours(storage):
            return None
        hash, _, path = (await storage.kept_under(key)).partition("/")
        if not is_hash(hash):
            return None
        try:
            return await self._blobs.find(owner, hash, path)
        except (NotFound, InvalidRequest):
            return None  # the long way tells what is wrong

    def _is_ours(self, storage: StorageClient) -> bool:
        url = storage.adapter.endpoints.get("url")
        own = (self._address.loopback_url, self._address.public_url)
        return url is not None and _place(url) in [_place(one) for one in own if one is not None]


def _place(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port; all names of this machine for itself are one."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, _THIS_MACHINE[0] if host in _THIS_MACHINE else host, port
