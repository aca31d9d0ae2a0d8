"""The process that starts jobs, and the one that stays beside each job.

    worker ── starter ── keeper ── the job, and whatever comes of it

The starter is clean: one thread, no token, a small environment. It forks a keeper for each job, and
ends when the worker does. A keeper leads a session of its own, so it and its job outlive both: it
waits for the job, ends it when asked or when its time is over, ends what it left behind, and writes
`exit.json` as its last act.

A job of kind `runner` is run by our runner, in a fork that has it loaded; one of kind `command`, by
a program. A spare keeper with a runner that is ready always waits for the next job, for to get it
ready takes longer than a small job runs.

This file stands alone, since it runs with the modules of whichever runner the server wants:

    python3 starter.py RUNNER.pyz       orders come in on standard input, news go out, as JSON lines

The first line of the orders has the runner's settings.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import traceback
from typing import Any, Dict, List, Mapping, NoReturn, Optional, Set, Tuple

END = signal.SIGTERM  # to a keeper: end the job, it was cancelled
STOP = signal.SIGUSR1  # to a keeper: end the job, the worker ends

_HAS_PROC = os.path.exists("/proc/self/stat")
_HANDLED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_KILL_WITHIN_S = 5.0
_WRITE_AGAIN_S = 1.0
_COULD_NOT_START = 127  # as shells say it
_MOST_OPEN_FILES = 65536
_LONGEST_WILL = 200


def main(runner: str) -> int:
    """Serve until standard input ends."""
    os.setsid()  # Ctrl-C in a terminal is for the worker alone
    news = os.dup(1)
    os.dup2(2, 1)
    starter = _Starter(news, has_runner=_warm(runner))
    starter.tell({"ready": True})
    return starter.serve()


class _Starter:
    def __init__(self, news: int, *, has_runner: bool) -> None:
        self._news = news
        self._has_runner = has_runner
        self._settings: Dict[str, str] = {}
        self._keepers: Dict[int, str] = {}
        self._spare: Optional[Tuple[int, int]] = None  # its pid, and where it takes its order
        self._spare_at = 0.0

    def serve(self) -> int:
        """Start jobs until standard input ends."""
        wake, writer = _wake_pipe()
        signal.signal(signal.SIGCHLD, _nothing)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        heard = b""
        while True:
            ready = select.select([0, wake], [], [], self._prepare())[0]
            if wake in ready:
                _drain(wake)
                for pid, _ in _ended():
                    self._forget(pid)
            if 0 in ready:
                data = os.read(0, 65536)
                if not data:
                    return 0
                *lines, heard = (heard + data).split(b"\n")
                for line in lines:
                    self._obey(line)

    def tell(self, value: Mapping[str, Any]) -> None:
        try:
            os.write(self._news, json.dumps(value).encode("ascii") + b"\n")
        except BrokenPipeError:
            pass  # the worker is gone: the end of standard input says so too

    def _obey(self, line: bytes) -> None:
        order = json.loads(line)
        if "id" not in order:
            self._settings = order["settings"]
            return
        try:
            usual = order["kind"] == "runner" and not order["gpus"]
            if not (usual and self._hand_over(line, order["id"])):
                pid, writer = self._fork(is_spare=False)
                _write_all(writer, line + b"\n")
                os.close(writer)
                self._keepers[pid] = order["id"]
            self.tell({"took": order["id"]})
        except OSError as error:  # no room for one more process
            self.tell({"failed": order["id"], "message": str(error)})

    def _hand_over(self, line: bytes, id: str) -> bool:
        """Give a job to the spare keeper. False if there is none."""
        if self._spare is None:
            return False
        (pid, writer), self._spare = self._spare, None
        try:
            _write_all(writer, line + b"\n")
        except BrokenPipeError:
            return False
        finally:
            os.close(writer)
        self._keepers[pid] = id
        return True

    def _prepare(self) -> Optional[float]:
        """Have a spare keeper, unless the last one just failed; return when to look again."""
        if self._spare is not None or not (self._has_runner and self._settings):
            return None
        wait_s = self._spare_at - time.monotonic()
        if wait_s > 0:
            return wait_s
        try:
            self._spare = self._fork(is_spare=True)
        except OSError:
            self._spare_at = time.monotonic() + _WRITE_AGAIN_S
            return _WRITE_AGAIN_S
        return None

    def _forget(self, pid: int) -> None:
        if pid in self._keepers:
            self.tell({"ended": self._keepers.pop(pid)})
        elif self._spare is not None and self._spare[0] == pid:
            os.close(self._spare[1])
            self._spare, self._spare_at = None, time.monotonic() + _WRITE_AGAIN_S

    def _fork(self, *, is_spare: bool) -> Tuple[int, int]:
        """Fork a keeper; return its pid and where it takes its order. Raises `OSError`."""
        orders, writer = os.pipe()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        try:
            pid = os.fork()
            if pid == 0:
                _keep(orders, self._settings if is_spare else None)
            return pid, writer
        except OSError:
            os.close(writer)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(orders)


def is_alive(process: Mapping[str, Any]) -> bool:
    """Whether the process that `identity` described still runs. Zombies do not."""
    return identity(int(process["pid"])) == dict(process)


def identity(pid: int) -> Optional[Dict[str, Any]]:
    """What tells a living process from every other on this machine, before and after a restart."""
    if _HAS_PROC:
        try:
            with open("/proc/%d/stat" % pid, "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            with open("/proc/sys/kernel/random/boot_id") as file:
                boot = file.read().strip()
        except OSError:
            return None
        if fields[0] in (b"Z", b"X"):
            return None
        return {"pid": pid, "started": fields[19].decode("ascii"), "boot": boot}
    import subprocess

    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    told = subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout.decode().strip()
    return {"pid": pid, "started": told, "boot": ""} if told else None


def _warm(runner: str) -> bool:
    """Load what jobs need. Without the runner, only programs can be started."""
    sys.path[0] = runner
    try:
        from deepforge.runner.__main__ import warm

        warm()
    except Exception:
        traceback.print_exc()
        return False
    return True


def _keep(orders: int, settings: Optional[Mapping[str, str]]) -> NoReturn:
    """Everything between the fork of a keeper and its end. With settings it is a spare one."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        orders = _close_all_but(orders)
        _close_input()  # else a starter that is killed would seem to listen still
        _become_subreaper()
        runner = None if settings is None else _fork_runner(settings)
        line = _read_line(orders)
        order = json.loads(line) if line else {}
        me = json.dumps(identity(os.getpid())).encode("ascii")
        if not order or not write_once(order["keeper"], me):
            _kill_all(0)
            os._exit(0)  # the starter has ended, or somebody gave this start up meanwhile
        os.close(orders)
        os.chdir(order["work"])
        _redirect(order["stdout"], order["stderr"])
        will = _Will(order["exit"])
        will.execute(_Keeper(order).run(_begin(order, line, runner)))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _begin(order: Mapping[str, Any], line: bytes, runner: Optional[Tuple[int, int]]) -> int:
    """Have the job begin, in the runner that is ready if there is one; return the pid."""
    if runner is not None:
        pid, writer = runner
        try:
            _write_all(writer, line)
            os.close(writer)
            return pid
        except BrokenPipeError:  # it could not get ready
            os.close(writer)
            os.waitpid(pid, 0)
    pid = os.fork()
    if pid == 0:
        _die_with_keeper()
        os.setpgid(0, 0)
        _close_all_but()
        _become(order)
    try:
        os.setpgid(pid, pid)  # whichever of the two is first
    except OSError:
        pass
    return pid


