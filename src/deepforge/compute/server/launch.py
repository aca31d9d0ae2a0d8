"""From a fork to an exit code: what happens in the processes of one job.

The supervisor forks the job's *first process*. It settles (session, folder, log, environment),
writes who it is, runs the job, ends every descendant, and writes the exit code as its last act.
A command that is our runner runs right in it, without `exec`; any other command runs in a child.
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
from dataclasses import dataclass
from typing import NoReturn

from deepforge.compute.server import processes
from deepforge.compute.server.folder import JobFolder, write_json

Runner = Callable[[list[str]], int]

RUNNER_FILE = "runner.pyz"

_CLEAR_WITHIN_S = 5.0
_COULD_NOT_START = 127  # as shells say it


@dataclass(frozen=True)
class Start:
    """What to start: `arguments` for the runner within this process, or else a `command`."""

    command: Sequence[str]
    environment: Mapping[str, str]
    runner: Runner | None = None
    arguments: Sequence[str] = ()


def fork_job(folder: JobFolder, start: Start) -> int:
    """Start a job and return the pid of its first process. Called by the supervisor alone.

    `process.json` is claimed first, so that whatever happens from here on, nobody starts the job
    twice. Raises `OSError` when nothing was started; the claim is gone then.
    """
    claim = os.open(folder.process, os.O_WRONLY | os.O_CREAT, 0o600)
    fcntl.flock(claim, fcntl.LOCK_EX)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _first_process(claim, folder, start)
    except OSError:
        folder.process.unlink(missing_ok=True)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(claim)
    return pid


def _first_process(claim: int, folder: JobFolder, start: Start) -> NoReturn:
    """Everything between the fork and the end. Nothing gets past it, so no frame above runs on."""
    code = _COULD_NOT_START
    try:
        _settle(claim, folder, start.environment)
        if start.runner is None:
            code = _watch(start.command, start.environment)
        else:
            code = _run(start.runner, start.arguments, start.environment)
        _ignore_endings()
        processes.end_own_children(within_s=_CLEAR_WITHIN_S)
        write_json(folder.exit, {"code": code})
    except BaseException:
        traceback.print_exc()
    finally:
        _flush()
        os._exit(code & 0xFF if code >= 0 else 128 - code)


def _settle(claim: int, folder: JobFolder, environment: Mapping[str, str]) -> None:
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.dup2(claim, 3, inheritable=False)
    _close_from(4)
    processes.adopt_orphans()
    os.chdir(folder.work)
    who = {
        "pid": os.getpid(),
        "started": processes.start_time(os.getpid()),
        "boot": processes.boot_id(),
        "at": time.time(),
    }
    os.write(3, json.dumps(who).encode())
    os.close(3)  # and with it the lock


def _close_from(first: int) -> None:
    """Close what the supervisor had open: its lock, its socket, its connections."""
    try:
        open_ones = [int(name) for name in os.listdir("/dev/fd")]  # noqa: PTH208
    except OSError:
        open_ones = list(range(first, os.sysconf("SC_OPEN_MAX")))
    for descriptor in open_ones:
        if descriptor >= first:
            with suppress(OSError):  # the listing itself
                os.close(descriptor)


def _run(runner: Runner, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run our runner in this very process, as if it were a fresh one."""
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [RUNNER_FILE, *arguments]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        return int(runner(list(arguments)))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1


def _watch(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command in a child of this process and return its exit code, `-signal` if killed."""
    _ignore_endings()
    pid = os.fork()
    if pid == 0:
        _become(command, environment)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    while True:  # orphans of the job come by here too
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            return os.waitstatus_to_exitcode(status)


def _become(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execvpe(command[0], list(command), environment)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"cannot start {command[0]}: {error}\n")
        sys.stderr.flush()
    finally:
        os._exit(_COULD_NOT_START)


def _ignore_endings() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the disk is full, or the runner closed it
            stream.flush()
