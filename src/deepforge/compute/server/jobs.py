"""The queue and the jobs of one folder, as the supervisor sees them.

`submit`, `poll`, `cancel` and `release` answer messages and return at once; `step` does what is
due: reaps, ends, starts. Nothing here blocks for longer than a fork.
"""

from __future__ import annotations

import math
import os
import signal
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deepforge.compute.server import processes
from deepforge.compute.server.folder import EndedBy, Folder, JobFolder, read_json, write_json
from deepforge.compute.server.launch import Runner, Start, fork_job

_LOOK_EVERY_S = 0.1
_CLEAR_EVERY_S = 0.01
_CLEAR_WITHIN_S = 5.0
_TRY_AGAIN_AFTER_S = 1.0

Report = Sequence[Any]  # state, exit code, reason, message
_CANCELLED: Report = ("cancelled", None, None, None)
_MISSING: Report = ("missing", None, None, None)


@dataclass
class _Job:
    key: str
    folder: JobFolder
    request: dict[str, Any]
    state: Literal["queued", "running", "clearing", "ended"] = "queued"
    pid: int | None = None
    started: int | None = None
    """Start time of the first process, where it is not our own child."""
    ended_by: EndedBy | None = None
    walltime_at: float = math.inf
    kill_at: float = math.inf
    cleared_by: float = math.inf
    code: int | None = None
    report: Report = _MISSING

    @property
    def is_ours(self) -> bool:
        """Whether its first process is our child, so that `waitpid` tells its end."""
        return self.pid is not None and self.started is None


class Jobs:
    """All jobs of a folder. At most `slots` run at once; first come, first served."""

    def __init__(self, folder: Folder, *, slots: int, runner: Runner | None) -> None:
        self.next_step_at = math.inf
        self._folder = folder
        self._slots = slots
        self._runner = runner
        self._environment = dict(os.environ)
        self._jobs: dict[str, _Job] = {}
        self._queue: list[_Job] = []
        self._busy: dict[str, _Job] = {}
        self._retry_at = 0.0
        self._memory_kills = processes.out_of_memory_kills()

    @property
    def active(self) -> bool:
        return bool(self._queue or self._busy)

    def submit(self, message: dict[str, Any]) -> dict[str, Any]:
        """Take over a staged job folder, unless the key is known already."""
        key = str(message["key"])
        self._slots = int(message["slots"])
        if key in self._jobs:
            return {"known": True}
        staged = self._folder.staging / str(message["staging"])
        folder = self._folder.job(key)
        staged.rename(folder.root)
        job = self._read(key)
        if job is None:
            return {"error": "invalid_request", "message": f"the record of {key} is damaged"}
        self._queue.append(job)
        return {"known": False}

    def poll(self, message: dict[str, Any]) -> dict[str, Any]:
        reports = [_report(self._jobs.get(key)) for key in message["keys"]]
        return {"reports": reports}

    def cancel(self, message: dict[str, Any]) -> dict[str, Any]:
        for key in message["keys"]:
            job = self._jobs.get(key)
            if job is not None and job.state in ("queued", "running"):
                self._end(job, "cancel")
        return {}

    def release(self, message: dict[str, Any]) -> dict[str, Any]:
        """Forget an ended job: its folder goes to the trash, which the adapter empties."""
        job = self._jobs.get(message["key"])
        if job is None or job.state != "ended":
            return {}
        job.folder.root.rename(self._folder.trash / f"{job.key}-{time.time_ns()}")
        del self._jobs[job.key]
        return {}

    def recover(self) -> None:
        """Find the jobs that earlier supervisors left."""
        for folder in sorted(self._folder.jobs.iterdir()):
            job = self._read(folder.name)
            if job is None:  # written by a machine that lost power
                folder.rename(self._folder.trash / f"{folder.name}-{time.time_ns()}")
                continue
            job.ended_by = job.folder.read_ended_by()
            self._find_again(job)
        self._queue.sort(key=lambda job: (job.request["submitted_ns"], job.key))

    def step(self) -> None:
        """Do what is due. Afterwards `next_step_at` says when, at the latest, to call again."""
        self._reap()
        for job in list(self._busy.values()):
            self._look_after(job)
        self._clear()
        self._start_queued()
        self.next_step_at = self._due_at()

    def _due_at(self) -> float:
        """When time alone makes something due."""
        now = time.monotonic()
        due = [self._retry_at if self._queue and self._retry_at > now else math.inf]
        for job in self._busy.values():
            if job.state == "clearing":
                due.append(now + _CLEAR_EVERY_S)
            elif job.is_ours:
                due += [job.kill_at, job.walltime_at]
            else:
                due.append(now + _LOOK_EVERY_S)
        return min(due)

    def _read(self, key: str) -> _Job | None:
        folder = self._folder.job(key)
        request = read_json(folder.request)
        if request is None:
            return None
        job = _Job(key, folder, request)
        self._jobs[key] = job
        return job

    # -- starting --------------------------------------------------------------------------

    def _start_queued(self) -> None:
        if time.monotonic() < self._retry_at:
            return
        free = self._slots - sum(not job.request["urgent"] for job in self._busy.values())
        for job in list(self._queue):
            if job.request["urgent"] or free > 0:
                free -= not job.request["urgent"]
                self._queue.remove(job)
                self._start(job)

    def _start(self, job: _Job) -> None:
        request = job.request
        command = list(request["command"])
        start = Start(
            command=command,
            environment={**self._environment, **request["environment"]},
            runner=self._runner if request["is_runner"] else None,
            arguments=command[2:],
        )
        try:
            job.pid = fork_job(job.folder, start)
        except OSError:  # no more processes, no room: later may work
            traceback.print_exc()
            self._later(job)
            return
        job.state = "running"
        if request["walltime_s"] is not None:
            job.walltime_at = time.monotonic() + request["walltime_s"]
        self._busy[job.key] = job

    def _later(self, job: _Job) -> None:
        job.pid = None
        self._retry_at = time.monotonic() + _TRY_AGAIN_AFTER_S
        self._enqueue(job, first=True)

    def _enqueue(self, job: _Job, *, first: bool = False) -> None:
        if job.ended_by is not None:
            job.state, job.report = "ended", _CANCELLED
            return
        job.state = "queued"
        self._queue.insert(0 if first else len(self._queue), job)

    # -- finding again ---------------------------------------------------------------------

    def _find_again(self, job: _Job) -> None:
        """Judge from the files alone what became of a job."""
        if not job.folder.process.exists():
            self._enqueue(job)
            return
        process = read_json(job.folder.process)
        if process is None:
            if _size(job.folder.process) == 0 and not job.folder.is_locked():
                self._enqueue(job)  # claimed, and the fork never came to run anything
                return
            job.state = "running"  # between its fork and its record: look again soon
            self._busy[job.key] = job
            return
        job.pid, job.started = int(process["pid"]), int(process["started"])
        same_machine_run = process["boot"] == processes.boot_id()
        if same_machine_run and processes.is_alive(job.pid, job.started):
            job.state = "running"
            if job.request["walltime_s"] is not None:
                left_s = process["at"] + job.request["walltime_s"] - time.time()
                job.walltime_at = time.monotonic() + max(0.0, left_s)
            self._busy[job.key] = job
            if job.ended_by is not None:
                self._end(job, job.ended_by)
            return
        if same_machine_run:
            pid, started = job.pid, job.started
            processes.end(lambda: processes.session_members(pid, started))
        self._ended(job)

    # -- ending ----------------------------------------------------------------------------

    def _end(self, job: _Job, by: EndedBy) -> None:
        """Ask a job to end; what is left of it after its grace is killed."""
        if job.kill_at < math.inf:
            return
        if job.ended_by is None:
            job.ended_by = by
            try:
                job.folder.ended_by.write_text(by)
            except OSError:
                traceback.print_exc()  # a full disk must not keep a job alive
        if job.state == "queued":
            self._queue.remove(job)
            job.state, job.report = "ended", _CANCELLED
            return
        job.kill_at = time.monotonic() + job.request["grace_s"]
        if job.pid is not None:
            processes.send_group(job.pid, signal.SIGTERM)

    def _look_after(self, job: _Job) -> None:
        """Watch over one running job: its limits, and its end where we are not its parent."""
        if job.state != "running":
            return
        now = time.monotonic()
        if not job.is_ours and not self._is_still_there(job):
            return
        if now >= job.walltime_at:
            job.walltime_at = math.inf
            self._end(job, "walltime")
        if now >= job.kill_at and job.pid is not None:
            job.kill_at = now + _TRY_AGAIN_AFTER_S
            self._kill(job.pid)

    def _is_still_there(self, job: _Job) -> bool:
        if job.pid is None:
            self._busy.pop(job.key)
            self._find_again(job)
            return False
        if processes.is_alive(job.pid, job.started or 0):
            return True
        pid, started = job.pid, job.started or 0
        processes.end(lambda: processes.session_members(pid, started))
        self._ended(job)
        return False

    def _kill(self, pid: int) -> None:
        processes.end(lambda: processes.tree([pid]))
        if not processes.LINUX:
            processes.send_group(pid, signal.SIGKILL)

    def _reap(self) -> None:
        ours = {job.pid: job for job in self._busy.values() if job.is_ours}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            job = ours.get(pid)
            if job is None:
                continue  # an orphan that we adopted
            job.state = "clearing"
            job.code = os.waitstatus_to_exitcode(status)
            job.cleared_by = time.monotonic() + _CLEAR_WITHIN_S
            if not processes.LINUX:
                processes.send_group(pid, signal.SIGKILL)

    def _clear(self) -> None:
        """Kill what ended jobs left behind; then they have ended indeed.

        A child of ours that is no job's first process was orphaned by one that is gone.
        """
        clearing = [job for job in self._busy.values() if job.state == "clearing"]
        strays = processes.children() - {
            job.pid for job in self._busy.values() if job.is_ours and job.state == "running"
        }  # fmt: skip
        if strays:
            processes.end(lambda: processes.tree(strays))
        now = time.monotonic()
        for job in clearing:
            if not strays or now >= job.cleared_by:
                self._ended(job)

    def _ended(self, job: _Job) -> None:
        """Write down how a job ended, once, and free its place."""
        self._busy.pop(job.key, None)
        found = read_json(job.folder.exit)
        if found is None and job.is_ours and _size(job.folder.process) == 0:
            self._later(job)  # it could not even write who it is: nothing was started
            return
        if found is None:
            found = self._judge(job)
            try:
                write_json(job.folder.exit, found)
            except OSError:
                traceback.print_exc()  # the next supervisor judges again
        job.state, job.pid = "ended", None
        job.report = _final(found, job.ended_by)

    def _judge(self, job: _Job) -> dict[str, Any]:
        """What to write for a first process that could not do it itself."""
        if job.ended_by is not None:
            return {"code": -signal.SIGKILL if job.code is None else job.code}
        if job.code is None:
            return {"code": None, "reason": "node_failure"}
        if job.code == -signal.SIGKILL:
            kills = processes.out_of_memory_kills()
            grown, self._memory_kills = kills > self._memory_kills, kills
            if grown:
                return {"code": job.code, "reason": "out_of_memory"}
        return {"code": job.code}


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _report(job: _Job | None) -> Report:
    if job is None:
        return _MISSING
    if job.state == "ended":
        return job.report
    return ("queued" if job.state == "queued" else "running", None, None, None)


def _final(found: dict[str, Any], ended_by: EndedBy | None) -> Report:
    """The report of an ended job. A job that was asked to end and still made it to 0 has made it."""
    code = found.get("code")
    if found.get("reason") == "node_failure":
        message = (
            "its process ended while nobody watched, for example because the machine restarted"
        )
        return ("exited", None, "node_failure", message)
    if code != 0 and ended_by == "cancel":
        return _CANCELLED
    if code != 0 and ended_by == "walltime":
        return ("exited", code, "walltime", None)
    reason = found.get("reason") or ("signal" if code is not None and code < 0 else "normal")
    return ("exited", code, reason, None)
