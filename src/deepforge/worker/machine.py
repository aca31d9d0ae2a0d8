"""What this machine has for jobs, unless its owner says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Mapping, Tuple

_GPUS_WITHIN_S = 20.0


def count_cpus() -> int:
    """The processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def memory_bytes() -> int:
    """The memory of the machine, or of the control group we live in; 0 if nobody knows."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path) as file:
                total = min(total, int(file.read()))
        except (OSError, ValueError):
            continue  # "max", or no such file
    return total


def find_gpus(environ: Mapping[str, str]) -> Tuple[str, ...]:
    """How CUDA calls the graphics cards that may be used here; none where nvidia-smi is missing."""
    given = environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return tuple(one.strip() for one in given.split(",") if one.strip() not in ("", "-1"))
    try:
        told = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_GPUS_WITHIN_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line for line in told.decode("ascii", "replace").split() if line.isdigit())


_KEPT = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)


def clean_environment(environ: Mapping[str, str]) -> "dict[str, str]":
    """Return the few variables that jobs may see: what programs need, and the way to the network."""
    kept = {name: environ[name] for name in _KEPT if name in environ}
    kept.setdefault("PATH", os.defpath)
    return kept


def keep_secrets_in_memory() -> None:
    """Keep this process's memory and first environment from other processes of the user (Linux)."""
    if sys.platform.startswith("linux"):
        try:
            import ctypes

            ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
        except (ImportError, OSError, AttributeError):
            pass  # jobs run as the same user: this was only one more wall
