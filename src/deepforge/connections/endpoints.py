"""Which endpoints this server calls for its users: a storage is no way into the operator's network.

A server for one local user calls whatever that user names. One that others can reach calls https
endpoints on the internet only, and beyond that what the operator allows in
`DEEPFORGE_ALLOW_PRIVATE_ENDPOINTS`. Names are resolved when a storage is added, and again whenever it
is opened.

A name may lead elsewhere between our look and the connection, and while a storage stays open; a
service may redirect. That is why https is asked for: whatever answers must hold a certificate for the
name, and no client of ours follows a redirect from https to http. What is left open: a redirect to an
https service of the network whose certificate this machine trusts. A host that the operator allowed is
trusted in all of this. Where that is not enough, a firewall for the server's process is.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import urlsplit

from deepforge.errors import ConfigError, Unavailable

ALLOW_VARIABLE = "DEEPFORGE_ALLOW_PRIVATE_ENDPOINTS"
RESOLVE_WITHIN_S = 10.0

Address = IPv4Address | IPv6Address
Resolve = Callable[[str], Awaitable[Sequence[Address]]]

_NAT64 = ip_network("64:ff9b::/96")
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")


@dataclass(frozen=True)
class AllowedEndpoints:
    """What may be called besides https endpoints on the internet.

    A host stands for the names below it too: `minio.lab` for `bucket.minio.lab`.
    """

    everything: bool = False
    hosts: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    def has_host(self, host: str) -> bool:
        return any(host == one or host.endswith(f".{one}") for one in self.hosts)

    def has_address(self, address: Address) -> bool:
        return any(address in network for network in self.networks)


EVERYTHING = AllowedEndpoints(everything=True)


def read_allowed(environ: Mapping[str, str]) -> AllowedEndpoints:
    """Read what the operator allows: `1`, or hosts, addresses and networks between commas.

    Raises `ConfigError` for anything else: what was meant to be allowed would be refused later.
    """
    hosts: set[str] = set()
    networks: list[IPv4Network | IPv6Network] = []
    text = environ.get(ALLOW_VARIABLE, "").strip().lower()
    if text in ("1", "true", "yes"):
        return EVERYTHING
    if text in ("0", "false", "no"):
        return AllowedEndpoints()
    for part in filter(None, (one.strip() for one in text.split(","))):
        try:
            networks.append(ip_network(part.strip("[]"), strict=False))
        except ValueError as error:
            if _HOST.fullmatch(part) is None or not re.search("[a-z]", part):
                raise ConfigError(
                    f"{ALLOW_VARIABLE}: {part!r} is neither a host nor a network",
                    fields={ALLOW_VARIABLE: "is not a list of hosts and networks"},
                    hint="such as minio.lab,10.20.0.0/16, without http:// and ports; "
                    "or 1 to allow every endpoint",
                ) from error
            hosts.add(part)
    return AllowedEndpoints(hosts=frozenset(hosts), networks=tuple(networks))


async def resolved(host: str) -> Sequence[Address]:
    """Every address that a name leads to now; none if it leads nowhere. Numbers need no service."""
    try:
        async with asyncio.timeout(RESOLVE_WITHIN_S):
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        return []
    return [ip_address(str(one[4][0]).partition("%")[0]) for one in found]


async def check_endpoints(
    endpoints: Mapping[str, str],
    allowed: AllowedEndpoints,
    *,
    opening: bool,
    resolve: Resolve = resolved,
) -> None:
    """Return if all these URLs, by the setting each comes from, may be called.

    Raises `ConfigError` naming the settings that may not be used so, and with `opening` also
    `Unavailable` for a name that leads nowhere. Errors tell no address that a name leads to.
    """
    problems: dict[str, str] = {}
    refused: list[str] = []
    if allowed.everything:
        return
    for field, url in endpoints.items():
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
        if allowed.has_host(host):
            continue
        addresses = await resolve(host)
        others = [one for one in addresses if not allowed.has_address(one)]
        if addresses and not others:
            continue
        if not all(map(is_public, others)):
            problems[field] = f"lies in a private network: {host}"
        elif parts.scheme != "https":
            problems[field] = f"is not https: {url}"
        elif opening and not addresses:
            raise Unavailable(f"{field}: the name {host} leads nowhere", hint="check the name")
        if field in problems:
            refused.append(host)
    if problems:
        listing = "; ".join(f"{field} {problem}" for field, problem in problems.items())
        raise ConfigError(
            f"this server calls only https endpoints on the internet: {listing}",
            fields=problems,
            hint=f"its operator can allow more: start it with {ALLOW_VARIABLE}="
            f"{','.join(dict.fromkeys(refused))}",
        )


def is_public(address: Address) -> bool:
    """Whether an address lies on the internet: not private, link-local, loopback or the like."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.teredo is not None or address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved
