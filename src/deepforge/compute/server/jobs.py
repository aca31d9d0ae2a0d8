"""The queue and the jobs of one folder, as the supervisor sees them.

`submit`, `poll`, `cancel` and `release` answer messages and return at once; `step` does what is
due: reaps, ends, starts. Nothing here blocks for longer than a fork.
"""

from __future__ import annotations

import errno
import math
import os
import signal
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deepforge.compute.server import processes
from deepforge.compute.server.folder import (
    NOBODY,
    EndedBy,
    Folder,
    JobFolder,
    Process,
)
from deepforge.compute.server.launch import FirstProcess, Runner, Start
from deepforge.compute.server.pool import Pool

_LOOK_EVERY_S = 0.1
_CLEAR_EVERY_S = 0.01
_CLEAR_WITHIN_S = 5.0
_END_WITHIN_S = 0.02  # nobody is answered meanwhile
_TRY_AGAIN_AFTER_S = 1.0
_MOST_SPARE = 256
_STAGED_WITHIN_S = 3600.0  # an adapter needs milliseconds

Report = Sequence[Any]  # state, exit code, reason, message
_CANCELLED: Report = ("cancelled", None, None, None)
_MISSING: Report = ("missing", None, None, None)


@dataclass
class _Job:
    key: str
    folder: JobFolder
    request: dict[str, Any]
    state: Literal["queued", "running", "clearing", "ended"] = "queued"
    first: FirstProcess | None = None
    """Its first process, where that is our own child."""
    process: Process | None = None
    """Its first process, where an earlier supervisor started it."""
    ended_by: EndedBy | None = None
    walltime_at: float = math.inf
    kill_at: float = math.inf
    cleared_by: float = math.inf
    code: int | None = None
    report: Report = _MISSING

    @property
    def is_urgent(self) -> bool:
        """Whether it starts at once, beside the slots."""
        return bool(self.request["urgent"])

    @property
    def pid(self) -> int | None:
        """Its first process, whoever started it."""
        if self.first is not None:
            return self.first.pid
        return self.process.pid if self.process is not None else None


