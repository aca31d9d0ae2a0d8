"""Starting an operation in a process of its own, and staying beside it until it has ended."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple, Union

from deepforge.runner import call
from deepforge.runner.failures import Cancelled, JobFailed, failed
from deepforge.runner.helper import Helper, HelperGone, spawn
from deepforge.runner.processes import Brood
from deepforge.runner.protocol import Failure
from deepforge.runner.spool import Spool
from deepforge.runner.watch import Watch

LINGER_S = 10.0  # for exit functions and threads, after the outputs are there
ROUND_S = 0.5  # how often to look at the clock when nothing happens
LEFTOVER_S = 0.5  # for helpers that end by themselves when their parent has

_PIPE_BYTES = 60_000  # what a pipe takes before anybody reads


def supervise(
    spec: Dict[str, Any],
    *,
    folder: str,
    start: Union[str, Helper],
    spool: Spool,
    watch: Watch,
    time_s: Optional[float],
    tick: Callable[[], None],
    reported: Callable[[Dict[str, Any]], None],
) -> Dict[str, Any]:
    """Run the operation of `spec` (see `call`) and return its report, once nothing of it lives.

    `start` is the interpreter to start, or the warm helper that forks. `tick` is called at least
    every second, `reported` with the report if that comes before the end of the process, which takes
    a while: what it raises ends the operation. Raises `Cancelled` and `JobFailed` (exit, signal,
    time_limit).
    """
    work = os.path.join(folder, "work")
    os.makedirs(work, 0o700, exist_ok=True)
    asked = {**spec, "work": work}
    child = _warm(start, asked) if isinstance(start, Helper) else _fresh(start, asked)
    run = _Run(spec, child, spool, watch, time_s)
    try:
        run.attend(tick, reported)
    except BaseException:
        child.brood.end(meanwhile=run.read_log)
        raise
    finally:
        run.read_log()
        while run.read_report():
            pass
        for number in child.own:
            os.close(number)
    return run.outcome()


class _Run:
    def __init__(
        self,
        spec: Dict[str, Any],
        child: _Child,
        spool: Spool,
        watch: Watch,
        time_s: Optional[float],
    ) -> None:
        self._spec = spec
        self._brood = child.brood
        self._news = child.news
        self._log: Optional[int] = child.log
        self._report = child.report
        self._reported = bytearray()
        self._spool = spool
        self._watch = watch
        self._time_s = time_s
        self._timed_out = ""

    def attend(self, tick: Callable[[], None], reported: Callable[[Dict[str, Any]], None]) -> None:
        """Read the log, until the child and all that it left behind have ended."""
        poll = select.poll()
        poll.register(self._log or 0, select.POLLIN)
        poll.register(self._report, select.POLLIN)
        poll.register(self._watch.wake_fd, select.POLLIN)
        if self._news >= 0:
            poll.register(self._news, select.POLLIN)
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
                report = _parsed(bytes(self._reported))
                if report is not None:
                    reported(report)
                reported_s = now_s = time.monotonic()
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
                elif found == self._news:
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


class _Child(NamedTuple):
    """A started operation, and our ends of what it is connected by."""

    brood: Brood
    log: int
    report: int
    news: int = -1  # readable when it may have ended
    own: Tuple[int, ...] = ()  # what to close after it


def _warm(helper: Helper, spec: Dict[str, Any]) -> _Child:
    try:
        brood = Brood(helper.operate(_short_order(spec)), helper)
    except HelperGone as error:
        raise failed(
            "runner",
            "The operation's process cannot be started: %s" % error,
            transient=True,
            hint="Run that interpreter by hand, or choose another one for this compute.",
        ) from error
    return _Child(brood, helper.log, helper.report, helper.news)


def _fresh(python: str, spec: Dict[str, Any]) -> _Child:
    log, log_writer = os.pipe()
    report, report_writer = os.pipe()
    life, life_writer = os.pipe()
    orders, orders_writer = os.pipe()
    own = (log, report, life_writer)
    try:
        os.set_blocking(log, False)
        os.set_blocking(report, False)
        os.write(orders_writer, _short_order(spec))
        theirs = {0: orders, 1: log_writer, 2: log_writer}
        theirs.update({call.REPORT: report_writer, call.LIFE: life})
        return _Child(Brood(spawn(python, "call", spec["support"], theirs)), log, report, own=own)
    except OSError as error:
        for number in own:
            os.close(number)
        raise cannot_start(python, error) from error
    finally:
        for number in (log_writer, report_writer, life, orders, orders_writer):
            os.close(number)


def cannot_start(python: str, error: OSError) -> JobFailed:
    """What to raise when there is no such interpreter, or no room for a process."""
    return failed(
        "runner",
        "The operation's process cannot be started by %s: %s" % (python, error),
        hint="Choose another Python interpreter for this compute.",
    )


def _short_order(spec: Dict[str, Any]) -> bytes:
    """The order as bytes that fit into a pipe: a new file costs more, and so is for long ones."""
    order = call.order(spec)
    if len(order) > _PIPE_BYTES:
        with open(spec["path"], "wb") as file:
            file.write(order)
        order = call.order({"path": spec["path"]})
    return order


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
    if number == signal.SIGKILL and not peak_bytes:
        hint = "Something killed the process that had started it."
    elif number == signal.SIGKILL:
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
