"""From a fork to an exit code: what happens in the processes of jobs.

The supervisor forks *first processes* before there are jobs (a fork takes longer than all the
rest), and hands a job over through a pipe. The first process claims the job by writing who it is,
runs it, ends every descendant, and writes the exit code as its last act. A command that is our
runner runs right in it, without `exec`; any other command runs in a child.

After a job of our runner a first process waits for the next one, provided that the last left
nothing behind (see `between`): user code never runs in it. After anything else it ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from deepforge.compute.server import processes
from deepforge.compute.server.between import Between, NotClean
from deepforge.compute.server.folder import JobFolder, Process
from deepforge.runner.helper import Helper, make_helper
from deepforge.runner.wire import Client

Runner = Callable[[list[str], bytes | None, Mapping[str, str], Helper | None, Client], int]

RUNNER_FILE = "runner.pyz"

MOST_JOBS = 200
"""How many jobs one first process runs, in case the runner loses memory."""

_HANDLED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_MOST_OPEN_FILES = 65536
_CLEAR_WITHIN_S = 5.0
_COULD_NOT_START = 127  # as shells say it
_ORDERS, _NEWS, _LOG = 3, 4, 5  # what a first process has open, besides the first three
_OUT_OF_THE_WAY = 64


@dataclass(frozen=True)
class Start:
    """What to start in which job folder.

    With `is_runner`, the words of the command from the third on are arguments of our runner,
    `handed` is what it would read in the file that the first of them names, and `environment` are
    its settings. Any other command gets `environment` in addition to the supervisor's clean one.
    """

    key: str
    folder: str
    command: Sequence[str]
    environment: Mapping[str, str]
    is_runner: bool
    handed: str | None = None


class News:
    """A pipe on which first processes say that a job has ended and they wait for the next."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)

    def read(self) -> list[tuple[int, str, int]]:
        """Return what is new: pid, key of the job, its recorded exit code."""
        try:
            lines = os.read(
                self.reader, 65536
            ).splitlines()  # as much as a pipe holds: no half ones
        except BlockingIOError:
            return []
        words = (line.decode("ascii").split() for line in lines)
        return [(int(pid), key, int(code)) for pid, key, code in words]


class FirstProcess:
    """A forked process that waits for a job. It ends by itself when the supervisor is gone."""

    def __init__(self, runner: Runner, news: News) -> None:
        """Fork. Raises `OSError` when the system has no room for one more process."""
        orders, self._orders = os.pipe()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        try:
            self.pid = os.fork()
            if self.pid == 0:
                _first_process(orders, news.writer, runner)
        except OSError:
            os.close(self._orders)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(orders)

    def start(self, start: Start) -> None:
        """Hand over a job; it must be waiting for one. Raises `OSError` when it is gone; then
        nothing was started."""
        rest = memoryview(json.dumps(asdict(start)).encode() + b"\n")
        while rest:
            rest = rest[os.write(self._orders, rest) :]

    def dismiss(self) -> None:
        """Let it go: without a job it ends at once, else after its job."""
        os.close(self._orders)


def _first_process(orders: int, news: int, runner: Runner) -> NoReturn:
    """Everything between the fork and the end. Nothing gets past it, so no frame above runs on."""
    code = _COULD_NOT_START
    helper: Helper | None = None
    try:
        me = _settle(orders, news)
        start = _receive()
        if start is not None and start.is_runner:
            with suppress(OSError):  # the runner meets the same trouble, and reports it
                helper = make_helper(start.environment, start.folder)
        between = Between(_HANDLED, log=_LOG)
        client = Client()
        for number in range(1, MOST_JOBS + 1):
            if start is None:
                break
            code = _COULD_NOT_START
            if not _claim(JobFolder(Path(start.folder)), me):
                break
            if helper is not None and not helper.suits(start.environment):
                helper.end()  # this process ends, too, after a job of other settings
                helper = None
            code, was_alone = _run_job(start, runner, helper, client)
            if not start.is_runner or not was_alone or number == MOST_JOBS:
                break
            between.restore(spared=client.rest())
            os.write(_NEWS, b"%d %s %d\n" % (me.pid, start.key.encode("ascii"), code))
            start = _receive()
    except (NotClean, BrokenPipeError):
        pass  # the exit code is recorded: whoever wonders finds it there
    except BaseException:
        traceback.print_exc()
    finally:
        _flush()
        os._exit(code & 0xFF if code >= 0 else 128 - code)


