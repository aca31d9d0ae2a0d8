"""Names for keys that cannot be the path of a file: such objects lie aside, under these."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from deepforge.storage.keys import is_key

_PLAIN = re.compile(r"[a-z0-9_./-]*")
_PIECE = 110  # characters of an escaped key in one name


def escape(key: str) -> str:
    """A relative path of short plain names; `+` ends a folder's, `=` the file's own."""
    if _PLAIN.fullmatch(key):  # as most are: quicker, and the same
        text = key.replace("/", "%2f").replace(".", "%2e")
    else:
        text = quote(key, safe="").replace(".", "%2E").replace("~", "%7E")
        text = re.sub("%..|[A-Z]", _without_capitals, text)
    pieces = [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]
    return "/".join([*(piece + "+" for piece in pieces[:-1]), pieces[-1] + "="])


def _without_capitals(found: re.Match[str]) -> str:
    lower = found[0].lower()
    return lower if lower.startswith("%") else "~" + lower


def unescape(path: str) -> str | None:
    """The key of an escaped path, or None for a file that is not ours."""
    if not path.endswith("="):
        return None
    text = re.sub("~([a-z])", lambda letter: letter[1].upper(), path[:-1].replace("+/", ""))
    key = unquote(text, errors="surrogateescape")
    return key if is_key(key) and escape(key) == path else None
