"""What the server sees of a running job: its log while it grows, and that it lives."""

from __future__ import annotations

import time
from typing import Any, Callable, Optional

from deepforge.runner.channel import Line, NotReached
from deepforge.runner.failures import AttemptOver, JobFailed, say
from deepforge.runner.spool import Spool
from deepforge.runner.watch import Watch
from deepforge.runner.wire import Client

SEND_EVERY_S = 0.5
LONGEST_PAUSE_S = 10.0
LONGEST_PIECE = 1024 * 1024
SILENCE_S = 15.0


class Live:
    """A thread that calls the server, started only for a job that prints or lasts.

    An answer that asks for the end cancels through `watch`; `over` says that the server does not
    want the attempt any more. A server that cannot be reached changes nothing for the job.
    """

    def __init__(
        self,
        make_line: Callable[[Client], Line],
        make_client: Callable[[Callable[[], None]], Client],
        watch: Watch,
        heartbeat_s: float,
    ) -> None:
        self.over = False
        self._make_line = make_line
        self._make_client = make_client
        self._watch = watch
        self._heartbeat_s = heartbeat_s
        self._called_s = time.monotonic()
        self._spool: Optional[Spool] = None
        self._sent_bytes = 0
        self._complained = False
        self._stopping: Any = None  # an event, and the thread that heeds it
        self._thread: Any = None

    def attend(self, spool: Optional[Spool] = None) -> None:
        """Call this now and then: it starts the thread when there is something to say."""
        if self._thread is not None:
            return
        self._spool = spool or self._spool
        quiet_s = time.monotonic() - self._called_s
        printed = self._spool is not None and self._spool.size_bytes > self._sent_bytes
        if quiet_s >= (SEND_EVERY_S if printed else self._heartbeat_s):
            import threading  # only here: once it is known, every fork takes longer

            self._stopping = threading.Event()
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread. `attend` may start it again."""
        if self._thread is not None:
            self._stopping.set()
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        client = self._make_client(self._check)
        line = self._make_line(client)
        pause_s = SEND_EVERY_S
        try:
            while not self.over:
                try:
                    if self._say(line):
                        self._watch.cancel()
                    pause_s = SEND_EVERY_S
                except (NotReached, JobFailed, OSError) as error:
                    if not self._complained:
                        say("the server is not reached: %s" % error)
                    self._complained = True
                    pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
                except AttemptOver:
                    self.over = True
                    self._watch.cancel()
                if self._stopping.wait(pause_s):
                    return
        except _Stopping:
            pass
        finally:
            client.close()

    def _say(self, line: Line) -> bool:
        """Send what was printed, or that we live, if it is time; return whether to cancel."""
        cancel = False
        spool = self._spool
        while spool is not None and spool.size_bytes > self._sent_bytes:
            with open(spool.path, "rb") as file:
                file.seek(self._sent_bytes)
                data = file.read(min(LONGEST_PIECE, spool.size_bytes - self._sent_bytes))
            cancel = line.log(self._sent_bytes, data) or cancel
            self._sent_bytes += len(data)
            self._called_s = time.monotonic()
        if time.monotonic() - self._called_s >= self._heartbeat_s:
            self._called_s = time.monotonic()
            cancel = line.heartbeat()
        return cancel

    def _check(self) -> None:
        if self._stopping.is_set():
            raise _Stopping()


class _Stopping(Exception):
    """The job goes on without us: it forks, or it has ended."""
