"""Starting an operation in a process of its own, and staying beside it until it has ended."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` without enumerations: forks pay for them
import fcntl
import gc
import json
import os
import select
import signal
import sys
import time
import traceback
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from deepforge.runner import call
from deepforge.runner.failures import Cancelled, JobFailed, failed
from deepforge.runner.processes import Brood, die_with_parent
from deepforge.runner.protocol import ENV_PREFIX, Failure
from deepforge.runner.spool import Spool
from deepforge.runner.watch import Watch

LINGER_S = 10.0  # for exit functions and threads, after the outputs are there
ROUND_S = 0.5  # how often to look at the clock when nothing happens
LEFTOVER_S = 0.5  # for helpers that end by themselves when their parent has

_BOOTSTRAP = "import sys; sys.path.insert(0, %r); from deepforge.runner.call import main; main()"

_PIPE_BYTES = 60_000  # what a pipe takes before anybody reads


def supervise(
    spec: Dict[str, Any],
    *,
    folder: str,
    python: Optional[str],
    spool: Spool,
    watch: Watch,
    time_s: Optional[float],
    tick: Callable[[], None],
) -> Dict[str, Any]:
    """Run the operation of `spec` (see `call`) and return its report, once nothing of it lives.

    `python` is the interpreter to start; None: a fork of this process, which must be clean and
    have one thread. `tick` is called at least every second. Raises `Cancelled` and `JobFailed`
    (exit, signal, time_limit).
    """
    work = os.path.join(folder, "work")
    os.mkdir(work)
    brood, pipes = _start(spec, work, python)
    run = _Run(spec, brood, pipes[0], pipes[1], spool, watch, time_s)
    try:
        run.attend(tick)
    except BaseException:
        brood.end(meanwhile=run.read_log)
        raise
    finally:
        run.read_log()
        while run.read_report():
            pass
        for number in pipes:
            os.close(number)
    return run.outcome()


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


class _Run:
    def __init__(
        self,
        spec: Dict[str, Any],
        brood: Brood,
        log: int,
        report: int,
        spool: Spool,
        watch: Watch,
        time_s: Optional[float],
    ) -> None:
        self._spec = spec
        self._brood = brood
        self._log: Optional[int] = log
        self._report = report
        self._reported = bytearray()
        self._spool = spool
        self._watch = watch
        self._time_s = time_s
        self._timed_out = ""

    def attend(self, tick: Callable[[], None]) -> None:
        """Read the log, until the child and all that it left behind have ended."""
        poll = select.poll()
        poll.register(self._log or 0, select.POLLIN)
        poll.register(self._report, select.POLLIN)
        poll.register(self._watch.wake_fd, select.POLLIN)
        started_s = time.monotonic()
        reported_s: Optional[float] = None
        while self._brood.status is None:
            now_s = time.monotonic()
            if self._watch.cancelled:
                self._spool.note("The operation was cancelled and is being stopped.")
                self._brood.end(meanwhile=self.read_log)
                raise Cancelled()
            if self._time_s is not None and now_s - started_s >= self._time_s:
                self._timed_out = "%g s" % self._time_s
                self._spool.note("The time limit of %s has passed." % self._timed_out)
                self._brood.end(meanwhile=self.read_log)
                return
            if reported_s is None and self._reported.endswith(b"\n"):
                reported_s = now_s
            if reported_s is not None and now_s - reported_s >= LINGER_S:
                self._spool.note("The operation had returned, but its process did not end.")
                self._brood.end(meanwhile=self.read_log)
                return
            until_s = min(now_s + ROUND_S, self._spool.flush_at_s or now_s + ROUND_S)
            if self._time_s is not None:
                until_s = min(until_s, started_s + self._time_s)
            for found, _ in poll.poll(max(0.0, until_s - now_s) * 1000 + 1):
                if found == self._watch.wake_fd:
                    self._watch.drain()
                    self._brood.reap()
                elif not (self.read_report() if found == self._report else self._read_once()):
                    poll.unregister(found)
            self._spool.flush(time.monotonic())
            tick()
        self._end_leftovers()

    def read_log(self) -> None:
        """Take from the pipe what is there now."""
        while self._read_once():
            pass

    def read_report(self) -> bool:
        """Take from the report's pipe what is there now. False if there was nothing."""
        try:
            data = os.read(self._report, 65536)
        except BlockingIOError:
            return False
        self._reported += data
        return bool(data)

    def outcome(self) -> Dict[str, Any]:
        """What became of it. Raises `JobFailed` if it left no report."""
        name = self._spec["name"]
        report = _parsed(bytes(self._reported) or _file(self._spec["report"]))
        if self._timed_out and (report is None or report["failure"] is not None):
            raise failed(
                "time_limit",
                "%s ran longer than its limit of %s and was stopped." % (name, self._timed_out),
                hint="Raise the limit, or make it do less.",
            )
        if report is not None:
            return report
        status = self._brood.status
        if status is None:
            raise failed("runner", "%s could not be stopped." % name)
        if os.WIFSIGNALED(status):
            raise JobFailed(_of_signal(name, os.WTERMSIG(status), self._brood.peak_bytes))
        code = os.WEXITSTATUS(status)
        raise JobFailed(
            Failure(
                kind="exit",
                message="%s ended its own process with exit code %d before it returned."
                % (name, code),
                exit_code=code,
                hint="Something called os._exit, or a native library gave up. The log may say why.",
            )
        )

    def _read_once(self) -> bool:
        """Read one piece of the log. False if there is none now, or never again."""
        if self._log is None:
            return False
        try:
            data = os.read(self._log, 65536)
        except BlockingIOError:
            return False
        if not data:
            self._log = None
            return False
        self._spool.feed(data, time.monotonic())
        return True

    def _end_leftovers(self) -> None:
        until_s = time.monotonic() + LEFTOVER_S
        while not self._brood.alone():
            self.read_log()
            if time.monotonic() > until_s:
                names = self._brood.names()
                self._brood.end(meanwhile=self.read_log)
                self._spool.note(
                    "The operation left %d processes behind (%s); they were stopped."
                    % (len(names), ", ".join(names))
                )
                return
            time.sleep(0.005)


