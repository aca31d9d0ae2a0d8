"""One job of a worker, from its hand-out to the report of its end; one thread each.

What it has done is on the disk, in the job's folder: a worker that starts anew goes on from there.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Callable, Dict, Mapping, Optional, Tuple, TypeVar

from deepforge.worker.ends import (
    CANCELED,
    CREATED,
    FAILED,
    LOST,
    VANISHED,
    End,
    describe,
    end_of,
)
from deepforge.worker.folder import STDERR, STDOUT, JobFolder
from deepforge.worker.output import Output
from deepforge.worker.prepare import Ask, House, prepare_ours, prepare_source
from deepforge.worker.results import find_files, store
from deepforge.worker.server import Line, segment
from deepforge.worker.source import Config, read_config
from deepforge.worker.starter import END, STOP, is_alive
from deepforge.worker.trouble import JobEnded, Refused, Trouble

T = TypeVar("T")

SEGMENT_BYTES = 90_000  # the original takes bodies of 100 KB
OWN_SEGMENT_BYTES = 1024 * 1024
SOURCE_PATIENCE_S = 60.0  # for a server that answers, but not with the job's source
CLAIMED_WITHIN_S = 30.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 15.0
GRACE_S = 5.0  # for a job that was asked to end: our runner stores its log meanwhile
LOOK_S = 1.0


class _Leave(Exception):
    """The worker ends; what is left to do is on the disk."""


class _Lost(Exception):
    """The job is not ours any more: nothing of it counts."""


class Tender:
    """Tends the job that `record` describes, for as long as its thread runs.

    A record has `hash`, `ours` (whether our server handed it out, with all it needs) and `gpus`, and
    for ours `files`, `walltime_s`, and `runner` or `command`. `end` says how the job ended, once that
    is known.
    """

    def __init__(self, house: House, record: Dict[str, Any]) -> None:
        self.record = record
        self.hash = str(record["hash"])
        self.is_ours = bool(record.get("ours"))
        self.folder: JobFolder = house.folder.job(self.hash)
        self.name = os.path.basename(self.folder.root)
        self.end: Optional[End] = None
        self._house = house
        self._line = Line(house.url, house.token, self._check)
        self._thread = threading.Thread(target=self._run, name=self.name[:12], daemon=True)
        self._wake = threading.Event()
        self._allowed = self._cancelled = self._stopped = self._leaving = False
        self._keeper_ended = False
        self._never_began: Optional[str] = None
        self._never_fits: Optional[str] = None
        self._output: Optional[Output] = None
        self._info: Dict[str, Any] = {}
        self._config: Optional[Config] = None

    def start(self) -> None:
        self._thread.start()

    def allow(self, gpus: Tuple[str, ...]) -> None:
        """The job has its part of the machine, with these GPUs: it may begin."""
        self.record["gpus"] = list(gpus)
        self._allowed = True
        self._wake.set()

    def cancel(self) -> None:
        """End the job because its user wants that."""
        self._cancelled = True
        self._end_process(END)
        self._wake.set()

    def refuse(self, why: str) -> None:
        """The job does not fit into this machine, and never will."""
        self._never_fits = why
        self._wake.set()

    @property
    def is_running(self) -> bool:
        """Whether the job's process is there."""
        process = self.folder.process()
        return process is not None and self.folder.ended() is None and _runs(process)

    def stop(self) -> None:
        """End the job because the worker ends; it is given back."""
        self._stopped = True
        self._end_process(STOP)
        self._wake.set()

    def leave(self) -> None:
        """End this thread soon. The job goes on, and so does all that is on the disk."""
        self._leaving = True
        self._wake.set()

    def nudge(self) -> None:
        """The server is back: try again now."""
        self._wake.set()

    def keeper_ended(self, never_began: Optional[str]) -> None:
        """The process beside the job has ended, or could not be made."""
        self._never_began = never_began
        self._keeper_ended = True
        self._wake.set()

    def _run(self) -> None:
        try:
            try:
                self.end = self._to_end()
            finally:
                self._house.on_news("freed", self)
            self._report(self.end)
        except _Leave:
            self._line.close()
            return
        except (_Lost, Refused) as error:
            self.end = End(LOST, message=str(error) or None)
            self._end_process(STOP)
        except Exception as error:  # of the disk, or ours: the job must not be held for ever
            self.end = End(FAILED, reason="node_failure", message=describe(error))
            self._end_process(STOP)
            try:
                self._report(self.end)
            except (_Leave, _Lost, Refused, OSError):
                pass  # the server misses the job and starts it anew
        self._line.close()
        self.folder.remove()
        self._house.on_news("done", self)

    def _to_end(self) -> End:
        """Have the job run, or find it again, and return how it ended."""
        try:
            if self.folder.ended() is None and self.folder.process() is None:
                self._await_turn()
                self._begin()
            return self._attend()
        except JobEnded as error:
            return End(error.status, message=error.message)
        except (Trouble, Refused) as error:
            return End(FAILED, reason="node_failure", message=str(error))

    def _await_turn(self) -> None:
        while not self._allowed:
            self._refuse_ended()
            self._pause(LOOK_S)

    def _refuse_ended(self) -> None:
        """Raise if the job should not begin at all."""
        if self._leaving:
            raise _Leave
        if self._never_fits is not None:
            raise JobEnded(FAILED, self._never_fits)
        if self._cancelled:
            raise JobEnded(CANCELED, "it was cancelled before it began")
        if self._stopped:
            raise JobEnded(CREATED, "the worker ended before the job began")

    def _begin(self) -> None:
        """Prepare the job's folder and have it started."""
        if os.path.isdir(self.folder.root) and not self.folder.give_up_start():
            if self.folder.process() is not None:
                return  # what an earlier worker asked for has begun after all
        self.folder.begin(self.record)
        self.folder.empty()
        ask = Ask(self._line, lambda ask: self._patiently(ask, SOURCE_PATIENCE_S))
        order: Dict[str, Any] = {
            "id": self.name,
            "keeper": self.folder.keeper,
            "exit": self.folder.exit,
            "work": self.folder.work,
            "stdout": os.path.join(self.folder.work, STDOUT),
            "stderr": os.path.join(self.folder.work, STDERR),
            "grace_s": GRACE_S,
            "walltime_s": self.record.get("walltime_s"),
        }
        digest = self._house.runners.own
        if self.is_ours:
            digest, more = prepare_ours(self._house, self.record, self.folder, ask)
        else:
            self._info, self._config, more = prepare_source(
                self._house, self.folder, self.hash, ask
            )
        order.update(more)
        self._refuse_ended()
        self._house.launcher.start(digest, order)

    def _read_config(self) -> Config:
        self._config = read_config(self.folder.work)
        return self._config

    def _attend(self) -> End:
        """Stay beside the job until it has ended; send what it prints meanwhile."""
        if not self.is_ours and self._config is None:
            try:
                self._read_config()
            except JobEnded:
                pass  # the job has changed it; it goes on
        lost: Optional[_Lost] = None
        claim_by = time.monotonic() + CLAIMED_WITHIN_S
        asked: Optional[int] = None
        while True:
            found = self.folder.ended()
            if found is not None:
                if lost is not None:
                    raise lost
                return end_of(found)
            process = self.folder.process()
            if self._leaving:
                raise _Leave
            if process is None and (self._keeper_ended or time.monotonic() > claim_by):
                if self.folder.ended() is None and self.folder.give_up_start():
                    why = self._never_began or "its process could not be started"
                    return End(FAILED, reason="node_failure", message=why)
            elif process is not None and not _runs(process):
                found = self.folder.ended()
                return end_of(found) if found is not None else VANISHED
            wanted = END if self._cancelled else STOP if self._stopped else None
            if wanted is not None and wanted != asked and process is not None:
                self._end_process(wanted)
                asked = wanted
            pause_s = LOOK_S
            if self._config is not None and self._config.output_every_s:
                pause_s = min(pause_s, self._config.output_every_s)
            try:
                self._send_output()
            except _Lost as error:
                lost, self._stopped = error, True
                continue
            self._pause(pause_s)

    def _end_process(self, number: int) -> None:
        process = self.folder.process()
        if process is not None and _runs(process):
            try:
                os.kill(int(process["pid"]), number)
            except OSError:
                pass  # it has just ended

    def _send_output(self) -> None:
        """Send what there is, as far as the server takes it now. Raises `_Lost`."""
        if self._stopped:
            return
        if not self.is_ours:
            config = self._config
            if config is None or not (config.output_every_s or config.output_lines):
                return
        try:
            while self._send_segment(ended=False):
                pass
        except Trouble:
            pass  # with the next round, or at the end

    def _send_segment(self, *, ended: bool) -> bool:
        """Send the next segment. False if there is none."""
        if self._output is None:
            number = self._info.get("outputNumber")
            self._output = Output(
                os.path.join(self.folder.work, STDOUT),
                self.folder.sent,
                hash=self.hash,
                longest_bytes=OWN_SEGMENT_BYTES if self.is_ours else SEGMENT_BYTES,
                first=number + 1 if isinstance(number, int) else 0,
                errors="surrogateescape" if self.is_ours else "replace",
            )
        body = self._output.next(ended=ended)
        if body is None:
            return False
        try:
            self._line.tell("/rest/executor/output/" + segment(self.hash), body)
        except Refused as error:
            if self.is_ours and error.status == 409:
                raise _Lost(str(error)) from error
            if error.status != 413:
                return False
        self._output.took()
        return True

    def _report(self, end: End) -> None:
        """Tell the server how the job ended, after all that it printed and left."""
        body: Dict[str, Any] = {"hash": self.hash, "worker": self._house.client_id}
        if not self.is_ours and end.status != CREATED:
            body = {**self._info_of_job(), **body}
            end = self._keep_results(end, body)
        if end.status != CREATED:
            self._send_last_output()
        body["status"] = end.status
        began, ended = _mtime(self.folder.keeper), _mtime(self.folder.exit)
        if began and end.status != CREATED:
            body.update(startTime=began, finishTime=ended or _iso(time.time()))
        if self.is_ours:
            body["exitCode"] = end.exit_code
            said = {"reason": end.reason, "message": end.message, "instance": self._house.instance}
            body["deepforge"] = {name: one for name, one in said.items() if one is not None}
        self.end = end
        path = "/rest/executor/update/" + segment(self.hash)
        try:
            self._patiently(lambda: self._line.tell(path, body))
        except Refused as error:
            raise _Lost(str(error)) from error

    def _send_last_output(self) -> None:
        config = self._config
        if not self.is_ours and not (config and (config.output_every_s or config.output_lines)):
            return
        while self._patiently(lambda: self._send_segment(ended=True)):
            pass

    def _info_of_job(self) -> Dict[str, Any]:
        """What the server knows of the job: the original stores what it gets, whole."""
        if not self._info:
            try:
                path = "/rest/executor/info/" + segment(self.hash)
                self._info = self._patiently(lambda: self._line.ask("GET", path))
            except Refused as error:
                raise _Lost(str(error)) from error
        return {key: value for key, value in self._info.items() if key != "secret"}

    def _keep_results(self, end: End, body: Dict[str, Any]) -> End:
        """Store the result artifacts of a job that ran. Their failure is the job's."""
        if self.folder.process() is None:
            return end
        try:
            config = self._config or self._read_config()
            files = find_files(self.folder.work, config.artifacts)
            joint, hashes = store(self._line, self._patiently, self.folder.work, files)
        except JobEnded as error:
            return End(error.status, end.exit_code, end.reason, error.message)
        except Refused as error:
            return End("FAILED_TO_SAVE_ARTIFACT", end.exit_code, end.reason, str(error))
        body.update(resultHashes=hashes, resultSuperSetHash=joint)
        return end

    def _patiently(self, ask: Callable[[], T], answered_patience_s: Optional[float] = None) -> T:
        """Ask until there is an answer: a server may be gone for longer than any job.

        With `answered_patience_s`, one that answers uselessly is asked for so long only.
        """
        pause_s = FIRST_PAUSE_S
        give_up_at: Optional[float] = None
        while True:
            try:
                return ask()
            except Trouble as error:
                now = time.monotonic()
                if answered_patience_s is not None and error.answered:
                    give_up_at = give_up_at or now + answered_patience_s
                    if now >= give_up_at:
                        raise
            self._pause(pause_s)
            pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
            if answered_patience_s is not None:
                self._refuse_ended()

    def _pause(self, pause_s: float) -> None:
        """Wait, but for news."""
        self._wake.wait(pause_s)
        self._wake.clear()
        if self._leaving:
            raise _Leave

    def _check(self) -> None:
        """Called while an exchange waits."""
        if self._leaving:
            raise _Leave


def _runs(process: Mapping[str, Any]) -> bool:
    return "pid" in process and is_alive(process)


def _mtime(path: str) -> Optional[str]:
    try:
        return _iso(os.stat(path).st_mtime)
    except OSError:
        return None


def _iso(seconds: float) -> str:
    """As JavaScript writes times."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return "%s.%03dZ" % (whole, int(seconds * 1000) % 1000)
