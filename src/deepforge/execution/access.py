"""How a compute reaches the data of a storage and our server: per pair, the first way that fits.

1. a shared path: the storage's objects are files that the compute sees;
2. a signed request: the storage grants one object by itself;
3. the attempt route: our server passes the bytes on, where the compute can call it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from deepforge.compute.client import ComputeClient
from deepforge.compute.port import Refusal
from deepforge.runner import protocol
from deepforge.storage.client import StorageClient
from deepforge.storage.port import Grant, Method

Way = Literal["path", "signed", "server"]

GRANT_S = 24 * 3600.0
GRANT_BEYOND_LIMIT_S = 3600.0
LONGEST_GRANT_S = 7 * 24 * 3600.0  # what a SigV4 signature can last


@dataclass(frozen=True)
class Address:
    """Where runners find this server. `loopback_url` is for jobs on this machine."""

    loopback_url: str | None = None
    public_url: str | None = None
    file: str | None = None
    """A file on this machine that holds the newest `loopback_url`, for runners that outlive us."""
    is_open: bool = False
    """Whether other machines reach this server, too."""

    def channel(self, compute: ComputeClient, key: str, token: str) -> protocol.Channel | None:
        """How a job on that compute calls us, or None when it cannot."""
        reach = compute.reaches_server
        if reach == "no":
            return None
        local = self.loopback_url is not None and (
            reach == "loopback"
            or (reach == "either" and self.public_url is None and not self.is_open)
        )
        base = self.loopback_url if local else self.public_url
        if base is None:
            return None
        return protocol.Channel(
            url=f"{base.rstrip('/')}/api/v1/attempts/{key}",
            token=token,
            address_file=self.file if local else None,
            proxied=not local,
        )


def way(storage: StorageClient, compute: ComputeClient, *, channel: bool) -> Way | None:
    """Which way data of this storage take to and from this compute; None when there is none."""
    space = storage.file_space
    if space is not None and space in compute.file_spaces:
        return "path"
    if space is None and storage.capabilities.grants:
        return "signed"
    return "server" if channel else None


def why_not(storage: StorageClient, compute: ComputeClient, address: Address) -> Sequence[Refusal]:
    """Reasons why jobs on this compute could not use this storage, with the cure."""
    channel = address.channel(compute, "any", "") is not None
    if way(storage, compute, channel=channel) is not None:
        return ()
    return (
        Refusal(
            "storage",
            f"compute {compute.name!r} cannot reach the data of storage {storage.name!r}: they share "
            "no folder, the storage cannot sign requests, and the compute cannot call this server",
            "choose another storage, or start the server with --public-url so that the compute "
            "can call it",
        ),
    )


@dataclass(frozen=True)
class Access:
    """Issues the grants of one attempt. `name` is the object's name in the protocol."""

    compute: ComputeClient
    channel: protocol.Channel | None
    expires_s: float

    async def grant(
        self, storage: StorageClient, name: str, key: str, method: Method
    ) -> protocol.Grant:
        """Allow the attempt to read or write one object. Makes no request to the storage."""
        chosen = way(storage, self.compute, channel=self.channel is not None)
        if chosen == "path":
            mount = self.compute.file_spaces[storage.file_space or ""]
            return _far(await storage.grant(key, method, expires_s=self.expires_s), mount)
        if chosen == "signed":
            return _far(await storage.grant(key, method, expires_s=self.expires_s), "/")
        if self.channel is None:
            raise AssertionError("a pair without a way is refused before it is submitted")
        return protocol.Grant(
            kind="http",
            method=method,
            url=f"{self.channel.url}/objects/{quote(name)}",
            headers={"Authorization": f"Bearer {self.channel.token}"},
        )


def grant_seconds(time_limit_s: float | None) -> float:
    """How long grants of an attempt last: beyond its time limit, or a day."""
    if time_limit_s is None:
        return GRANT_S
    return min(LONGEST_GRANT_S, time_limit_s + GRANT_BEYOND_LIMIT_S)


def _far(grant: Grant, mount: str) -> protocol.Grant:
    path = grant.path
    if path is not None and mount != "/":
        path = posixpath.join(mount, path.lstrip("/"))
    return protocol.Grant(
        kind=grant.kind,
        method=grant.method,
        path=path,
        url=grant.url,
        headers=dict(grant.headers),
        expires_at=grant.expires_at,
    )