def _fork_runner(settings: Mapping[str, str]) -> Tuple[int, int]:
    """Fork a process that gets ready to run a job; return its pid and where it takes its order."""
    orders, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _die_with_keeper()
            os.setpgid(0, 0)
            orders = _close_all_but(orders)
            from deepforge.runner.helper import make_helper
            from deepforge.runner.protocol import ENV_CACHE

            try:
                helper = make_helper(settings, settings[ENV_CACHE])
            except OSError:  # the job's own try will fail as well, and tell its user why
                helper = None
            line = _read_line(orders)
            if line:
                order = json.loads(line)
                os.close(orders)
                os.chdir(order["work"])
                _redirect(order["stdout"], order["stderr"])
                _become(order, helper)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(_COULD_NOT_START)
    os.close(orders)
    return pid, writer


class _Will:
    """How a job ended, to be written even when it has filled the disk: its room is kept free."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._kept = path + ".kept"
        with open(self._kept, "wb") as file:
            file.write(b" " * _LONGEST_WILL)

    def execute(self, found: Mapping[str, Any]) -> None:
        """Write it; where that cannot be done now, as soon as it can."""
        data = json.dumps(found).encode("ascii")
        while os.path.isdir(os.path.dirname(self._path)):
            try:
                with open(self._kept, "r+b", buffering=0) as file:
                    file.write(data.ljust(_LONGEST_WILL))
                os.replace(self._kept, self._path)
                return
            except OSError:  # until then, this process tells that the job is not over
                time.sleep(_WRITE_AGAIN_S)


class _Keeper:
    def __init__(self, order: Mapping[str, Any]) -> None:
        self._order = order
        self._asked: List[int] = []
        self._ended_by: Optional[str] = None
        self._status: Optional[int] = None
        self._killed = False

    def run(self, pid: int) -> Dict[str, Any]:
        """Stay beside the job; return its exit code, and why it was ended if it was."""
        reader, _ = _wake_pipe()
        for number in _HANDLED:
            signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else self._on_signal)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        walltime_s = self._order.get("walltime_s")
        end_at = time.monotonic() + walltime_s if walltime_s else None
        kill_at: Optional[float] = None
        while True:
            self._reap(pid)
            if self._status is not None:
                break
            now = time.monotonic()
            if END in self._asked or signal.SIGINT in self._asked:
                self._ended_by = self._ended_by or "cancel"
            elif STOP in self._asked:
                self._ended_by = self._ended_by or "stop"
            elif end_at is not None and now >= end_at:
                self._ended_by = self._ended_by or "walltime"
            if self._ended_by is not None and kill_at is None:
                kill_at = now + float(self._order["grace_s"])
                self._ask_to_end(pid)
            if kill_at is not None and now >= kill_at:
                self._killed = True
                _kill_all(pid)
                kill_at = now + _KILL_WITHIN_S
            waits = [at - now for at in (kill_at or end_at,) if at is not None]
            select.select([reader], [], [], max(0.0, min(waits)) if waits else None)
            _drain(reader)
        if not _is_alone():
            _kill_all(pid)
        code = _exit_code(self._status)
        return {"code": code, "ended_by": self._ended_by, "killed": self._killed}

    def _ask_to_end(self, pid: int) -> None:
        """As Ctrl-C would: our runner ends its operation itself, and says what became of it."""
        try:
            if self._order["kind"] == "runner":
                os.kill(pid, signal.SIGTERM)
            else:
                os.killpg(pid, signal.SIGINT)
        except (ProcessLookupError, PermissionError):
            pass

    def _reap(self, child: int) -> None:
        for pid, status in _ended():
            if pid == child:
                self._status = status

    def _on_signal(self, number: int, _frame: object) -> None:
        self._asked.append(number)


def _become(order: Mapping[str, Any], helper: Any = None) -> NoReturn:
    """Become the job. `helper` is one of the runner's."""
    try:
        for number in (*_HANDLED, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        if order["kind"] != "runner":
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            command = list(order["command"])
            os.execvpe(command[0], command, dict(order["environment"]))
        if order["gpus"]:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(order["gpus"])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        sys.argv = ["runner.pyz", order["job"]]
        from deepforge.runner.__main__ import main as run_job

        code = run_job([order["job"]], None, order["settings"], helper)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    except OSError as error:
        os.write(2, ("cannot start %s: %s\n" % (order.get("command"), error)).encode("utf-8"))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(_COULD_NOT_START)


def write_whole(path: str, data: bytes) -> None:
    """Write a file all or nothing."""
    temporary = "%s.%s.part" % (path, os.urandom(6).hex())
    try:
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        _discard(temporary)
        raise


def write_once(path: str, data: bytes) -> bool:
    """Write a file all or nothing. False when there is one already, which stays."""
    temporary = "%s.%s.part" % (path, os.urandom(6).hex())
    try:
        with open(temporary, "wb") as file:
            file.write(data)
        os.link(temporary, path)
        return True
    except FileExistsError:
        return False
    finally:
        _discard(temporary)


def _discard(path: str) -> None:
    try:
        os.remove(path)
    except OSError:
        pass


def _close_input() -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _redirect(stdout: str, stderr: str) -> None:
    for number, path in ((1, stdout), (2, stderr)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, number)
        os.close(file)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]


