"""The worker: asks its server for jobs, as many as fit, and tends them until it is told to end."""

from __future__ import annotations

import os
import platform
import queue
import random
import shutil
import signal
import time
from collections import deque
from typing import Any, Dict, List, Mapping, Optional, Tuple

from deepforge.runner.cache import Cache
from deepforge.runner.protocol import (
    ENV_CACHE,
    ENV_CACHE_BYTES,
    ENV_PATIENCE,
    ENV_PYTHON,
    ENV_START,
)
from deepforge.runner.support import VERSION
from deepforge.worker.asker import Asker
from deepforge.worker.ends import FAILED, LOST
from deepforge.worker.folder import Folder
from deepforge.worker.launcher import Launcher, StarterGone
from deepforge.worker.machine import clean_environment
from deepforge.worker.options import Options
from deepforge.worker.prepare import House
from deepforge.worker.runners import Runners
from deepforge.worker.say import say
from deepforge.worker.slots import Need, Slots, read_need
from deepforge.worker.tender import Tender
from deepforge.worker.trouble import NotAdmitted, Refused, Trouble, WorkerError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
SHORTEST_PERIOD_S = 0.2
REPORTS_WITHIN_S = 10.0  # for the last reports of a worker that was told twice to end
ROOM_BYTES = 64 * 1024 * 1024  # with less of it on the disk, no new job begins
OVERTAKEN_WITHIN_S = 3.0  # how long our server may take to answer a question that was overtaken
AT_ONCE_S = 0.05
TRIM_EVERY_S = 600.0
KNOWN_AS_OVER = 1000  # jobs
OUTAGE_S = 75 * 60  # for as long our server keeps the jobs of a silent worker


