"""Web addresses: taking them apart, and the proxies that a machine names for them."""

from __future__ import annotations

from typing import Optional, Tuple

Address = Tuple[str, str, int]  # scheme, host, port


class WireError(Exception):
    """The exchange broke. With `transient`, trying again may help.

    `refused`: nobody listens there, so nothing can have happened.
    """

    def __init__(self, message: str, *, transient: bool = True, refused: bool = False) -> None:
        super().__init__(message)
        self.transient = transient
        self.refused = refused


def split_url(url: str) -> Tuple[Address, str]:
    """Split into `(scheme, host, port)` and the target. Raises `WireError` for anything odd."""
    scheme, mark, rest = url.partition("://")
    scheme = scheme.lower()
    if not mark or scheme not in ("http", "https"):
        raise WireError("not an HTTP address: %.200r" % url, transient=False)
    place, slash, path = rest.partition("/")
    host, colon, port = place.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = place, "443" if scheme == "https" else "80"
    target = slash + path.partition("#")[0] if slash else "/"
    plain = target.isascii() and target.isprintable() and " " not in target
    if not host or "@" in host or not port.isdigit() or not plain:
        raise WireError("not an address that can be used: %.200r" % url, transient=False)
    return (scheme, host.strip("[]"), int(port)), target


def host_text(address: Address) -> str:
    """The host as requests name it: without the port that its scheme implies."""
    scheme, host, port = address
    name = "[%s]" % host if ":" in host else host
    return name if port == (443 if scheme == "https" else 80) else "%s:%d" % (name, port)


def proxy_for(address: Address) -> Optional[Tuple[Tuple[str, int], bytes]]:
    """The proxy that this machine's environment names for a host, and a header for it."""
    from base64 import b64encode
    from urllib.parse import unquote, urlsplit
    from urllib.request import getproxies, proxy_bypass

    scheme, host, _ = address
    url = getproxies().get(scheme)
    if not url or proxy_bypass(host):
        return None
    parts = urlsplit(url if "://" in url else "http://" + url)
    if not parts.hostname:
        raise WireError("the proxy %.80r of this machine is not an address" % url, transient=False)
    header = b""
    if parts.username:
        pair = "%s:%s" % (unquote(parts.username), unquote(parts.password or ""))
        header = b"Proxy-Authorization: Basic %s\r\n" % b64encode(pair.encode())
    return (parts.hostname, parts.port or 8080), header