def _start(spec: Dict[str, Any], work: str, python: Optional[str]) -> Tuple[Brood, List[int]]:
    """Start the child; return it and our ends of its pipes: log, report, and one it lives by."""
    log, log_writer = os.pipe()
    report, report_writer = os.pipe()
    ours, theirs = [log, report], [log_writer, log_writer, report_writer]
    os.set_blocking(log, False)
    os.set_blocking(report, False)
    inherited: List[int] = []
    if python is None:
        theirs.insert(0, os.open(os.devnull, os.O_RDONLY))
        inherited = _open_descriptors()
    else:
        theirs.insert(0, _orders({**spec, "work": work}))
        life, life_writer = os.pipe()
        theirs.append(life)
        ours.append(life_writer)
    high = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 10) for number in theirs]
    environment = operation_environment(os.environ)
    try:
        if python is None:
            pid = _fork(spec, work, high, environment, inherited)
        else:
            pid = _spawn(spec, python, high, environment)
    except OSError as error:
        for number in ours:
            os.close(number)
        raise failed(
            "runner",
            "The operation's process cannot be started by %s: %s" % (python or "a fork", error),
            hint="Choose another Python interpreter for this compute." if python else None,
        ) from error
    finally:
        for number in {*theirs, *high}:
            os.close(number)
    return Brood(pid), ours


def _orders(spec: Dict[str, Any]) -> int:
    """A descriptor that the spec can be read from. A pipe, since a new file costs more."""
    data = repr(spec).encode("utf-8")
    if len(data) <= _PIPE_BYTES:
        reader, writer = os.pipe()
        os.write(writer, data)
        os.close(writer)
        return reader
    with open(spec["path"], "wb") as file:
        file.write(data)
    return os.open(spec["path"], os.O_RDONLY)


def _spawn(
    spec: Dict[str, Any], python: str, descriptors: Sequence[int], environment: Dict[str, str]
) -> int:
    """Start a fresh interpreter, which does the rest itself: nothing of our memory is copied."""
    return os.posix_spawn(
        python,
        [python, "-c", _BOOTSTRAP % spec["support"]],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, number, place) for place, number in enumerate(descriptors)
        ],
    )


def _fork(
    spec: Dict[str, Any],
    work: str,
    descriptors: Sequence[int],
    environment: Dict[str, str],
    inherited: Sequence[int],
) -> int:
    """Fork a child that leaves everything of the runner behind, and runs the operation.

    Each page of memory that the child writes to costs a copy: it had better do little.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            _signal.signal(number, _signal.SIG_DFL)
        os.setsid()
        die_with_parent()
        for place, copy in enumerate(descriptors):
            os.dup2(copy, place)
        os.chdir(work)
        _forget_parent(environment, {*inherited, *descriptors})
        call.run_and_leave(spec)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(127)


def _forget_parent(environment: Dict[str, str], descriptors: Set[int]) -> None:
    """After a fork without exec: what a fresh interpreter would not have."""
    gc.freeze()  # what is the runner's need not be looked through, and so not be copied
    signal.set_wakeup_fd(-1)
    _signal.signal(signal.SIGINT, signal.default_int_handler)
    os.set_inheritable(call.REPORT, False)
    for number in descriptors:
        if number > call.REPORT:  # closed, but not to be given out again: objects still know it
            os.dup2(0, number, inheritable=False)
    names = set(os.environ)
    for name in names.difference(environment):
        del os.environ[name]
    for name in environment.keys() - names:
        os.environ[name] = environment[name]
    warm()
    _kept.extend((sys.stdout, sys.stderr, sys.modules["__main__"]))
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__ = _writers  # type: ignore[misc]
    sys.dont_write_bytecode = False
    sys.modules["__main__"] = type(sys)("__main__")
    for name in ("numpy.random", "torch"):  # warm libraries: forks must not draw the same numbers
        if name in sys.modules:
            sys.modules[name].seed()


_kept: List[Any] = []  # of the parent: to let go of a stream may close a descriptor that we use
_writers: List[Any] = []  # standard output and error of an operation that is forked


def warm() -> None:
    """Make now what every fork needs."""
    if not _writers:
        for number in (1, 2):
            _writers.append(
                open(number, "w", 1, encoding=call.ENCODING, errors=call.ERRORS, closefd=False)
            )


def _open_descriptors() -> List[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return list(range(256))


def _file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _parsed(data: bytes) -> Optional[Dict[str, Any]]:
    """The report; None if there is none, or the process ended while it wrote."""
    if not data.endswith(b"\n"):
        return None
    try:
        report = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise failed("runner", "The operation's report cannot be read: %s" % error) from error
    return report if isinstance(report, dict) else None


def _of_signal(name: str, number: int, peak_bytes: int) -> Failure:
    try:
        said = signal.Signals(number).name
    except ValueError:
        said = "signal %d" % number
    hint = None
    if number == signal.SIGKILL:
        hint = (
            "Usually the machine ran out of memory: the process had used up to %.1f GiB."
            " Ask for more memory, or let it hold less at once." % (peak_bytes / 1024**3)
        )
    elif number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT):
        hint = "Native code crashed. The log ends with the line of Python that called it."
    return Failure(
        kind="signal",
        message="%s was killed by %s." % (name, said),
        exit_code=-number,
        hint=hint,
    )