class Worker:
    """One worker process. Make it in the main thread, `run` it there."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._folder = Folder(options.folder)
        self._slots = Slots(options.capacity)
        self._labels = list(options.labels)
        self._events: "queue.SimpleQueue[Tuple[str, Any]]" = queue.SimpleQueue()
        self._held: Dict[str, Tender] = {}
        self._over: "deque[str]" = deque(maxlen=KNOWN_AS_OVER)
        self._waiting: List[Tender] = []  # handed out, but there is no room yet
        self._tried_labels: Dict[str, str] = {}
        self._signals = 0
        self._asking: List[Asker] = []
        self._idle: List[Asker] = []
        self._has_changed = True
        self._ask_at = 0.0
        self._deaf_at = 0.0
        self._is_full = False
        self._is_known = False  # the server has answered properly once
        self._pause_s = 0.0
        self._period_s = 5.0
        self._can_wait = False
        self._said = ""

    def run(self) -> int:
        """Work until the process is told to end; return its exit code. Raises `WorkerError`."""
        self._open()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda got, _frame: self._events.put(("signal", got)))
        try:
            self._find_held()
            trim_at = time.monotonic() + TRIM_EVERY_S
            while not (self._signals and not self._held and self._is_deaf()):
                self._ask()
                self._handle(self._next_event())
                self._start_waiting()
                if time.monotonic() >= trim_at:
                    trim_at = time.monotonic() + TRIM_EVERY_S
                    Cache(self._folder.cache, self._options.cache_bytes).trim()
                if self._signals > 1:
                    self._stop_all()
                    break
        finally:
            self._launcher.close()
        left = len(self._held)
        say("ended" if not left else "ended; %d jobs will be reported at the next start" % left)
        return 0

    def _open(self) -> None:
        options = self._options
        self._folder.open()
        self._client_id = self._folder.client_id(options.url)
        self._instance = os.urandom(8).hex()
        runners = Runners(self._folder.runners)
        runners.clear()
        environment = {**clean_environment(os.environ), "ORIGIN_URL": options.url}
        settings = {
            ENV_CACHE: self._folder.cache,
            ENV_CACHE_BYTES: str(options.cache_bytes),
            ENV_PYTHON: options.python,
            ENV_PATIENCE: str(OUTAGE_S),
        }
        self._launcher = Launcher(
            runners,
            options.python,
            {**environment, "CUDA_VISIBLE_DEVICES": ""},  # a job that asks for GPUs gets its own
            {**settings, ENV_START: "fork"},
            self._on_keeper_end,
        )
        try:
            self._launcher.warm(runners.own)
        except OSError as error:
            text = "%s cannot be started: %s" % (options.python, error.strerror)
            raise WorkerError(
                str(error) if isinstance(error, StarterGone) else text,
                "say with --python which interpreter runs the jobs",
            ) from error
        self._house = House(
            url=options.url,
            token=options.token,
            client_id=self._client_id,
            instance=self._instance,
            folder=self._folder,
            runners=runners,
            launcher=self._launcher,
            environment=environment,
            settings=settings,
            python=options.python,
            on_news=lambda kind, tender: self._events.put((kind, tender)),
        )
        self._idle = [Asker(options.url, options.token, self._events) for _ in range(2)]
        gpus = len(options.capacity.gpus)
        say(
            "worker %s for %s: %d jobs at once, %d processors, %.1f GB of memory, %d GPUs, folder %s"
            % (
                self._client_id,
                options.url,
                options.capacity.jobs,
                options.capacity.cpus,
                options.capacity.memory_bytes / 1e9,
                gpus,
                self._folder.root,
            )
        )

    def _find_held(self) -> None:
        """Take up the jobs of an earlier worker where it left them."""
        for folder in self._folder.held():
            record = folder.record()
            tender = Tender(self._house, record)
            self._held[tender.hash] = tender
            if folder.process() is not None and folder.ended() is None:
                self._slots.restore(tender.hash, _need(record), tuple(record.get("gpus", ())))
            elif folder.process() is None:
                self._waiting.append(tender)
            tender.start()
        if self._held:
            say("found %d jobs again" % len(self._held))

    def _next_event(self) -> Optional[Tuple[str, Any]]:
        timeout_s = 1.0 if self._signals or self._is_full else 60.0
        if not self._asking:
            timeout_s = min(timeout_s, max(0.0, self._ask_at - time.monotonic()))
        try:
            return self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def _handle(self, event: Optional[Tuple[str, Any]]) -> None:
        if event is None:
            self._has_changed = self._has_changed or (self._is_full and self._has_room())
            return
        kind, what = event
        if kind == "answer":
            asker, answer = what
            self._asking.remove(asker)
            self._idle.append(asker)
            self._hear(answer, time.monotonic() - asker.asked_at)
        elif kind == "freed":
            self._slots.give_back(what.hash)
            self._has_changed = True
        elif kind == "keeper":
            name, never_began = what
            for tender in self._held.values():
                if tender.name == name:
                    tender.keeper_ended(never_began)
                    self._slots.give_back(tender.hash)
                    self._has_changed = True
        elif kind == "done":
            self._done(what)
        elif kind == "signal":
            self._signals += 1
            self._has_changed = True
            self._deaf_at = time.monotonic() + OVERTAKEN_WITHIN_S
            if self._signals == 1:
                say(
                    "told to end: %d jobs will be finished, no new one taken; tell it again to end "
                    "them too" % len(self._held)
                )

    def _done(self, tender: Tender) -> None:
        self._held.pop(tender.hash, None)
        self._over.append(tender.hash)
        self._slots.give_back(tender.hash)
        if tender in self._waiting:
            self._waiting.remove(tender)
        end = tender.end
        if end is None:
            return
        say("job %s: %s" % (tender.hash, end.status + (", " + end.message if end.message else "")))
        label = tender.record.get("label")
        if label and end.status not in (FAILED, LOST):
            self._labels.append(label)
        self._has_changed = True

    def _is_deaf(self) -> bool:
        """Whether no answer can bring a job any more: the server knows that we take none."""
        offers = any(asker.offers for asker in self._asking)
        return not offers or time.monotonic() > self._deaf_at or self._pause_s > 0.0

    def _ask(self) -> None:
        """Ask the server, if it is time: with the next question it learns what has changed.

        A question that waits at our server is never given up, for its answer may be a job; a second
        one that overtakes it has the server answer the first at once. So no more than two wait.
        """
        now = time.monotonic()
        if not self._asking:
            if now < self._ask_at and not (self._has_changed and self._pause_s == 0.0):
                return
        elif not (self._can_wait and self._has_changed and len(self._asking) == 1):
            return
        self._has_changed = False
        asker = self._idle.pop()
        self._asking.append(asker)
        asker.ask(self._question(), waits=self._can_wait)  # the first answer should come at once

    def _question(self) -> Dict[str, Any]:
        free = self._slots.free()
        takes = not self._signals and not self._waiting and self._has_room()
        whole = self._options.capacity
        return {
            "clientId": self._client_id,
            "availableProcesses": min(free.jobs, free.cpus) if takes else 0,
            "labels": list(self._labels),
            "runningJobs": list(self._held),
            "deepforge": {
                "version": VERSION,
                "instance": self._instance,
                "name": self._options.name,
                "cpus": whole.cpus,
                "memoryBytes": whole.memory_bytes,
                "gpus": len(whole.gpus),
                "free": {
                    "cpus": free.cpus,
                    "memoryBytes": free.memory_bytes,
                    "gpus": len(free.gpus),
                },
                "draining": bool(self._signals),
                "python": platform.python_version(),
                "platform": "%s %s" % (platform.system(), platform.machine()),
            },
        }

    def _has_room(self) -> bool:
        try:
            has_room = shutil.disk_usage(self._folder.root).free >= ROOM_BYTES
        except OSError:
            has_room = False
        if not has_room:
            self._say_once("the disk of %s is full: no job is taken" % self._folder.root)
        self._is_full = not has_room
        return has_room

    def _hear(self, answer: Any, after_s: float) -> None:
        """Take an answer, or the lack of one. Raises `WorkerError` if there was never a good one."""
        now = time.monotonic()
        if isinstance(answer, NotAdmitted) and not (self._is_known or self._held):
            raise WorkerError(
                "%s does not accept the access token" % self._options.url,
                "make one with the scope `worker` and give it with --token -",
            )
        if isinstance(answer, (Trouble, Refused)):
            self._pause_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, self._pause_s * 2))
            self._ask_at = now + self._pause_s * random.uniform(0.75, 1.25)
            self._say_once(_told(answer))
            return
        if self._pause_s or not self._said:
            for tender in self._held.values():
                tender.nudge()
            self._say_once("connected to %s" % self._options.url)
        self._pause_s, self._is_known = 0.0, True
        ours = answer.get("deepforge")
        could_wait = self._can_wait
        self._can_wait = isinstance(ours, dict)
        period = answer.get("refreshPeriod")
        if isinstance(period, (int, float)) and period > 0:
            self._period_s = max(SHORTEST_PERIOD_S, period / 1000)
        waits = self._can_wait and (after_s > AT_ONCE_S or could_wait != self._can_wait)
        self._ask_at = now if waits or (ours and answer["jobsToStart"]) else now + self._period_s
        for hash in _texts(answer.get("jobsToCancel")):
            if hash in self._held:
                say("job %s: its end is asked for" % hash)
                self._held[hash].cancel()
        self._take(answer, ours if isinstance(ours, dict) else {})

    def _take(self, answer: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
        jobs = ours.get("jobs")
        given = jobs if isinstance(jobs, dict) else {}
        for hash in _texts(answer.get("jobsToStart")):
            job = given.get(hash)
            record: Dict[str, Any] = {"hash": hash, "ours": isinstance(job, dict), "gpus": []}
            if isinstance(job, dict):
                resources = job.get("resources") or {}
                record.update(
                    files=job.get("files") or {},
                    command=job.get("command"),
                    runner=ours.get("runner"),
                    resources=resources,
                    walltime_s=resources.get("walltimeS"),
                )
            self._hold(record)
        labels = answer.get("labelJobs")
        for label, hash in labels.items() if isinstance(labels, dict) else ():
            if label not in self._labels and self._tried_labels.get(label) != hash:
                self._tried_labels[label] = hash
                self._hold({"hash": hash, "ours": False, "gpus": [], "label": label})

    def _hold(self, record: Dict[str, Any]) -> None:
        hash = record["hash"]
        if hash in self._held or self._signals > 1:
            return  # what is not listed is handed out again
        if record["ours"] and hash in self._over:
            return  # an answer that was late: ours are handed out once
        tender = self._held[hash] = Tender(self._house, record)
        say("job %s: taken" % hash)
        self._has_changed = True
        if not self._allow(tender):
            self._waiting.append(tender)
        tender.start()

    def _allow(self, tender: Tender) -> bool:
        gpus = self._slots.take(tender.hash, _need(tender.record))
        if gpus is not None:
            tender.allow(gpus)
        return gpus is not None

    def _start_waiting(self) -> None:
        for tender in list(self._waiting):
            why = self._slots.why_never(_need(tender.record))
            if why is not None:
                tender.refuse(why)
                self._waiting.remove(tender)
            elif self._allow(tender):
                self._waiting.remove(tender)

    def _stop_all(self) -> None:
        """End all jobs and report what can be reported soon; the rest stays on the disk."""
        say("told again to end: %d jobs are ended" % len(self._held))
        for tender in self._held.values():
            tender.stop()
        end_at: Optional[float] = None
        while self._held:
            if end_at is None and not any(one.is_running for one in self._held.values()):
                end_at = time.monotonic() + REPORTS_WITHIN_S
            if end_at is not None and time.monotonic() >= end_at:
                break
            try:
                self._handle(self._events.get(timeout=0.2))
            except queue.Empty:
                pass
        for tender in self._held.values():
            tender.leave()

    def _on_keeper_end(self, name: str, never_began: Optional[str]) -> None:
        self._events.put(("keeper", (name, never_began)))

    def _say_once(self, text: str) -> None:
        if text != self._said:
            self._said = text
            say(text)


def _told(error: Exception) -> str:
    if isinstance(error, NotAdmitted):
        return "%s; jobs that run go on, and it is tried again" % error
    return "no connection: %s" % error


def _need(record: Mapping[str, Any]) -> Need:
    return read_need(record.get("resources") or {})


def _texts(value: Any) -> List[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
