"""What a first process is between two jobs: what it was before the first.

Only our runner ever runs in a first process; user code runs in children of it. So a job can leave
little there. What it may have changed is put back; anything else it left ends the process.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection, Sequence

_ENDINGS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


class NotClean(Exception):
    """The last job left something in the process: it must not see another one."""


class Between:
    """Remembers this process as it is when made, before its first job."""

    def __init__(self, handled: Sequence[signal.Signals], *, log: int) -> None:
        """`handled` are the signals that a job answers; between jobs what is said goes to `log`."""
        self._handled = handled
        self._log = log
        self._handlers = [signal.getsignal(number) for number in handled]
        self._environment = dict(os.environ)
        self._path = list(sys.path)
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._open_files = _open_files()

    def restore(self, *, spared: Collection[int] = ()) -> None:
        """Put everything back but what every job sets. Raises `NotClean` when it left more.

        `spared` are files that may be open: the runner's idle connection to the server.

        Since the job ended the signals `handled` must have been blocked.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        threading = sys.modules.get("threading")  # not imported here: it makes forks slower
        if threading is not None and threading.active_count() > 1:
            raise NotClean("a thread")
        if signal.sigpending() & _ENDINGS:
            raise NotClean("a signal that was meant for the job")
        for number, handler in zip(self._handled, self._handlers, strict=True):
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        os.chdir("/")  # the job's folder may go now
        os.dup2(self._log, 1)
        os.dup2(self._log, 2)
        if _open_files() - set(spared) != self._open_files:
            raise NotClean("an open file")
        os.umask(self._umask)
        if os.environ != self._environment:
            for name in os.environ.keys() - self._environment.keys():
                del os.environ[name]
            os.environ.update(self._environment)
        sys.path[:] = self._path


def _open_files() -> set[int]:
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return {int(name) for name in os.listdir(folder) if _is_open(int(name))}  # noqa: PTH208
        except OSError:
            continue
    return set()


def _is_open(number: int) -> bool:
    """False for the file by which the others were listed."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
