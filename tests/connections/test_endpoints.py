from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest

from deepforge import plugins
from deepforge.compute.port import ComputeAdapter
from deepforge.connections.endpoints import (
    ALLOW_VARIABLE,
    EVERYTHING,
    Address,
    AllowedEndpoints,
    check_endpoints,
    is_public,
    read_allowed,
    resolved,
)
from deepforge.connections.open import Opener
from deepforge.connections.secrets import SecretBox
from deepforge.connections.store import Connections
from deepforge.documents.port import DocumentStore
from deepforge.errors import ConfigError, NotFound, Unavailable
from deepforge.settings import declared
from deepforge.storage.port import StorageAdapter

NAMES = {
    "s3.example.org": ["52.219.170.1", "2600:1f18::1"],
    "inside.example.org": ["10.1.2.3"],
    "half.example.org": ["52.219.170.1", "169.254.169.254"],
    "minio.lab": ["10.1.2.3"],
    "bucket.minio.lab": ["10.1.2.3"],
    "notminio.lab": ["10.1.2.3"],
}


async def names(host: str) -> Sequence[Address]:
    """A name service that answers the same everywhere; numbers stand for themselves."""
    try:
        return [ip_address(host)]
    except ValueError:
        return [ip_address(one) for one in NAMES.get(host, [])]


async def check(
    url: str, allowed: AllowedEndpoints | None = None, *, opening: bool = False
) -> None:
    await check_endpoints(
        {"endpoint_url": url}, allowed or AllowedEndpoints(), opening=opening, resolve=names
    )


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("52.219.170.1", True),
        ("2600:1f18::1", True),
        ("64:ff9b::34db:aa01", True),
        *[
            (one, False)
            for one in (
                "10.0.0.1", "172.16.0.1", "192.168.1.1", "127.0.0.1", "127.8.9.1", "0.0.0.0",
                "169.254.169.254", "100.100.100.200", "224.0.0.1", "255.255.255.255",
                "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1",
                "::10.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::",
            )
        ],
    ],
)  # fmt: skip
def test_only_addresses_on_the_internet_are_public(address: str, public: bool) -> None:
    assert is_public(ip_address(address)) == public


@pytest.mark.parametrize(
    "url",
    [
        "https://10.0.0.1:9000",
        "https://[::1]:8333",
        "http://169.254.169.254/latest",
        "https://inside.example.org",
        "https://inside.example.org.",
        "https://half.example.org",
        "http://s3.example.org",
    ],
)
@pytest.mark.parametrize("opening", [False, True])
async def test_an_endpoint_in_a_private_network_or_in_the_clear_is_refused(
    url: str, opening: bool
) -> None:
    with pytest.raises(ConfigError, match="only https endpoints on the internet") as caught:
        await check(url, opening=opening)

    assert set(caught.value.fields) == {"endpoint_url"}
    assert f"{ALLOW_VARIABLE}=" in (caught.value.hint or "")


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "localhost", "LOCALHOST"])
async def test_other_spellings_of_this_machine_are_understood(host: str) -> None:
    with pytest.raises(ConfigError, match="private network"):
        await check_endpoints({"endpoint_url": f"https://{host}"}, AllowedEndpoints(), opening=True)


async def test_the_refusal_tells_no_address_of_the_network() -> None:
    with pytest.raises(ConfigError) as caught:
        await check("https://inside.example.org")

    assert "10.1.2.3" not in str(caught.value)
    assert caught.value.hint is not None
    assert caught.value.hint.endswith(f"{ALLOW_VARIABLE}=inside.example.org")


async def test_an_https_endpoint_on_the_internet_is_fine() -> None:
    await check("https://s3.example.org", opening=True)


async def test_a_name_that_leads_nowhere_may_be_kept_but_not_opened() -> None:
    await check("https://nowhere.example.org")

    with pytest.raises(Unavailable, match="nowhere"):
        await check("https://nowhere.example.org", opening=True)
    assert await resolved("nowhere.invalid") == []


@pytest.mark.parametrize(
    ("allowed", "url"),
    [
        ("1", "http://10.1.2.3:9000"),
        ("minio.lab", "http://minio.lab:9000"),
        ("Minio.Lab", "https://bucket.minio.lab"),
        ("10.0.0.0/8", "http://minio.lab"),
        ("other.lab, 10.1.2.3 ,", "http://10.1.2.3"),
        ("10.1.2.3/8", "http://10.200.0.1"),
        ("fd00::/8", "http://[fd00::5]:9000"),
        ("[fd00::5]", "http://[fd00::5]:9000"),
        ("s3.example.org", "http://s3.example.org"),
    ],
)
async def test_the_operator_may_allow_hosts_and_networks(allowed: str, url: str) -> None:
    await check(url, read_allowed({ALLOW_VARIABLE: allowed}), opening=True)


@pytest.mark.parametrize(
    ("allowed", "url"),
    [
        ("", "https://minio.lab"),
        ("0", "https://minio.lab"),
        ("minio.lab", "https://notminio.lab"),
        ("bucket.minio.lab", "https://minio.lab"),
        ("10.1.0.0/24", "https://minio.lab"),
        ("52.0.0.0/8", "https://half.example.org"),
    ],
)
async def test_nothing_else_is_allowed_with_them(allowed: str, url: str) -> None:
    with pytest.raises(ConfigError):
        await check(url, read_allowed({ALLOW_VARIABLE: allowed}), opening=True)


