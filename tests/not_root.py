"""Being somebody whom the modes of files stop: they do not stop root."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOBODY = 65534


@contextmanager
def own_folder() -> Iterator[Path]:
    """A temporary folder of the user that `not_root` is; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp())
    if os.geteuid() == 0:
        os.chown(folder, _NOBODY, -1)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def not_root() -> Iterator[None]:
    """Give up root's right to read and write everything for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
