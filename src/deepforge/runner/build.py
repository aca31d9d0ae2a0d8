"""Making the runner's archive: one file that any `python3` from 3.8 on can run."""

from __future__ import annotations

import functools
import io
import zipfile

from deepforge.runner.support import runner_digest, runner_files

_START = """\
# DeepForge runner %s: python3 runner.pyz job.json
import os, sys

# A copy in the cache starts quicker than this archive: Python keeps its byte code there.
cache = os.environ.get("DEEPFORGE_RUNNER_CACHE")
copy = os.path.join(cache, "runner", "%s") if cache else ""
if copy and os.path.isdir(copy):
    sys.dont_write_bytecode = False
    sys.path.insert(0, copy)

from deepforge.runner.__main__ import main_and_leave

main_and_leave(sys.argv[1:])
"""


@functools.cache
def runner_archive() -> bytes:
    """Return the bytes of `runner.pyz`, the same ones for the same sources."""
    files = dict(runner_files())
    start = _START % (files["deepforge/__init__.py"].decode().split('"')[1], runner_digest())
    files["__main__.py"] = start.encode("utf-8")
    buffer = io.BytesIO()
    buffer.write(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path, data in sorted(files.items()):
            entry = zipfile.ZipInfo(path, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return buffer.getvalue()
