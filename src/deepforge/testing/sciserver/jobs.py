"""The jobs of the stand-in: what they are, and the manager that takes them through their life."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import dataclass, field
from enum import IntFlag
from pathlib import Path

from deepforge.testing.sciserver.container import Container, Mount
from deepforge.testing.sciserver.faults import Fault, Faults
from deepforge.testing.sciserver.world import WORKSPACE, DataVolume, Domain, User, Volume, World


class Status(IntFlag):
    """Where a job is. The bits are the ones of the wire."""

    PENDING = 1
    QUEUED = 2
    ACCEPTED = 4
    STARTED = 8
    FINISHED = 16
    SUCCESS = 32
    ERROR = 64
    CANCELED = 128


ACTIVE = (Status.QUEUED, Status.ACCEPTED, Status.STARTED, Status.FINISHED)


@dataclass
class Message:
    """What the service says of a job."""

    id: int
    label: str
    content: str


@dataclass
class Job:
    """One submitted job. Times are seconds since the epoch; `results` is relative to the workspace."""

    id: int
    user: User
    domain: Domain
    image: str
    label: str
    command: str
    script: str
    results_parent: str
    data_volumes: list[tuple[DataVolume, bool]]
    user_volumes: list[tuple[Volume, bool]]
    submitted_at: float
    status: int = Status.PENDING
    started_at: float | None = None
    ended_at: float | None = None
    timeout_s: float | None = None
    results: str | None = None
    messages: list[Message] = field(default_factory=list)
    fault: Fault | None = None
    ends_as: int = Status.SUCCESS
    container: Container | None = None

    @property
    def is_open(self) -> bool:
        return self.status <= Status.FINISHED

    @property
    def shown_results(self) -> str | None:
        """Nobody is told of the folder before the job runs."""
        return self.results if self.status >= Status.STARTED else None

    @property
    def is_canceling(self) -> bool:
        return any(one.label == "CANCEL" for one in self.messages)

    @property
    def shown_status(self) -> int:
        if self.fault is None or self.fault.kind != "job_status":
            return self.status
        is_for_the_end = self.fault.status >= Status.FINISHED
        return self.fault.status if is_for_the_end != self.is_open else self.status


class Jobs:
    """All jobs, and the thread that moves them on every `tick_s`."""

    def __init__(self, world: World, faults: Faults, *, tick_s: float) -> None:
        self.tick_s = tick_s
        self.is_held = False  # nothing new is taken from the queue while this is set
        self.by_id: dict[int, Job] = {}
        self._world = world
        self._faults = faults
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sciserver-jobs")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End every container. Nothing of theirs runs afterwards."""
        self._end.set()
        self._thread.join()
        for job in self.by_id.values():
            if job.container is not None:
                job.container.end()

    def add(self, job: Job) -> None:
        with self._world.lock:
            job.fault = self._faults.take_job(job.label)
            self.by_id[job.id] = job

    def of(self, user: User) -> list[Job]:
        """The newest first."""
        with self._world.lock:
            return [one for one in reversed(self.by_id.values()) if one.user is user]

    def cancel(self, job: Job) -> None:
        with self._world.lock:
            if job.status == Status.PENDING:
                self._say(job, "CANCEL", f"Canceled by {job.user.name}")
                self._finish(job, Status.CANCELED)
            elif job.status < Status.FINISHED and not job.is_canceling:
                self._say(job, "CANCEL", f"Canceled by {job.user.name}")

    def _run(self) -> None:
        while not self._end.wait(self.tick_s):
            with self._world.lock:
                for job in list(self.by_id.values()):
                    if job.is_open:
                        self._move_on(job)

    def _move_on(self, job: Job) -> None:
        if job.is_canceling and job.status < Status.FINISHED:
            self._stop_container(job)
            self._finish(job, Status.CANCELED)
        elif job.status == Status.PENDING:
            if not self._has_to_wait(job):
                job.status, job.timeout_s = Status.QUEUED, job.domain.timeout_s
        elif job.status == Status.QUEUED:
            job.status = Status.ACCEPTED
        elif job.status == Status.ACCEPTED:
            self._start(job)
        elif job.status == Status.STARTED:
            self._watch(job)
        else:
            self._finish(job, job.ends_as)

    def _has_to_wait(self, job: Job) -> bool:
        if self.is_held or (job.fault is not None and job.fault.kind == "job_stuck"):
            return True
        taken = [
            other
            for other in self.by_id.values()
            if other.user is job.user and other.domain is job.domain and other.status in ACTIVE
        ]
        return len(taken) >= job.domain.jobs_per_user

    def _start(self, job: Job) -> None:
        now = self._world.now()
        job.started_at = now
        name = f"{job.id}_{os.urandom(4).hex()}"
        job.results = f"{job.results_parent.strip('/')}/{name}"
        folder = self.results_folder(job)
        assert folder is not None
        if job.fault is not None and job.fault.kind == "job_error":
            self._say(job, "ERROR", job.fault.text or "The container could not be started")
            self._finish(job, Status.ERROR)
            return
        try:
            folder.mkdir(parents=True)
            notebook = self._copied(job, folder)
            job.container = Container(
                self._world.folder / "containers" / str(job.id),
                self._mounts(job),
                job_folder=folder,
                working=job.results,
                command=job.command,
                notebook=notebook,
                token=self._world.users.add_token(job.user.name),
            )
        except OSError as error:
            self._say(job, "ERROR", f"Error when starting the container: {error.strerror}")
            self._finish(job, Status.ERROR)
            return
        job.status = Status.STARTED
        self._say(job, "STATUS", f"job_{job.id} started")

    def results_folder(self, job: Job) -> Path | None:
        """Where its files are on our disk; None before it started."""
        if job.results is None:
            return None
        root, owner, name, *rest = job.results.split("/")
        volume = self._world.volume(root, owner, name)
        return None if volume is None else volume.folder.joinpath(*rest)

    def _copied(self, job: Job, folder: Path) -> str:
        if not job.script:
            return ""
        place = self._world.place(job.script.removeprefix(WORKSPACE), job.user, "read")
        shutil.copyfile(place.on_disk, folder / place.on_disk.name)
        return place.on_disk.name

    def _mounts(self, job: Job) -> list[Mount]:
        assert job.results is not None
        results = "/".join(job.results.split("/")[:3])
        volumes = {
            f"{volume.root}/{volume.owner.name}/{volume.name}": (volume.folder, is_writable)
            for volume, is_writable in job.user_volumes
        }
        own = self._world.volume(*results.split("/")[:3])
        assert own is not None
        volumes[results] = (own.folder, True)  # the manager mounts it itself
        data = {volume.name: (volume.folder, writes) for volume, writes in job.data_volumes}
        return [
            Mount(folder, target, is_writable)
            for target, (folder, is_writable) in {**volumes, **data}.items()
        ]

    def _watch(self, job: Job) -> None:
        assert job.container is not None
        assert job.started_at is not None
        age_s = self._world.now() - job.started_at
        limit_s = job.domain.timeout_s
        if job.fault is not None and age_s >= job.fault.after_s:
            if job.fault.kind == "job_timeout":
                limit_s = 0.0
            elif job.fault.kind == "job_canceled":
                self._say(job, "CANCEL", "Canceled by an administrator")
                return
        code = job.container.exit_code()
        if code is None and age_s < limit_s:
            return
        if code is None:
            self._stop_container(job)
            self._say(job, "TIMEOUT", f"The job ran longer than {limit_s:.0f} seconds")
            job.ends_as = Status.ERROR
        elif code != 0:
            self._say(job, "ERROR", f"The container ended with exit code {code}")
            job.ends_as = Status.ERROR
        self._stop_container(job)
        if job.fault is not None and job.fault.kind == "job_vanish":
            folder = self.results_folder(job)
            assert folder is not None
            shutil.rmtree(folder)
        job.status = Status.FINISHED

    def _stop_container(self, job: Job) -> None:
        if job.container is not None:
            job.container.end()
            job.container = None

    def _finish(self, job: Job, status: int) -> None:
        job.status = status
        job.ended_at = self._world.now()

    def _say(self, job: Job, label: str, content: str) -> None:
        job.messages.append(Message(self._world.new_id(), label, content))
