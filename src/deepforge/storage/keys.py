"""What a key may look like, checked once for all storages."""

from __future__ import annotations

import unicodedata

from deepforge.errors import InvalidRequest

LONGEST_KEY_BYTES = 900


def check_key(key: str) -> str:
    """Return the key if every storage can keep it, else raise `InvalidRequest`.

    A key is relative, `/`-separated, NFC, 1 to 900 bytes of UTF-8, without empty, `.` or `..` parts,
    control characters or backslashes.
    """
    problem = _problem(key) or _problem_of_parts(key.split("/"))
    if problem is not None:
        raise InvalidRequest(
            f"{_shown(key)} is not a key for a storage: {problem}",
            hint="a key looks like data/2026/train.csv",
            part="key",
        )
    return key


def is_key(key: str) -> bool:
    """Whether `check_key` would accept it."""
    return _problem(key) is None and _problem_of_parts(key.split("/")) is None


def check_prefix(prefix: str) -> str:
    """Return the prefix if keys can begin with it, else raise `InvalidRequest`. Empty is fine."""
    problem = prefix and (_problem(prefix) or _problem_of_parts(prefix.split("/")[:-1]))
    if problem:
        raise InvalidRequest(f"no key begins with {_shown(prefix)}: {problem}", part="prefix")
    return prefix


def _problem(text: str) -> str | None:
    if not text:
        return "it is empty"
    if text.isascii() and text.isprintable() and "\\" not in text:  # nearly all of them
        return None if len(text) <= LONGEST_KEY_BYTES else _too_long(len(text))
    for letter in text:
        if letter in "\\\ufffe\uffff" or unicodedata.category(letter) in ("Cc", "Cs"):
            # XML cannot carry most of these, and some servers read a backslash as a slash
            return f"it contains {letter!r}"
    if not unicodedata.is_normalized("NFC", text):
        return "it is not in Unicode's composed form NFC"
    size = len(text.encode())
    return None if size <= LONGEST_KEY_BYTES else _too_long(size)


def _problem_of_parts(parts: list[str]) -> str | None:
    for part in parts:
        if not part:
            return "it has an empty part (a slash at an end, or two in a row)"
        if part in (".", ".."):
            return f"it has the part {part!r}"
    return None


def _too_long(size_bytes: int) -> str:
    return f"it has {size_bytes} bytes; the limit is {LONGEST_KEY_BYTES}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "…")
