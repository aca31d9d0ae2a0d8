"""This machine and its processes, named so that another process can tell them apart."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
import time
from functools import cache
from pathlib import Path


@cache
def machine_space() -> str:
    """Return `host:<16 hexadecimal digits>`: the same for every process on this machine.

    It is a hash of the system's machine id, which itself should not be shown around. Where there is
    none, a random one is kept in the user's home folder.
    """
    text = _system_id() or _kept_id()
    return "host:" + hashlib.sha256(f"deepforge {text}".encode()).hexdigest()[:16]


@cache
def process_name() -> str:
    """Return a name for this process that no other process of this machine has, or had."""
    return _named(os.getpid())


def process_is_alive(name: str) -> bool:
    """Whether the process that `process_name` named (on this machine) still runs.

    When it cannot be told, the answer is yes.
    """
    pid_text = name.partition(".")[0]
    if not pid_text.isdecimal():
        return True
    try:
        os.kill(int(pid_text), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, as somebody else
        pass
    return _named(int(pid_text)) == name


def process_started(pid: int) -> str:
    """Return when a process began, as text to compare: the boot's id and clock ticks since boot.

    Raises `ProcessLookupError` when there is no such process, or it is a zombie. Where the system
    does not tell (no /proc), returns an empty text.
    """
    if not sys.platform.startswith("linux"):
        return ""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(pid) from None
    # the second field is the command in parentheses and may hold anything, parentheses too
    fields = stat[stat.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        raise ProcessLookupError(pid)
    return f"{_boot_id()}-{fields[19].decode()}"


def keep_secrets_in_memory() -> None:
    """Keep this process's environment and memory from other processes of the same user (Linux).

    Jobs of Server Compute run as that user. Root reads everything all the same.
    """
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE


def _named(pid: int) -> str:
    try:
        return f"{pid}.{process_started(pid)}"
    except ProcessLookupError:
        return f"{pid}.gone"


@cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]


def _system_id() -> str:
    for place in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            text = Path(place).read_text().strip()
        except OSError:
            continue
        if text and text != "uninitialized":
            return text
    return ""


def _kept_id() -> str:
    place = Path.home() / ".config" / "deepforge" / "machine-id"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("x") as file:
            file.write(secrets.token_hex(16))
    except FileExistsError:
        pass
    for _ in range(100):  # whoever made the file may not have written yet
        text = place.read_text()
        if text:
            return text
        time.sleep(0.01)
    raise OSError(f"{place} is empty; remove it")
