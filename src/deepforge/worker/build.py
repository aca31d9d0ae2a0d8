"""Making the worker's archive: one file that any `python3` from 3.8 on can run."""

from __future__ import annotations

import functools
import io
import zipfile

from deepforge.runner.build import runner_archive
from deepforge.runner.support import VERSION, runner_files

MODULES = (
    "asker",
    "ends",
    "folder",
    "launcher",
    "loop",
    "machine",
    "options",
    "output",
    "patterns",
    "prepare",
    "results",
    "runners",
    "say",
    "server",
    "service",
    "slots",
    "source",
    "starter",
    "tender",
    "trouble",
    "__init__",
    "__main__",
)

_START = """\
# DeepForge worker %s: python3 worker.pyz --url URL --token -
import sys

from deepforge.worker.__main__ import main

sys.exit(main(sys.argv[1:]))
"""


@functools.cache
def worker_archive() -> bytes:
    """Return the bytes of `worker.pyz`, the same ones for the same sources. The runner is in it."""
    loader = __spec__.loader
    here = __file__.rpartition("/")[0]
    files = dict(runner_files())
    for name in MODULES:
        files["deepforge/worker/%s.py" % name] = loader.get_data("%s/%s.py" % (here, name))  # type: ignore[union-attr]
    files["deepforge/worker/runner.pyz"] = runner_archive()
    files["__main__.py"] = (_START % VERSION).encode("utf-8")
    buffer = io.BytesIO()
    buffer.write(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path, data in sorted(files.items()):
            entry = zipfile.ZipInfo(path, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return buffer.getvalue()