@pytest.mark.parametrize("text", ["http://minio.lab", "minio.lab:9000", "10.0.0.0/33", "a b", "7"])
def test_what_is_no_host_and_no_network_is_refused_at_once(text: str) -> None:
    with pytest.raises(ConfigError, match="neither a host nor a network"):
        read_allowed({ALLOW_VARIABLE: text})


async def test_where_everything_is_allowed_no_name_is_looked_up() -> None:
    async def never(host: str) -> Sequence[Address]:
        raise AssertionError(host)

    await check_endpoints({"a": "http://minio.lab"}, EVERYTHING, opening=True, resolve=never)


S3 = {
    "endpoint_url": "http://127.0.0.1:9000",
    "bucket": "lab-data",
    "access_key_id": "a",
    "secret_access_key": "b",
}


class Rig:
    """Connections and their opener of a server that others can reach."""

    def __init__(self, documents: DocumentStore, box: SecretBox, folder: Path) -> None:
        self._documents, self._box, self._folder = documents, box, folder

    def connections(
        self, allowed: AllowedEndpoints | None = None, environ: Mapping[str, str] | None = None
    ) -> Connections:
        return Connections(
            self._documents,
            self._box,
            home=self._folder,
            environ=environ or {},
            endpoints=allowed or AllowedEndpoints(),
        )

    async def open(
        self,
        connections: Connections,
        name: str,
        owner: str = "ada",
        port: plugins.Port = "storage",
    ) -> None:
        async with Opener(connections, computes=self._folder / "computes") as opener:
            if port == "storage":
                await opener.storage(name, owner=owner)
            else:
                await opener.compute(name, owner=owner)


@pytest.fixture
def rig(documents: DocumentStore, box: SecretBox, tmp_path: Path) -> Rig:
    return Rig(documents, box, tmp_path)


@pytest.mark.parametrize("field", ["endpoint_url", "public_endpoint_url"])
async def test_a_private_endpoint_is_not_kept(rig: Rig, field: str) -> None:
    connections = rig.connections()
    values = {**S3, "endpoint_url": "https://52.219.170.1", field: "https://192.168.1.5"}

    with pytest.raises(ConfigError) as caught:
        await connections.add("storage", "lab", "s3", values, owner="ada")

    assert set(caught.value.fields) == {field}
    with pytest.raises(NotFound):
        await connections.get("storage", "lab", owner="ada")


async def test_one_that_was_allowed_once_is_not_opened_when_it_no_longer_is(rig: Rig) -> None:
    """So is a name that leads into the network by now: it is looked up again."""
    before = rig.connections(read_allowed({ALLOW_VARIABLE: "127.0.0.0/8"}))
    await before.add("storage", "lab", "s3", S3, owner="ada")
    await rig.open(before, "lab")

    with pytest.raises(ConfigError, match="private network"):
        await rig.open(rig.connections(), "lab")


async def test_a_compute_calls_no_private_endpoint_either(rig: Rig) -> None:
    values = {"site": "https://127.0.0.1", "username": "ada"}
    with pytest.raises(ConfigError) as caught:
        await rig.connections().add("compute", "sci", "sciserver", values, owner="ada")
    assert set(caught.value.fields) == {"site"}

    before = rig.connections(read_allowed({ALLOW_VARIABLE: "127.0.0.0/8"}))
    await before.add("compute", "sci", "sciserver", values, owner="ada")
    await rig.open(before, "sci", port="compute")

    with pytest.raises(ConfigError, match="private network"):
        await rig.open(rig.connections(), "sci", port="compute")


async def test_what_the_environment_says_is_the_operators_own_word(rig: Rig) -> None:
    fields = {f"DEEPFORGE_STORAGE_LAB__{name.upper()}": value for name, value in S3.items()}
    whole = rig.connections(environ={**fields, "DEEPFORGE_STORAGE_LAB__ADAPTER": "s3"})
    await rig.open(whole, "lab")

    values = {**S3, "endpoint_url": "https://52.219.170.1"}
    for owner in ("local", "ada"):
        await rig.connections().add("storage", "mine", "s3", values, owner=owner)
    changed = rig.connections(
        environ={"DEEPFORGE_STORAGE_MINE__ENDPOINT_URL": "http://127.0.0.1:9000"}
    )
    await rig.open(changed, "mine", "local")
    await rig.open(changed, "mine", "ada")  # whose endpoint the environment does not change


def test_an_adapter_with_an_address_among_its_settings_says_what_it_calls() -> None:
    """Or the check above would pass it by."""
    ports: tuple[plugins.Port, ...] = ("storage", "compute")
    silent = [
        info.id
        for port in ports
        for info in plugins.adapters(port)
        if isinstance(info, plugins.AdapterInfo)
        and any(one.name.endswith(("url", "site")) for one in declared(info.settings_class()))
        and info.adapter_class().endpoints in (StorageAdapter.endpoints, ComputeAdapter.endpoints)
    ]

    assert silent == []
