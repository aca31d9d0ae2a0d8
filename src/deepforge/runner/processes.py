"""Ending processes with all they have started."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Protocol, Set, Tuple

TERM_S = 3.0
KILL_S = 10.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Have orphans among our descendants come to us, where the system can do that (Linux)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Have this process killed when its parent ends, where the system can do that (Linux)."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


_libc: Any = None


def _prctl(option: int, value: int) -> None:
    global _libc
    if sys.platform != "linux":
        return
    try:
        if _libc is None:
            import ctypes

            _libc = ctypes.CDLL(None)
        _libc.prctl(option, value, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        pass  # an interpreter without ctypes: process groups must do


def warm() -> None:
    """Load now what the first call would load."""
    import resource  # noqa: F401  # os.wait4 wants it

    _prctl(0, 0)


class Keeper(Protocol):
    """A child of ours that started the brood, and is none of it."""

    pid: int

    def ended(self, pid: int) -> Optional[Tuple[int, int]]: ...


class Brood:
    """One process that leads a session of its own, and whatever came of it.

    It is a child of this process, or of its `keeper`.
    """

    def __init__(self, pid: int, keeper: Optional[Keeper] = None) -> None:
        self.pid = pid
        self._keeper = keeper
        self.status: Optional[int] = None  # of the child, once it has ended
        self.peak_bytes = 0

    def reap(self) -> None:
        """Collect every process that has ended."""
        if self._keeper is not None and self.status is None:
            found = self._keeper.ended(self.pid)
            if found is not None:
                self.status, self.peak_bytes = found
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid and self.status is None:
                self.status = status
                scale = 1 if sys.platform == "darwin" else 1024
                self.peak_bytes = int(usage.ru_maxrss) * scale

    def members(self) -> Set[int]:
        """All living processes of the brood: descendants of ours, and of the child's session."""
        self.reap()
        if not os.path.isdir("/proc/self"):
            try:
                os.killpg(self.pid, 0)
            except (ProcessLookupError, PermissionError):
                return set()
            return {self.pid}
        parents: Dict[int, Tuple[int, int, bytes]] = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                found = _status(int(name))
                if found is not None:
                    parents[int(name)] = found
        mine = {os.getpid()}
        if self._keeper is not None:
            parents.pop(self._keeper.pid, None)
        grown = True
        while grown:
            grown = False
            for pid, (parent, session, _) in parents.items():
                if pid not in mine and (parent in mine or session == self.pid):
                    mine.add(pid)
                    grown = True
        mine.discard(os.getpid())
        return {pid for pid in mine if parents[pid][2] != b"Z"}

    def alone(self) -> bool:
        """True if nothing is left. Cheap when that is so."""
        self.reap()
        if self._keeper is not None:
            if self.status is not None and _children() == {self._keeper.pid}:
                return True  # else orphans would have come to us
            return not self.members()
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return sys.platform == "linux" or not self.members()
        return not self.members()

    def signal(self, number: int) -> None:
        for pid in self.members():
            try:
                if pid == self.pid and os.getpgid(pid) == pid:
                    os.killpg(pid, number)
                else:
                    os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                pass

    def names(self) -> List[str]:
        """What the living processes are called."""
        return sorted(_name(pid) for pid in self.members())

    def end(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Ask all to end, and kill those that do not."""
        for number, patience_s in ((signal.SIGTERM, TERM_S), (signal.SIGKILL, KILL_S)):
            until = time.monotonic() + patience_s
            self.signal(number)
            while not self.alone():
                if time.monotonic() > until:
                    break
                meanwhile()
                time.sleep(0.02)
                if number == signal.SIGKILL:
                    self.signal(number)  # what was forked meanwhile
            else:
                return


def _children() -> Optional[Set[int]]:
    """The children of this process; None where only a look at every process could tell."""
    try:
        with open("/proc/thread-self/children", "rb") as file:
            return set(map(int, file.read().split()))
    except (OSError, ValueError):
        return None


def _status(pid: int) -> Optional[Tuple[int, int, bytes]]:
    """Parent, session and state of a process."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None  # it has just ended
    return int(fields[1]), int(fields[3]), fields[0]


def _name(pid: int) -> str:
    try:
        with open("/proc/%d/comm" % pid, encoding="utf-8", errors="replace") as file:
            return "%s, pid %d" % (file.read().strip(), pid)
    except OSError:
        return "pid %d" % pid
