"""How the Files service lists a folder: its shape depends on the level that is asked for."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def listed(folder: Path, level: int, pattern: str, name: str) -> dict[str, Any]:
    """The folder as JSON. `pattern` is a glob for the absolute path; empty takes everything."""
    wanted = re.compile(_as_expression(pattern)) if pattern else None
    if level == 1:
        return _dated(folder, name)
    if level == 2:
        return {
            **_dated(folder, name),
            "folders": [
                _dated(one, one.name) for one in _below(folder) if one.is_dir() and _is(one, wanted)
            ],
            "files": [_file(one) for one in _below(folder) if _is_file(one) and _is(one, wanted)],
        }
    return _tree(folder, level, wanted, name)


def _tree(folder: Path, level: int, wanted: re.Pattern[str] | None, name: str) -> dict[str, Any]:
    """An empty array is left out."""
    tree = _dated(folder, name)
    if level == 1:
        return tree
    folders = [
        _tree(one, level - 1, wanted, one.name)
        for one in _below(folder)
        if one.is_dir() and not one.is_symlink()
    ]
    files = [_file(one) for one in _below(folder) if _is_file(one) and _is(one, wanted)]
    return tree | ({"folders": folders} if folders else {}) | ({"files": files} if files else {})


def _below(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def _is_file(path: Path) -> bool:
    return not path.is_dir()


def _is(path: Path, wanted: re.Pattern[str] | None) -> bool:
    return wanted is None or wanted.fullmatch(str(path)) is not None


def _file(path: Path) -> dict[str, Any]:
    return {"size": path.lstat().st_size, **_dated(path, path.name)}


def _dated(path: Path, name: str) -> dict[str, Any]:
    status = os.lstat(path)
    return {
        "name": name,
        "lastModified": _iso(status.st_mtime_ns),
        "creationTime": _iso(status.st_ctime_ns),
    }


def _iso(at_ns: int) -> str:
    """Up to nine digits, and none that says nothing."""
    seconds, rest = divmod(at_ns, 1_000_000_000)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f"{rest:09d}".rstrip("0")
    return f"{whole}.{fraction}Z" if fraction else f"{whole}Z"


def _as_expression(pattern: str) -> str:
    """A glob where two stars cross slashes and one does not."""
    spelled = ""
    index = 0
    while index < len(pattern):
        if pattern.startswith("**", index):
            spelled += ".*"
            index += 2
            continue
        character = pattern[index]
        spelled += {"*": "[^/]*", "?": "[^/]"}.get(character, re.escape(character))
        index += 1
    return spelled
