"""The runner's side of the warm helper: a clean interpreter whose forks run operations (`warm`).

A process of its own, started once for many operations. Memory that two processes share costs a
copy, page by page, when one of them writes to it: a runner that forked by itself would copy most of
its own again for each operation.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
from typing import Any, Dict, List, Mapping, Optional, Tuple

from deepforge.runner import call, warm
from deepforge.runner.protocol import ENV_CACHE, ENV_PREFIX, ENV_PYTHON, ENV_START
from deepforge.runner.support import support_folder

_BORN_WITHIN_S = 60.0
_LONGEST_TEXT = 2000
_BOOTSTRAP = "import sys; sys.path.insert(0, %r); from deepforge.runner.%s import main; main()"


class HelperGone(OSError):
    """The helper has ended, or does not answer. It will start no operation any more."""


class Helper:
    """Runs one operation at a time. Close it with `dismiss`.

    `log` and `report` are what operations print and report. `news` becomes readable when there is
    something for `ended`. All three are descriptors that do not block.
    """

    def __init__(self, python: str, support: str) -> None:
        """Start it; it gets ready meanwhile. Raises `OSError` when there is no such interpreter.

        `support` is the folder to import the runner from.
        """
        self.python = python
        orders, self._orders = os.pipe()
        self.log, log = os.pipe()
        self.report, report = os.pipe()
        self.news, news = os.pipe()
        life, self._life = os.pipe()
        for number in (self.log, self.report, self.news):
            os.set_blocking(number, False)
        self._heard = b""
        self._waiting = 0  # the fork without an operation
        self._running = 0  # the fork with one
        self._ended: Dict[int, Tuple[int, int]] = {}
        self._is_spent = False
        theirs = {0: orders, 1: log, 2: log, call.REPORT: report, call.LIFE: life, warm.NEWS: news}
        try:
            self.pid = spawn(python, "warm", support, theirs)
        except OSError:
            self.dismiss()
            raise
        finally:
            for number in (orders, log, report, life, news):
                os.close(number)

    @property
    def is_clean(self) -> bool:
        """Whether it is there, runs nothing, and may be used again."""
        self._hear()
        return not (self._is_spent or self._running)

    def suits(self, settings: Mapping[str, str]) -> bool:
        """Whether a job with these settings of its machine is to be run by it."""
        return wants_helper(settings) and self.python == python_of(settings)

    def operate(self, order: bytes) -> int:
        """Have an operation run by the fork that waits; return its pid. Raises `HelperGone`.

        `order` has some 60,000 bytes at most: what a pipe takes at once.
        """
        self._hear()
        while not self._waiting:
            poll = select.poll()
            poll.register(self.news, select.POLLIN)
            if self._is_spent or not poll.poll(_BORN_WITHIN_S * 1000):
                raise self._gone()
            self._hear()
        pid, self._waiting = self._waiting, 0
        self._drain()
        try:
            os.write(self._orders, warm.order_to(pid, order))
        except OSError as error:
            raise self._gone() from error
        self._running = pid
        return pid

    def ended(self, pid: int) -> Optional[Tuple[int, int]]:
        """How an operation ended: its status as of `wait`, and its peak memory in bytes."""
        self._hear()
        found = self._ended.pop(pid, None)
        if found is None and self._is_spent and pid == self._running:
            found = (int(signal.SIGKILL), 0)  # nobody can say any more
        if found is not None:
            self._running = 0
            if os.WIFSIGNALED(found[0]):  # perhaps before it had read all of its order
                self._is_spent = True
        return found

    def dismiss(self) -> None:
        """Let it end, with what it runs."""
        for number in (self._orders, self.log, self.report, self.news, self._life):
            os.close(number)
        self._is_spent = True

    def end(self) -> None:
        """Let it end, and wait until it has."""
        self.dismiss()
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass  # whoever reaps all children was quicker

    def _gone(self) -> HelperGone:
        said = _read(self.log).decode("utf-8", "replace").strip()
        text = "%s is not there to fork operations" % self.python
        return HelperGone("%s: %s" % (text, said[-_LONGEST_TEXT:]) if said else text)

    def _drain(self) -> None:
        """Nobody is there any more to say anything; what was said late goes to nobody."""
        _read(self.log)
        _read(self.report)

    def _hear(self) -> None:
        while not self._is_spent:
            try:
                data = os.read(self.news, 4096)
            except BlockingIOError:
                break
            self._is_spent = not data
            self._heard += data
        *lines, self._heard = self._heard.split(b"\n")
        for line in lines:
            pid, *rest = map(int, line.split())
            if not rest:
                self._waiting = pid
            elif pid == self._waiting:  # something killed it
                self._waiting = 0
            else:
                self._ended[pid] = (rest[0], rest[1])


def _read(number: int) -> bytes:
    found = b""
    try:
        while True:
            data = os.read(number, 65536)
            if not data:
                return found
            found += data
    except BlockingIOError:
        return found


def wants_helper(settings: Mapping[str, str]) -> bool:
    """Whether operations are to be forked on this machine, and not started afresh."""
    return settings.get(ENV_START) == "fork"


def make_helper(settings: Mapping[str, str], folder: str) -> Optional[Helper]:
    """Start the helper that these settings of a machine ask for; None where they ask for none.

    `folder` is used where there is no cache. Raises `OSError` when it cannot be started.
    """
    if not wants_helper(settings):
        return None
    return Helper(python_of(settings), support_of(settings, folder))


def python_of(settings: Mapping[str, str]) -> str:
    """The interpreter that runs the operations."""
    return settings.get(ENV_PYTHON) or sys.executable


def support_of(settings: Mapping[str, str], folder: str) -> str:
    """The folder that it imports the runner from."""
    return support_folder(os.path.join(settings.get(ENV_CACHE) or folder, "runner"))


def spawn(python: str, module: str, support: str, descriptors: Mapping[int, int]) -> int:
    """Start `main` of one of our modules in a fresh interpreter; return its pid. Raises `OSError`.

    It has these descriptors under these numbers and no others. Nothing of our memory is copied.
    """
    actions: List[Tuple[Any, ...]] = []
    high = {
        place: fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 100)
        for place, number in descriptors.items()
    }
    try:
        for place, number in high.items():
            actions.append((os.POSIX_SPAWN_DUP2, number, place))
        return os.posix_spawn(
            python,
            [python, "-c", _BOOTSTRAP % (support, module)],
            operation_environment(os.environ),
            file_actions=actions,
            setsigmask=(),
        )
    finally:
        for number in high.values():
            os.close(number)


def operation_environment(environment: Mapping[str, str]) -> Dict[str, str]:
    """What the operation sees of the runner's environment: nothing of ours, and Python's own ways.

    Without byte code files every import compiles anew, which makes a start three times as slow.
    """
    clean = {
        name: value
        for name, value in environment.items()
        if not name.startswith(ENV_PREFIX)
        and name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
    }
    clean.setdefault("MPLBACKEND", "Agg")
    return clean
