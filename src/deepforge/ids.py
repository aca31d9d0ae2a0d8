"""Ids, digests, the clock: the three things every part must spell the same way."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: nothing looks like another
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def new_id() -> str:
    """Return 20 characters `[0-9a-z]`: milliseconds since 1970 (10), then 50 random bits (10).

    Ids sort by the time they were made (to the millisecond).
    """
    number = (int(time.time() * 1000) << 50) | secrets.randbits(50)
    letters = []
    for _ in range(20):
        number, rest = divmod(number, 32)
        letters.append(_ALPHABET[rest])
    return "".join(reversed(letters))


def utc_now() -> str:
    """Return the time in UTC as RFC 3339 text with microseconds, e.g. `2026-11-23T04:05:06.000007Z`.

    Such texts sort as times do.
    """
    return timestamp(time.time())


def timestamp(epoch_s: float) -> str:
    """Spell seconds since 1970 the way `utc_now` does."""
    text = datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="microseconds")
    return text.replace("+00:00", "Z")


def epoch_s(text: str) -> float:
    """Read what `utc_now` wrote. Raises `ValueError` for anything else."""
    return datetime.fromisoformat(text).timestamp()


def digest(data: bytes) -> str:
    """Return `sha256:<64 hexadecimal digits>` of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def slug(name: str, *, taken: Iterable[str] = (), longest: int = 32) -> str:
    """Turn any name into `[a-z0-9-]{1,longest}` that is not in `taken`, still telling the name.

    `outer/Train` becomes `outer-train`; a name that is taken gets `-2`, `-3`, …
    """
    ascii_text = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    base = re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-")[:longest].rstrip("-") or "job"
    used = set(taken)
    candidate, number = base, 2
    while candidate in used:
        ending = f"-{number}"
        candidate = base[: longest - len(ending)].rstrip("-") + ending
        number += 1
    return candidate
