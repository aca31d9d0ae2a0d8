"""What a user keeps: projects and artifacts, and the names they may have."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deepforge.errors import InvalidRequest
from deepforge.storage.port import ObjectRef

MAX_NAME_LENGTH = 100

_FORBIDDEN = "/\\@:"  # they separate the parts of PROJECT/NAME@version and of FOLDER:pipeline
_JOINERS = "\u200c\u200d"  # not printable by themselves, but whole scripts and emoji need them


@dataclass(frozen=True)
class Project:
    """A git repository of operations and pipelines. `name` is unique for its owner."""

    id: str
    name: str
    owner: str
    created_at: str


@dataclass(frozen=True)
class Artifact:
    """A named, versioned, immutable reference to stored data. Never a secret.

    `project` is None for an artifact that every project shares. Versions of one name count from 1.
    `type` is `module.Class` of the value, `format` how its bytes are written. `provenance` says what
    it came from: execution, job, commit, attributes, inputs.
    """

    id: str
    project: str | None
    name: str
    version: int
    type: str
    format: str
    ref: ObjectRef
    owner: str
    created_at: str
    provenance: Mapping[str, Any] = field(default_factory=dict)


def checked_name(text: str, what: str) -> str:
    """Return the name of a project or artifact in Unicode's composed form (NFC).

    A name has 1 to 100 printable characters. Spaces within, quotes and emoji are fine; `/ \\ @ :`, a
    space at either end, `.` and `..` are not. Raises `InvalidRequest`, which calls it `what`.
    """
    name = unicodedata.normalize("NFC", text)
    problem = _problem(name)
    if problem is not None:
        shown = repr(name if len(name) <= MAX_NAME_LENGTH else name[:40] + "…")
        raise InvalidRequest(
            f"{shown} cannot be the name of {what}: {problem}",
            part="name",
            hint=f"1 to {MAX_NAME_LENGTH} printable characters other than {' '.join(_FORBIDDEN)}",
        )
    return name


def _problem(name: str) -> str | None:
    if not name:
        return "it is empty"
    if len(name) > MAX_NAME_LENGTH:
        return f"it has {len(name)} characters"
    if name in (".", ".."):
        return "it means a folder"
    if name[0].isspace() or name[-1].isspace():
        return "it begins or ends with a space"
    for letter in name:
        if letter in _FORBIDDEN:
            return f"it contains {letter!r}"
        if not letter.isprintable() and letter not in _JOINERS:
            return f"it contains the unprintable character U+{ord(letter):04X}"
    return None
