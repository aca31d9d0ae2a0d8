"""The runner's own files, wherever it was started from: a zip file, a folder, a fork."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Dict, Optional

import deepforge
from deepforge.runner.files import beside

VERSION = str(deepforge.__version__)

MODULES = (
    "addresses",
    "attempt",
    "cache",
    "call",
    "channel",
    "code",
    "crew",
    "failures",
    "fetch",
    "files",
    "helper",
    "live",
    "processes",
    "protocol",
    "sink",
    "spool",
    "store",
    "supervise",
    "support",
    "warm",
    "watch",
    "wire",
    "__init__",
    "__main__",
)

_files: Optional[Dict[str, bytes]] = None
_digest = ""


def runner_files() -> Dict[str, bytes]:
    """All files of the runner by their path in its archive. Read once in a process."""
    global _files
    if _files is None:
        loader: Any = __spec__.loader
        here = os.path.dirname(__file__)  # not made absolute: within a zip file this is its name
        above = os.path.dirname(here)
        found = {"deepforge/__init__.py": b'__version__ = "%s"\n' % VERSION.encode("ascii")}
        for name in MODULES:
            path = os.path.join(here, name + ".py")
            found["deepforge/runner/%s.py" % name] = loader.get_data(path)
        found["deepforge/serialization.py"] = loader.get_data(
            os.path.join(above, "serialization.py")
        )
        _files = found
    return _files


def runner_digest() -> str:
    """64 digits that tell this runner from one with any other byte."""
    global _digest
    if not _digest:
        sha = hashlib.sha256()
        for path, data in sorted(runner_files().items()):
            sha.update(b"%s\0%d\0%s" % (path.encode("ascii"), len(data), data))
        _digest = sha.hexdigest()
    return _digest


def support_folder(parent: str) -> str:
    """Return a folder within `parent` that an interpreter can import the runner from.

    A real folder, since Python keeps byte code beside files but not in zip files.
    """
    target = os.path.join(parent, runner_digest())
    if os.path.isdir(target):
        return target
    temporary = beside(target)
    for path, data in runner_files().items():
        full = os.path.join(temporary, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as file:
            file.write(data)
    try:
        os.rename(temporary, target)
    except OSError:
        if not os.path.isdir(target):  # else another runner was quicker
            raise
        import shutil

        shutil.rmtree(temporary)
    return target
