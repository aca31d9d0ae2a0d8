"""The environment a job on this machine starts with: what a program needs, nothing we know."""

from __future__ import annotations

import os
from collections.abc import Mapping

_KEPT = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the few variables user code may see. Everything else, secrets first, stays here."""
    kept = {name: environ[name] for name in _KEPT if name in environ}
    kept.setdefault("PATH", os.defpath)
    return kept