def _settle(orders: int, news: int) -> Process:
    """Leave everything behind that belongs to the supervisor; return who we are."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    copies = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY) for one in (orders, news, 2)]
    for place, copy in zip((_ORDERS, _NEWS, _LOG), copies, strict=True):
        os.dup2(copy, place, inheritable=False)
    os.closerange(_LOG + 1, min(_MOST_OPEN_FILES, os.sysconf("SC_OPEN_MAX")))
    processes.adopt_orphans()
    pid = os.getpid()
    return Process(pid, processes.start_time(pid) or 0, processes.boot_id())


def _receive() -> Start | None:
    """Wait for a job; None when the supervisor has none, or died before it said all."""
    told = bytearray()
    while not told.endswith(b"\n"):
        data = os.read(_ORDERS, 65536)
        if not data:
            return None
        told += data
    return Start(**json.loads(told))


def _claim(folder: JobFolder, me: Process) -> bool:
    """Make the job ours for good, and its folder our place. False when another process was first."""
    log = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.chdir(folder.root)
    if not folder.claim(me, time.time()):
        return False
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.close(nothing)
    return True


def _run_job(
    start: Start, runner: Runner, helper: Helper | None, client: Client
) -> tuple[int, bool]:
    """Run it and record its exit code; return that, and whether the job left no process behind."""
    if start.is_runner:
        exit_record: dict[str, Any] = {"code": _run(runner, start, helper, client)}
    else:
        exit_record = _watch(start)
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    spared = helper.pid if helper is not None and helper.is_clean else None
    was_alone = processes.end_own_children(spared, within_s=_CLEAR_WITHIN_S)
    JobFolder(Path(start.folder)).record(exit=exit_record)
    return int(exit_record["code"]), was_alone


def _run(runner: Runner, start: Start, helper: Helper | None, client: Client) -> int:
    """Run our runner in this very process, as if it were a fresh one."""
    arguments = list(start.command[2:])
    handed = None if start.handed is None else start.handed.encode()
    sys.argv = [RUNNER_FILE, *arguments]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        return int(runner(arguments, handed, start.environment, helper, client))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1


def _watch(start: Start) -> dict[str, Any]:
    """Run a command in a child of this process and return how it ended.

    A request to end, which is SIGTERM to this process, is passed on to the whole group, once.
    Signals are blocked until now, so one that came before there was a child is passed on too.
    """
    memory_kills = processes.out_of_memory_kills()
    pid = os.fork()
    if pid == 0:
        _become(start)

    def pass_on(number: int, _frame: object) -> None:
        for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(one, signal.SIG_IGN)
        os.killpg(0, number)

    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, pass_on)  # never ignored before: that would lose a blocked one
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    ended = 0
    while ended != pid:  # orphans of the job come by here too
        ended, status = os.waitpid(-1, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL and processes.out_of_memory_kills() > memory_kills:
        return {"code": code, "reason": "out_of_memory"}
    return {"code": code}


def _become(start: Start) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    command = list(start.command)
    try:
        os.execvpe(command[0], command, {**os.environ, **start.environment})
    except (OSError, ValueError) as error:
        sys.stderr.write(f"cannot start {command[0]}: {error}\n")
        sys.stderr.flush()
    finally:
        os._exit(_COULD_NOT_START)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the disk is full, or the runner closed it
            stream.flush()