def _become_subreaper() -> None:
    """Have orphans among our descendants come to us, where the system can do that (Linux)."""
    _prctl(36, 1)


def _die_with_keeper() -> None:
    """Have this process killed should its keeper be, where the system can do that (Linux)."""
    _prctl(1, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        try:
            import ctypes

            ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
        except (ImportError, OSError, AttributeError):
            pass  # an interpreter without ctypes: process groups must do


def _kill_all(child: int) -> None:
    """Kill every descendant of this process: again and again, for those that run away by forking."""
    deadline = time.monotonic() + _KILL_WITHIN_S
    try:
        if child:
            os.killpg(child, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    while time.monotonic() < deadline:
        found = _descendants()
        if not found:
            return
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        time.sleep(0.005)


def _is_alone() -> bool:
    """Whether no child is left, where that is all there can be. Cheap."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return sys.platform.startswith("linux")
    return False


def _descendants() -> Set[int]:
    """All living descendants of this process. Empty where there is no /proc."""
    parents: Dict[int, int] = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return set()
    for name in names:
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name, "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if fields[0] not in (b"Z", b"X"):
                parents[int(name)] = int(fields[1])
    mine, grown = {os.getpid()}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in mine and pid not in mine}
        mine |= more
        grown = bool(more)
    return mine - {os.getpid()}


def _ended() -> List[Tuple[int, int]]:
    found: List[Tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        found.append((pid, status))


def _exit_code(status: int) -> int:
    """The exit code, or the negative number of the signal that ended it."""
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _drain(reader: int) -> None:
    try:
        while os.read(reader, 512):
            pass
    except BlockingIOError:
        pass


def _wake_pipe() -> Tuple[int, int]:
    """A pipe that signals write to."""
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader, writer


def _read_line(orders: int) -> bytes:
    """Wait for a line; empty when none comes any more."""
    told = b""
    while not told.endswith(b"\n"):
        data = os.read(orders, 65536)
        if not data:
            return b""
        told += data
    return told


def _write_all(number: int, data: bytes) -> None:
    view = memoryview(data)
    while len(view):
        view = view[os.write(number, view) :]


def _close_all_but(number: int = 2) -> int:
    """Close every descriptor beyond the first three but this one; return its new number."""
    if number > 3:
        os.dup2(number, 3, inheritable=False)
        number = 3
    os.closerange(number + 1, min(_MOST_OPEN_FILES, os.sysconf("SC_OPEN_MAX")))
    return number


def _nothing(_number: int, _frame: object) -> None:
    """The signal wakes the loop through the pipe."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
