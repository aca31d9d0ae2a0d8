"""The supervisor: one small process per host folder that owns the queue and forks the jobs.

It is started on demand with a clean environment, outlives the server, and leaves by itself when it
has nothing to do. It may be killed at any moment: jobs go on without it, and the next one finds
everything again in the files of `folder`. Single-threaded on purpose, since it forks.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from deepforge.compute.server import processes, wire
from deepforge.compute.server.folder import Folder
from deepforge.compute.server.jobs import Jobs
from deepforge.compute.server.launch import Runner

_TAKE_OVER_WITHIN_S = 10.0
_HOUSEKEEPING_EVERY_S = 2.0
_UNREAD_BYTES = 64 * 1024


@dataclass(eq=False)
class _Connection:
    socket: socket.socket
    received: bytearray
    unsent: bytearray


def main(arguments: str) -> NoReturn:
    """Become the supervisor of a folder. `arguments` is a JSON object, see `Link._start`.

    The process that was started exits with 0 as soon as adapters can connect, be it to its child or
    to another supervisor that was quicker.
    """
    options = json.loads(arguments)
    folder = Folder(Path(options["folder"]))
    folder.make()
    lock = _take_lock(folder)
    if lock is None:
        os._exit(0)
    runner = _runner()
    listener = _listen(folder)
    if os.fork():
        os._exit(0)
    os.truncate(lock, 0)
    os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    processes.adopt_orphans()
    jobs = Jobs(folder, slots=int(options["slots"]), runner=runner)
    Supervisor(folder, listener, jobs, options["version"], float(options["idle_s"])).run()
    os._exit(0)


class Supervisor:
    """The loop: connections on one side, `Jobs` on the other."""

    def __init__(
        self, folder: Folder, listener: socket.socket, jobs: Jobs, version: str, idle_s: float
    ) -> None:
        self._folder = folder
        self._listener = listener
        self._jobs = jobs
        self._version = version
        self._idle_s = idle_s
        self._idle_since = time.monotonic()
        self._leaving = False
        self._connections: set[_Connection] = set()
        self._selector = selectors.DefaultSelector()
        self._address = _identity(folder.socket)
        self._ops: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "hello": self._hello,
            "leave": self._leave,
            "submit": jobs.submit,
            "poll": jobs.poll,
            "cancel": jobs.cancel,
            "release": jobs.release,
        }

    def run(self) -> None:
        """Serve until there is nothing to do for `idle_s`, or somebody asks to leave."""
        wake, wake_write = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._selector.register(wake, selectors.EVENT_READ, None)
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._selector.register(self._jobs.news, selectors.EVENT_READ, None)
        self._jobs.recover()
        processes.boot_id()  # remembered for every job
        gc.collect()
        gc.freeze()  # a forked job writes less into the pages it shares with us
        housekeeping = time.monotonic() + _HOUSEKEEPING_EVERY_S
        while not self._leaving:
            self._jobs.step()
            if time.monotonic() >= housekeeping:
                housekeeping = time.monotonic() + _HOUSEKEEPING_EVERY_S
                # somebody removed our folder, or took our place in it
                self._leaving = _identity(self._folder.socket) != self._address
            wait_s = self._wait_s(housekeeping)
            if self._jobs.lacks_process and wait_s > 0:
                if self._serve(wake, 0.0):
                    continue
                self._jobs.prepare()
            self._serve(wake, wait_s)
        self._close()

    def _wait_s(self, housekeeping: float) -> float:
        now = time.monotonic()
        if self._jobs.active or self._connections:
            self._idle_since = now
        elif now >= self._idle_since + self._idle_s:
            self._leaving = True
        until = [housekeeping, self._idle_since + self._idle_s, self._jobs.next_step_at]
        return 0.0 if self._leaving else max(0.0, min(until) - now)

    def _serve(self, wake: int, wait_s: float) -> bool:
        """Answer what there is to answer; False when there was nothing."""
        ready = self._selector.select(wait_s)
        for key, events in ready:
            if key.fd == wake:
                os.read(wake, 4096)
            elif key.fileobj is self._listener:
                self._accept()
            elif key.fd != self._jobs.news:
                self._talk(key.data, events)
        return bool(ready)

    def _on_signal(self, number: int, _frame: object) -> None:
        if number == signal.SIGTERM:
            self._leaving = True

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:  # it went away again, or too many files are open: the others matter more
            time.sleep(0.01)
            return
        accepted.setblocking(False)
        connection = _Connection(accepted, bytearray(), bytearray())
        self._connections.add(connection)
        self._selector.register(accepted, selectors.EVENT_READ, connection)

    def _talk(self, connection: _Connection, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                data = connection.socket.recv(_UNREAD_BYTES)
                if not data:
                    raise ConnectionResetError
                connection.received += data
                while (message := wire.take(connection.received)) is not None:
                    connection.unsent += wire.pack(self._answer(message))
            if connection.unsent:
                sent = connection.socket.send(connection.unsent)
                del connection.unsent[:sent]
        except BlockingIOError:
            pass
        except (OSError, ValueError):  # gone, or not one of ours
            self._forget(connection)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.unsent else 0)
        self._selector.modify(connection.socket, wanted, connection)

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        op = str(message.get("op"))
        if message.get("v") != wire.VERSION and op not in ("hello", "leave"):
            return {"error": "unavailable", "message": "it speaks another version of the protocol"}
        if op not in self._ops:
            return {"error": "adapter_bug", "message": f"there is no op {op!r}"}
        try:
            return self._ops[op](message)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            return {"error": "storage_full" if full else "unavailable", "message": str(error)}
        except Exception as error:  # one bad message must not end everybody's jobs' keeper
            traceback.print_exc()
            return {"error": "adapter_bug", "message": repr(error)}

    def _hello(self, _message: dict[str, Any]) -> dict[str, Any]:
        return {"version": self._version, "pid": os.getpid()}

    def _leave(self, _message: dict[str, Any]) -> dict[str, Any]:
        self._leaving = True
        return {}

    def _forget(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()

    def _close(self) -> None:
        self._jobs.leave()
        if _identity(self._folder.socket) == self._address:
            self._folder.socket.unlink()
        self._listener.close()


def _take_lock(folder: Folder) -> int | None:
    """Wait for the lock; None when somebody else holds it and listens."""
    lock = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _TAKE_OVER_WITHIN_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if _is_listening(folder):
                return None
        if time.monotonic() > deadline:
            sys.exit(f"{folder.lock} is held by a process that does not listen")
        time.sleep(0.005)


def _is_listening(folder: Folder) -> bool:
    os.chdir(folder.root)
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(folder.socket.name)
        except OSError:
            return False
    return True


def _listen(folder: Folder) -> socket.socket:
    os.chdir(folder.root)  # a socket's path may have 107 bytes at most: use the short one
    folder.socket.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(folder.socket.name)
    listener.listen(128)
    listener.setblocking(False)
    return listener


def _runner() -> Runner:
    """Import our runner once, with all that it may need, so that every fork has it."""
    from deepforge.runner import __main__ as runner

    runner.warm()
    return runner.main


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
