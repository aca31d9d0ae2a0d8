"""Signed URLs for S3: AWS signature version 4 in the query, with the standard library alone.

`presign` makes a URL that allows one request until it expires, to whoever holds it. obstore signs a
method and a path only; parts of an upload need their number and the upload's id signed as well.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

LONGEST_S = 7 * 24 * 3600
"""No signature of version 4 may live longer."""


@dataclass(frozen=True)
class Credentials:
    """Whose signature it is. `repr` shows no secret."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None

    def __repr__(self) -> str:
        return f"Credentials({self.access_key_id!r}, …)"


@dataclass(frozen=True)
class Place:
    """A bucket at an endpoint, written as a path (`https://host/bucket/key`) or as a host
    (`https://bucket.host/key`)."""

    endpoint_url: str
    bucket: str
    path_style: bool = True

    @property
    def origin(self) -> str:
        """Scheme and host, with the port unless it is the scheme's own."""
        scheme, host = self._scheme_and_host()
        return f"{scheme}://{host}"

    @property
    def host(self) -> str:
        return self._scheme_and_host()[1]

    def path(self, key: str | None) -> str:
        """The path of an object, or of the bucket itself, encoded as S3 signs it."""
        start = urlsplit(self.endpoint_url).path.rstrip("/")
        if self.path_style:
            start += "/" + quote(self.bucket, safe="")
        return start + ("" if key is None else "/" + quote(key, safe="/~")) or "/"

    def _scheme_and_host(self) -> tuple[str, str]:
        parts = urlsplit(self.endpoint_url)
        host = parts.netloc.rpartition("@")[2].lower()
        own_port = {"https": ":443", "http": ":80"}[parts.scheme]
        host = host.removesuffix(
            own_port
        )  # clients leave it out of the Host header, which is signed
        return parts.scheme, host if self.path_style else f"{self.bucket}.{host}"


def presign(
    method: str,
    place: Place,
    key: str | None,
    *,
    credentials: Credentials,
    region: str,
    expires_s: float,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    now: datetime | None = None,
) -> str:
    """Return a URL for one kind of request on an object, or on the bucket when `key` is None.

    `query` is signed with the rest; `headers` must be sent exactly as given. The payload is not
    signed. Valid for `expires_s` from `now`, at least a second and at most `LONGEST_S`.
    """
    moment = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    signed = {"host": place.host} | {
        name.lower(): " ".join(value.split()) for name, value in (headers or {}).items()
    }
    names = ";".join(sorted(signed))
    asked = {
        **(query or {}),
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{credentials.access_key_id}/{scope}",
        "X-Amz-Date": moment,
        "X-Amz-Expires": str(max(1, min(LONGEST_S, int(expires_s)))),
        "X-Amz-SignedHeaders": names,
    }
    if credentials.session_token:
        asked["X-Amz-Security-Token"] = credentials.session_token
    encoded = sorted((quote(name, safe="~"), quote(text, safe="~")) for name, text in asked.items())
    query_text = "&".join(f"{name}={text}" for name, text in encoded)
    path = place.path(key)
    header_text = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
    request = "\n".join((method, path, query_text, header_text, names, "UNSIGNED-PAYLOAD"))
    to_sign = "\n".join(("AWS4-HMAC-SHA256", moment, scope, _sha256(request)))
    signature = hmac.new(
        _signing_key(credentials.secret_access_key, moment[:8], region),
        to_sign.encode(),
        hashlib.sha256,
    ).hexdigest()
    return f"{place.origin}{path}?{query_text}&X-Amz-Signature={signature}"


def _signing_key(secret: str, day: str, region: str) -> bytes:
    key = ("AWS4" + secret).encode()
    for text in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return key


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
