"""Which way data take between each storage and each compute, and what is said when there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from deepforge.compute.client import ComputeClient
from deepforge.compute.memory import MemoryCompute, MemorySettings
from deepforge.compute.port import Host
from deepforge.execution.access import (
    GRANT_S,
    LONGEST_GRANT_S,
    Access,
    Address,
    grant_seconds,
    way,
    why_not,
)
from deepforge.machine import machine_space
from deepforge.settings import build
from deepforge.storage import memory
from deepforge.storage.client import StorageClient
from deepforge.storage.local import LocalAdapter, LocalSettings
from deepforge.storage.s3 import S3Adapter, S3Settings

TOKEN = "the-token"


class Compute(MemoryCompute):
    """A compute with these spaces and this reach."""

    spaces: dict[str, str]
    reach: Literal["loopback", "public", "no"]

    @property
    def file_spaces(self) -> dict[str, str]:
        return self.spaces

    @property
    def reaches_server(self) -> Literal["loopback", "public", "no"]:
        return self.reach


def compute(
    folder: Path,
    *,
    reach: Literal["loopback", "public", "no"] = "no",
    spaces: dict[str, str] | None = None,
) -> ComputeClient:
    adapter = Compute(MemorySettings(), Host(folder))
    adapter.spaces, adapter.reach = spaces or {}, reach
    return ComputeClient(adapter, "gpu-box")


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[StorageClient]:
    async with LocalAdapter(LocalSettings(str(tmp_path / "objects"))) as adapter:
        yield StorageClient(adapter, "disk")


@pytest.fixture
def plain() -> StorageClient:
    """A storage that can neither be mounted nor sign."""
    return StorageClient(memory.MemoryAdapter(memory.MemorySettings("access")), "plain")


@pytest.fixture
async def signing() -> AsyncIterator[StorageClient]:
    """Signing asks nobody, so nobody need be there."""
    values: dict[str, Any] = {
        "endpoint_url": "http://127.0.0.1:9",
        "bucket": "bucket",
        "access_key_id": "AKIA",
        "secret_access_key": "s3cr3t",
    }
    async with S3Adapter(build(S3Settings, values)) as adapter:
        yield StorageClient(adapter, "lab")


def here(folder: Path, at: str = "/") -> ComputeClient:
    return compute(folder, spaces={machine_space(): at})


async def test_every_pair_takes_the_first_way_that_fits(
    tmp_path: Path, local: StorageClient, plain: StorageClient, signing: StorageClient
) -> None:
    near, far = here(tmp_path), compute(tmp_path)

    def ways(storage: StorageClient) -> Sequence[str | None]:
        return [
            way(storage, one, channel=channel) for one in (near, far) for channel in (True, False)
        ]

    assert ways(local) == ["path", "path", "server", None]
    assert ways(signing) == ["signed"] * 4
    assert ways(plain) == ["server", None, "server", None]


async def test_a_shared_path_is_where_the_compute_sees_it(
    tmp_path: Path, local: StorageClient
) -> None:
    same = await Access(here(tmp_path), None, 60).grant(local, "code", "bundles/a.zip", "GET")
    mounted = await Access(here(tmp_path, "/mnt/forge"), None, 60).grant(
        local, "code", "bundles/a.zip", "GET"
    )

    assert (same.kind, same.path) == ("file", f"{tmp_path}/objects/bundles/a.zip")
    assert mounted.path == f"/mnt/forge{tmp_path}/objects/bundles/a.zip"


async def test_a_signed_request_is_for_one_object_and_ends(
    tmp_path: Path, signing: StorageClient
) -> None:
    grant = await Access(compute(tmp_path), None, 60).grant(
        signing, "outputs/model", "executions/x/outputs/model", "PUT"
    )

    assert (grant.kind, grant.method) == ("http", "PUT")
    assert grant.url is not None
    assert grant.url.startswith("http://127.0.0.1:9/bucket/executions/x/outputs/model?")
    assert "X-Amz-Expires=60" in grant.url
    assert "s3cr3t" not in repr(grant)
    assert grant.expires_at is not None


async def test_the_attempt_route_is_the_last_way(tmp_path: Path, plain: StorageClient) -> None:
    far = compute(tmp_path, reach="public")
    channel = Address(public_url="https://forge.example.org/").channel(far, "e-j-1", TOKEN)
    assert channel is not None
    grant = await Access(far, channel, 60).grant(plain, "inputs/a b.0", "any", "GET")

    assert grant.url == "https://forge.example.org/api/v1/attempts/e-j-1/objects/inputs/a%20b.0"
    assert grant.headers == {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    ("reach", "loopback", "public", "url", "proxied"),
    [
        ("no", "http://127.0.0.1:1", "https://forge", None, None),
        ("loopback", "http://127.0.0.1:1", "https://forge", "http://127.0.0.1:1", False),
        ("loopback", None, "https://forge", "https://forge", True),
        ("public", "http://127.0.0.1:1", "https://forge", "https://forge", True),
        ("public", "http://127.0.0.1:1", None, None, None),
        ("loopback", None, None, None, None),
    ],
)
def test_a_job_calls_the_address_that_it_reaches(
    tmp_path: Path,
    reach: Literal["loopback", "public", "no"],
    loopback: str | None,
    public: str | None,
    url: str | None,
    proxied: bool | None,
) -> None:
    address = Address(loopback, public, file="/home/address")
    channel = address.channel(compute(tmp_path, reach=reach), "e-j-1", TOKEN)

    if url is None:
        assert channel is None
        return
    assert channel is not None
    assert channel.url == f"{url}/api/v1/attempts/e-j-1"
    assert channel.proxied is proxied
    # only who calls the loopback address may look it up in our file
    assert channel.address_file == (None if proxied else "/home/address")


def test_a_pair_without_a_way_is_refused_with_the_cure(
    tmp_path: Path, plain: StorageClient, local: StorageClient
) -> None:
    far = compute(tmp_path, reach="public")

    (refusal,) = why_not(plain, far, Address())
    assert "'gpu-box'" in refusal.message
    assert "'plain'" in refusal.message
    assert "--public-url" in (refusal.hint or "")
    assert why_not(plain, far, Address(public_url="https://forge")) == ()
    assert why_not(local, here(tmp_path), Address()) == ()


def test_grants_outlast_the_time_limit_but_no_signature_lasts_longer_than_a_week() -> None:
    assert grant_seconds(None) == GRANT_S
    assert grant_seconds(60) > 60 + 600
    assert grant_seconds(10**9) == LONGEST_GRANT_S
