"""Having jobs started: the worker's end of `starter.py`, one for each runner that is in use."""

from __future__ import annotations

import json
import subprocess
import threading
from typing import Any, Callable, Dict, List, Mapping, Optional

from deepforge.worker.runners import Runners

_ENDS_WITHIN_S = 5.0
_READY_WITHIN_S = 60.0

Ended = Callable[[str, Optional[str]], None]
"""Called with the id of a job whose keeper has ended, and why it could not even begin, if so."""


class StarterGone(OSError):
    """A process that starts jobs has ended."""


class Launcher:
    """Starts jobs. For all threads."""

    def __init__(
        self,
        runners: Runners,
        python: str,
        environment: Mapping[str, str],
        settings: Mapping[str, str],
        on_end: Ended,
    ) -> None:
        """`environment` is what starters and jobs see; `settings` are those of the runner."""
        self._runners = runners
        self._python = python
        self._environment = dict(environment)
        self._settings = dict(settings)
        self._on_end = on_end
        self._starters: Dict[str, _Starter] = {}
        self._lock = threading.Lock()

    def warm(self, digest: str) -> None:
        """Have the starter of a runner ready. Raises `OSError` when the interpreter cannot do that."""
        with self._lock:
            starter = self._starter(digest)
        starter.await_ready(_READY_WITHIN_S)

    def start(self, digest: str, order: Mapping[str, Any]) -> None:
        """Have a job started; its keeper claims it. Raises `OSError`: then nothing was started."""
        line = json.dumps(order).encode("ascii") + b"\n"
        with self._lock:
            starter = self._starter(digest)
            try:
                starter.order(str(order["id"]), line)
            except StarterGone:  # something killed it while it lay idle
                self._forget(starter)
                self._starter(digest).order(str(order["id"]), line)

    def close(self) -> None:
        """Let the starters end. Jobs and their keepers go on."""
        with self._lock:
            starters, self._starters = list(self._starters.values()), {}
        for starter in starters:
            starter.close()

    def _starter(self, digest: str) -> "_Starter":
        found = self._starters.get(digest)
        if found is None:
            command = [self._python, *self._runners.files(digest)]
            settings = json.dumps({"settings": self._settings}).encode("ascii") + b"\n"
            found = _Starter(command, self._environment, settings, self._on_end, self._on_gone)
            self._starters[digest] = found
        return found

    def _forget(self, starter: "_Starter") -> Optional[str]:
        """Use a starter no more; return the digest of its runner, if it was in use."""
        for digest, one in list(self._starters.items()):
            if one is starter:
                del self._starters[digest]
                return digest
        return None

    def _on_gone(self, starter: "_Starter", orders: Mapping[str, bytes]) -> None:
        """A starter has ended without these. Whoever began one after all has claimed it.

        One that was never ready is not tried again: the next one would do no better.
        """
        with self._lock:
            digest = self._forget(starter)
            for id, line in orders.items():
                try:
                    if digest is None or not starter.was_ready:
                        raise starter.gone()
                    self._starter(digest).order(id, line)
                except OSError as error:
                    self._on_end(id, str(error))


class _Starter:
    def __init__(
        self,
        command: List[str],
        environment: Mapping[str, str],
        settings: bytes,
        on_end: Ended,
        on_gone: "Callable[[_Starter, Mapping[str, bytes]], None]",
    ) -> None:
        self._process = subprocess.Popen(
            command,
            env=dict(environment),
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self.was_ready = False
        self._python = command[0]
        self._on_end = on_end
        self._on_gone = on_gone
        self._lock = threading.Lock()  # of what is written to it, and whether it still listens
        self._is_gone = False
        self._settled = threading.Event()  # it was ready, or has ended
        self._waiting: Dict[str, bytes] = {}  # orders that it has not taken yet
        self._send(settings)
        self._thread = threading.Thread(target=self._listen, daemon=True, name="starter")
        self._thread.start()

    def await_ready(self, within_s: float) -> None:
        """Wait until it is ready, or for so long. Raises `StarterGone` when it never will be."""
        if self._settled.wait(within_s) and not self.was_ready:
            raise self.gone()

    def order(self, id: str, line: bytes) -> None:
        """Have a job started. Raises `StarterGone`; if it ends later, `on_gone` has the order."""
        with self._lock:
            if self._is_gone:
                raise self.gone()
            self._waiting[id] = line
            self._send(line)

    def gone(self) -> "StarterGone":
        """Why it cannot start jobs any more, once it has ended."""
        code = self._process.returncode
        how = "exit code %s" % code if code is None or code >= 0 else "signal %d" % -code
        if self.was_ready:
            return StarterGone("what starts jobs has ended, with %s" % how)
        return StarterGone("%s cannot be started: it ended at once, with %s" % (self._python, how))

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        view = memoryview(line)
        try:
            while len(view):
                view = view[self._process.stdin.write(view) :]
        except BrokenPipeError:
            pass  # it is ending: its news end, too

    def close(self) -> None:
        """It ends when its standard input does."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join(_ENDS_WITHIN_S)

    def _listen(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._process.stdout as news:
            for line in iter(news.readline, b""):
                if not line.endswith(b"\n"):
                    break  # it was killed while it spoke
                said = json.loads(line)
                if "ready" in said:
                    self.was_ready = True
                    self._settled.set()
                elif "took" in said:
                    self._waiting.pop(said["took"], None)
                elif "ended" in said:
                    self._on_end(said["ended"], None)
                elif "failed" in said:
                    self._waiting.pop(said["failed"], None)
                    self._on_end(said["failed"], said["message"])
        self._process.wait()
        with self._lock:
            self._is_gone = True
            self._process.stdin.close()
        self._settled.set()
        self._on_gone(self, self._waiting)
