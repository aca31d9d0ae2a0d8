"""How processes are known again, found and ended.

A process is known by its pid *and* its start time, since pids are used again. On Linux everything is
found through /proc, orphans included, because the supervisor and every job's first process are
subreapers. Elsewhere only process groups are ended: a job that starts a daemon in a session of its
own can leave it behind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LINUX = sys.platform == "linux"

_PR_SET_CHILD_SUBREAPER = 36
_KERNEL_LISTS_CHILDREN = Path(f"/proc/self/task/{os.getpid()}/children").exists()

_libc = ctypes.CDLL(None) if LINUX else None


@dataclass(frozen=True)
class Seen:
    """One living process as /proc shows it; `started` in clock ticks since the machine started."""

    parent: int
    group: int
    session: int
    started: int


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own (Linux only)."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@cache
def boot_id() -> str:
    """Return a text that is another one after each start of the machine ("" if unknown)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def look(pid: int) -> Seen | None:
    """Return what /proc says about a process; None when it has ended, zombies included."""
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
        try:
            fields = os.read(file, 4096).rpartition(b")")[2].split()
        finally:
            os.close(file)
    except OSError:
        return None
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    return Seen(int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def start_time(pid: int) -> int | None:
    """Return when a living process started; 0 where that cannot be known."""
    if LINUX:
        seen = look(pid)
        return None if seen is None else seen.started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 0


def is_alive(pid: int, started: int) -> bool:
    return start_time(pid) == started


def children(pid: int | None = None) -> set[int]:
    """Return the children of a process (of this one by default), zombies included. Linux only."""
    parent = pid or os.getpid()
    if not _KERNEL_LISTS_CHILDREN:
        return {pid for pid, seen in _all().items() if seen.parent == parent}
    text = bytearray()
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        for thread in os.listdir(f"/proc/{parent}/task"):  # noqa: PTH208
            file = os.open(f"/proc/{parent}/task/{thread}/children", os.O_RDONLY)
            try:
                while data := os.read(file, 65536):
                    text += data
            finally:
                os.close(file)
    return set(map(int, text.split()))


def tree(roots: Collection[int]) -> set[int]:
    """Return the living ones of `roots` and all their descendants. Linux only."""
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found and look(pid) is not None:
            found.add(pid)
            waiting.extend(children(pid))
    return found


def session_members(session: int, started: int) -> set[int]:
    """Return who lives in the session a process led that `started` then. Linux only.

    Nobody, when the pid belongs to a younger process by now.
    """
    everything = _all()
    leader = everything.get(session)
    if leader is not None and leader.started != started:
        return set()
    return {
        pid for pid, seen in everything.items() if seen.session == session or seen.group == session
    }


def end(find: Callable[[], set[int]], *, within_s: float = 0.2) -> None:
    """Kill all that `find` returns until it returns none, or the time is over: then try again.

    What is killed cannot fork, and its children come to a subreaper, where `find` sees them: so even
    processes that run away by forking are caught up with.
    """
    deadline = time.monotonic() + within_s
    while (found := find()) and time.monotonic() < deadline:
        for pid in found:
            send(pid, signal.SIGKILL)
        time.sleep(0.001)


def end_own_children(spared: int | None = None, *, within_s: float) -> bool:
    """Kill and reap all descendants of this process, orphans it adopted included.

    The child `spared`, and what it started, are left alone. True when there were no others, not even
    one to reap; off Linux also false where that cannot be known.
    """
    keep = set() if spared is None else {spared}
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    if keep and children() == keep:
        return True
    deadline = time.monotonic() + within_s
    while children() - keep and time.monotonic() < deadline:
        end(lambda: tree(children() - keep))
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            break
    return False


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process; one that has ended is fine."""
    with suppress(ProcessLookupError, PermissionError):  # ended, or root's by a setuid program
        os.kill(pid, number)


def send_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to the group a process leads, or to itself when it leads none yet."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        send(pid, number)


def out_of_memory_kills() -> int:
    """Return how often the kernel has killed for memory in our control group; 0 if unknown."""
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return 0
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            file = f"/sys/fs/cgroup{path}/memory.events"
        elif "memory" in controllers.split(","):
            file = f"/sys/fs/cgroup/memory{path}/memory.oom_control"
        else:
            continue
        try:
            for entry in Path(file).read_text().splitlines():
                name, _, number = entry.partition(" ")
                if name == "oom_kill":
                    return int(number)
        except (OSError, ValueError):
            continue
    return 0


def _all() -> dict[int, Seen]:
    """Everybody who lives, by pid. Empty where there is no /proc."""
    try:
        names = os.listdir("/proc")  # noqa: PTH208
    except OSError:
        return {}
    seen = ((int(name), look(int(name))) for name in names if name.isdigit())
    return {pid: one for pid, one in seen if one is not None}