class Jobs:
    """All jobs of a folder. At most `slots` run at once; first come, first served."""

    def __init__(self, folder: Folder, *, slots: int, runner: Runner) -> None:
        self.next_step_at = math.inf
        self._folder = folder
        self._slots = slots
        self._pool = Pool(runner)
        self._spare: list[Path] = []
        self._jobs: dict[str, _Job] = {}
        self._queue: list[_Job] = []
        self._busy: dict[str, _Job] = {}
        self._may_have_strays = False
        self._retry_at = 0.0
        self._memory_kills = processes.out_of_memory_kills()

    @property
    def active(self) -> bool:
        return bool(self._queue or self._busy)

    @property
    def news(self) -> int:
        """A descriptor that is readable when there is something for `step` to do."""
        return self._pool.news

    def submit(self, message: dict[str, Any]) -> dict[str, Any]:
        """Take over a job, with its staged folder if it has one, unless the key is known already."""
        key = str(message["key"])
        self._slots = int(message["slots"])
        if key in self._jobs:
            return {"known": True}
        if "request" in message:
            self._begin(key, message["request"])
            return {"known": False}
        staged = self._folder.staging / str(message["staging"])
        folder = self._folder.job(key)
        staged.rename(folder.root)
        recorded = folder.read()
        if recorded is None:
            return {"error": "unavailable", "message": f"the record of {key} is gone"}
        self._enqueue(self._add(key, recorded.request, folder))
        return {"known": False}

    def poll(self, message: dict[str, Any]) -> dict[str, Any]:
        return {"reports": [_report(self._jobs.get(key)) for key in message["keys"]]}

    def cancel(self, message: dict[str, Any]) -> dict[str, Any]:
        for key in message["keys"]:
            job = self._jobs.get(key)
            if job is not None and job.state in ("queued", "running"):
                self._end(job, "cancel")
        return {}

    def release(self, message: dict[str, Any]) -> dict[str, Any]:
        """Forget an ended job. Its folder waits for another job, or goes to the trash, which adapters
        empty."""
        job = self._jobs.get(message["key"])
        if job is not None and job.state == "ended":
            self._put_away(job.folder)
            del self._jobs[job.key]
        return {}

    def recover(self) -> None:
        """Find the jobs that earlier supervisors left, and throw away what nobody will miss."""
        for staged in self._folder.staging.iterdir():
            with suppress(FileNotFoundError):  # an adapter removed it itself
                if time.time() - staged.stat().st_mtime > _STAGED_WITHIN_S:
                    self._throw_away(staged)
        self._spare += self._folder.spare.iterdir()
        for root in self._folder.jobs.iterdir():
            try:
                folder = JobFolder(root)
                recorded = folder.read()
                if recorded is not None:
                    self._find_again(self._add(root.name, recorded.request, folder))
                    continue
            except (KeyError, TypeError, ValueError):  # one odd record must not hide the others
                traceback.print_exc()
            self._jobs.pop(root.name, None)
            self._throw_away(root)
        self._queue.sort(key=lambda job: (not job.is_urgent, job.request["submitted_ns"], job.key))

    def step(self) -> None:
        """Do what is due. Afterwards `next_step_at` says when, at the latest, to call again."""
        self._take_back()
        self._reap()
        for job in list(self._busy.values()):
            self._look_after(job)
        self._clear()
        self._start_queued()
        self.next_step_at = self._due_at()

    @property
    def lacks_process(self) -> bool:
        """Whether none waits for the next job, and none of those that run jobs will."""
        coming_back = sum(bool(job.request["is_runner"]) for job in self._busy.values())
        return not any(self._pool.pids) and coming_back < self._slots

    def prepare(self) -> None:
        """Fork a first process for the next job: when there is nothing better to do."""
        self._pool.prepare()

    def leave(self) -> None:
        """Let the waiting processes go. Jobs go on."""
        self._pool.leave()

    def _due_at(self) -> float:
        """When time alone makes something due."""
        now = time.monotonic()
        due = [self._retry_at if self._queue and self._retry_at > now else math.inf]
        for job in self._busy.values():
            if job.state == "clearing":
                due.append(now + _CLEAR_EVERY_S)
            elif job.first is None:
                due.append(now + _LOOK_EVERY_S)
            else:
                due += [job.kill_at, job.walltime_at]
        return min(due)

    def _begin(self, key: str, request: dict[str, Any]) -> None:
        """Make the folder of a job that has nothing but a request."""
        folder = self._folder.job(key)
        self._make_folder(folder.root)
        try:
            folder.begin_record(request)
        except BaseException:
            self._throw_away(folder.root)
            raise
        self._enqueue(self._add(key, request, folder))

    def _add(self, key: str, request: dict[str, Any], folder: JobFolder) -> _Job:
        job = self._jobs[key] = _Job(key, folder, request)
        return job

    def _put_away(self, folder: JobFolder) -> None:
        try:
            if len(self._spare) < _MOST_SPARE and folder.empty():
                spare = self._folder.spare / str(time.time_ns())
                folder.root.rename(spare)
                self._spare.append(spare)
                return
        except OSError:
            pass  # then not
        self._throw_away(folder.root)

    def _make_folder(self, root: Path) -> None:
        try:
            self._place_folder(root)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            self._throw_away(root)  # left by one that could not be begun
            self._place_folder(root)

    def _place_folder(self, root: Path) -> None:
        if self._spare:
            try:
                self._spare[-1].rename(root)
            except FileNotFoundError:  # somebody removed it
                self._spare.pop()
            else:
                self._spare.pop()
                return
        root.mkdir(mode=0o700)

    def _throw_away(self, root: Path) -> None:
        trash = self._folder.trash / f"{root.name}-{time.time_ns()}"
        with suppress(FileNotFoundError):  # somebody removed it
            try:
                root.rename(trash)
            except PermissionError:
                JobFolder(root).unlock()
                root.rename(trash)

    # -- starting --------------------------------------------------------------------------

    def _start_queued(self) -> None:
        free = self._slots - sum(not job.is_urgent for job in self._busy.values())
        while self._queue and time.monotonic() >= self._retry_at:
            if not self._queue[0].is_urgent:
                if free <= 0:
                    break
                free -= 1
            self._start(self._queue.pop(0))

    def _enqueue(self, job: _Job) -> None:
        job.state = "queued"
        self._queue.insert(0 if job.is_urgent else len(self._queue), job)

    def _start(self, job: _Job) -> None:
        request = job.request
        start = Start(
            key=job.key,
            folder=str(job.folder.root),
            command=request["command"],
            environment=request["environment"],
            is_runner=request["is_runner"],
            handed=request.get("handed"),
        )
        try:
            job.first = self._pool.hand_over(start)
        except OSError:  # no more processes: later may work
            traceback.print_exc()
            self._later(job)
            return
        job.state = "running"
        if request["walltime_s"] is not None:
            job.walltime_at = time.monotonic() + request["walltime_s"]
        self._busy[job.key] = job

    def _take_back(self) -> None:
        """Hear which jobs have ended in a process that waits for the next one."""
        for pid, key, code in self._pool.heard():
            job = self._busy.get(key)
            if job is None or job.first is None or job.first.pid != pid:
                continue  # it was killed before we heard of it: reaping has told us
            first, was_signalled = job.first, job.kill_at < math.inf
            self._settle(job, {"code": code})
            if was_signalled:
                first.dismiss()  # a signal for that job must not end another one
            else:
                self._pool.take_back(first, most=self._slots)

    def _later(self, job: _Job) -> None:
        self._retry_at = time.monotonic() + _TRY_AGAIN_AFTER_S
        job.state, job.first, job.kill_at = "queued", None, math.inf
        self._queue.insert(0, job)
        if job.ended_by is not None:
            self._end(job, job.ended_by)

    # -- finding again ---------------------------------------------------------------------

    def _find_again(self, job: _Job) -> None:
        """Judge from its record alone what became of a job."""
        recorded = job.folder.read()
        if recorded is None:  # somebody removed the folder
            job.state, job.report = "ended", _MISSING
            return
        job.process, job.ended_by = recorded.process, recorded.ended_by
        if recorded.exit is not None:  # its process may live on, for other jobs
            self._settle(job, recorded.exit)
            return
        if job.process is None:
            self._enqueue(job)
            if job.ended_by is not None:
                self._end(job, job.ended_by)
            return
        if job.process == NOBODY:
            job.state, job.report = "ended", _CANCELLED
            return
        job.state = "running"
        self._busy[job.key] = job
        if job.request["walltime_s"] is not None:
            left_s = recorded.since + job.request["walltime_s"] - time.time()
            job.walltime_at = time.monotonic() + max(0.0, left_s)
        if self._is_still_there(job, job.process) and job.ended_by is not None:
            self._end(job, job.ended_by)

    def _is_still_there(self, job: _Job, process: Process) -> bool:
        """Whether a first process that is not our child still runs. If not, the job has ended."""
        this_boot = process.boot == processes.boot_id()
        if this_boot and processes.is_alive(process.pid, process.started):
            return True
        if this_boot:
            processes.end(lambda: processes.session_members(process.pid, process.started))
        self._ended(job)
        return False

    # -- ending ----------------------------------------------------------------------------

    def _end(self, job: _Job, by: EndedBy) -> None:
        """Ask a job to end; what is left of it after its grace is killed."""
        if job.kill_at < math.inf:
            return
        if job.state == "queued":
            self._queue.remove(job)
            if job.folder.claim(NOBODY, time.time()):
                job.state, job.report = "ended", _CANCELLED
            else:  # the last act of a supervisor before us was to start it
                self._find_again(job)
        if job.state != "running":
            return
        if job.ended_by is None:
            job.ended_by = by
            try:
                job.folder.record(ended_by=by)
            except OSError:
                traceback.print_exc()  # a full disk must not keep a job alive
        job.kill_at = time.monotonic() + job.request["grace_s"]
        if job.pid is not None:
            processes.send(job.pid, signal.SIGTERM)

    def _look_after(self, job: _Job) -> None:
        """Watch over one running job: its limits, and its end where we are not its parent."""
        if job.state != "running":
            return
        if job.process is not None and not self._is_still_there(job, job.process):
            return
        now = time.monotonic()
        if now >= job.walltime_at:
            job.walltime_at = math.inf
            self._end(job, "walltime")
        if now >= job.kill_at:
            job.kill_at = now + _TRY_AGAIN_AFTER_S
            if job.pid is not None:
                self._kill(job.pid)

    def _kill(self, pid: int) -> None:
        processes.end(lambda: processes.tree([pid]), within_s=_END_WITHIN_S)
        if not processes.LINUX:
            processes.send_group(pid, signal.SIGKILL)

    def _reap(self) -> None:
        ours = {job.first.pid: job for job in self._busy.values() if job.first is not None}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._may_have_strays = True
            self._pool.forget(pid)
            job = ours.get(pid)
            if job is None or job.first is None:
                continue  # an orphan that we adopted, or one that we let go
            job.first.dismiss()
            job.state = "clearing"
            job.code = os.waitstatus_to_exitcode(status)
            job.cleared_by = time.monotonic() + _CLEAR_WITHIN_S
            if not processes.LINUX:
                processes.send_group(pid, signal.SIGKILL)

    def _clear(self) -> None:
        """Kill what ended jobs left behind; then they have ended indeed.

        A child of ours that is no job's first process was orphaned by one that is gone.
        """
        if not self._may_have_strays:
            return
        known = {job.pid for job in self._busy.values() if job.state == "running"}
        known.update(self._pool.pids)
        strays = processes.children() - known
        if strays:
            processes.end(lambda: processes.tree(strays), within_s=_END_WITHIN_S)
        self._may_have_strays = bool(strays)
        now = time.monotonic()
        for job in [one for one in self._busy.values() if one.state == "clearing"]:
            if not strays or now >= job.cleared_by:
                self._ended(job)

    def _ended(self, job: _Job) -> None:
        """Write down how a job ended, once, and free its place."""
        self._busy.pop(job.key, None)
        recorded = job.folder.read()
        if job.first is not None and recorded is not None:
            if recorded.process is None:  # it could not even say who it is: nothing was started
                self._later(job)
                return
            if recorded.process.pid != job.first.pid:  # an earlier supervisor's child was quicker
                job.first = job.code = None
                self._find_again(job)
                return
        found = recorded.exit if recorded is not None else None
        if found is None:
            found = self._judge(job)
            try:
                job.folder.record(exit=found)
            except OSError:
                traceback.print_exc()  # the next supervisor judges again
        self._settle(job, found)

    def _settle(self, job: _Job, found: dict[str, Any]) -> None:
        """Report from now on how a job ended, as its record says, and free its place."""
        self._busy.pop(job.key, None)
        job.state, job.first, job.process = "ended", None, None
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
