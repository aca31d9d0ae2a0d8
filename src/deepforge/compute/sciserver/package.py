"""What is handed over to SciServer: one archive with the request in it, and the command that runs it."""

from __future__ import annotations

import functools
import io
import json
import shlex
import zipfile
from pathlib import Path

from deepforge.compute.port import JobRequest

WORKSPACE = "/home/idies/workspace"
"""Where a container sees the volumes, by the same paths as the file service."""


def pack(request: JobRequest) -> bytes:
    """Return the archive that any `python3` runs; the same bytes for the same request.

    Files go by numbers in it: their names may be anything.
    """
    files = sorted(request.files.items())
    told = {
        "command": request.command,
        "walltime_s": request.resources.walltime_s,
        "files": [[name, f"file-{number}"] for number, (name, _) in enumerate(files)],
    }
    members = {"__main__.py": _launcher(), "request.json": json.dumps(told).encode()}
    members |= {f"file-{number}": data for number, (_, data) in enumerate(files)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), data)
    return buffer.getvalue()


def command_line(python: str, archive: str) -> str:
    """The shell's words for running an archive, given its path on the file service."""
    return f"{shlex.quote(python)} {shlex.quote(f'{WORKSPACE}/{archive}')}"


@functools.cache
def _launcher() -> bytes:
    return Path(__file__).with_name("launch.py").read_bytes()
