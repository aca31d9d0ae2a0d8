"""What a worker keeps on the disk, so that its jobs outlive it.

    lock                    held by the one worker of this folder
    identity.json           the name by which its server knows it, and which server that is
    token                   its access token (0600), if its owner put it there
    runners/<digest>/       runner.pyz as the server wants it, and what starts jobs with it
    cache/                  the runner's data cache, shared by all jobs
    jobs/<name>/            one job that the worker holds:
        record.json             what was handed out, and the GPUs it has
        keeper.json             the process that runs it
        exit.json               how it ended
        sent                    how much of its output the server has
        work/                   where it runs, and what it prints (job_stdout.txt, …)

A job stays here until the server has its end: this is the outbox.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import stat
from typing import Any, Callable, Dict, List, Optional

from deepforge.worker.starter import write_once, write_whole
from deepforge.worker.trouble import WorkerError

STDOUT, STDERR = "job_stdout.txt", "job_stderr.txt"

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Folder:
    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self.token = os.path.join(self.root, "token")
        self.cache = os.path.join(self.root, "cache")
        self.runners = os.path.join(self.root, "runners")
        self.jobs = os.path.join(self.root, "jobs")
        self._lock: Optional[Any] = None

    def open(self) -> None:
        """Make what is missing, and keep every other worker out until this process ends.

        Raises `WorkerError`.
        """
        import fcntl

        try:
            os.makedirs(self.root, mode=0o700, exist_ok=True)
            for one in (self.cache, self.runners, self.jobs):
                os.makedirs(one, mode=0o700, exist_ok=True)
            self._lock = open(os.path.join(self.root, "lock"), "a")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkerError(
                "another worker works in %s" % self.root,
                "one worker runs many jobs at once (--jobs); give a second one its own --folder",
            ) from None
        except OSError as error:
            raise WorkerError(
                "the folder %s cannot be used: %s" % (self.root, error.strerror or error),
                "choose another with --folder",
            ) from error

    def close(self) -> None:
        """Let another worker in."""
        if self._lock is not None:
            self._lock.close()

    def client_id(self, url: str) -> str:
        """The name of this worker for one server, the same after every restart.

        Raises `WorkerError` while it holds jobs of another server.
        """
        path = os.path.join(self.root, "identity.json")
        known = read_json(path)
        if known.get("url") == url and isinstance(known.get("clientId"), str):
            return str(known["clientId"])
        if known and os.listdir(self.jobs):
            raise WorkerError(
                "%s holds jobs of %s that have not been reported yet" % (self.root, known["url"]),
                "start a worker with that --url once more, or use another --folder",
            )
        host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:40] or "worker"
        made = {"url": url, "clientId": "%s_%s" % (host, os.urandom(4).hex())}
        write_whole(path, json.dumps(made).encode("utf-8"))
        return made["clientId"]

    def job(self, hash: str) -> "JobFolder":
        return JobFolder(os.path.join(self.jobs, _file_name(hash)))

    def held(self) -> List["JobFolder"]:
        """The jobs that an earlier worker of this folder held. What it did not even write down
        is removed: the server hands it out anew."""
        found = []
        for name in sorted(os.listdir(self.jobs)):
            one = JobFolder(os.path.join(self.jobs, name))
            if one.record():
                found.append(one)
            else:
                one.remove()
        return found


class JobFolder:
    """The folder of one job."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.work = os.path.join(root, "work")
        self.keeper = os.path.join(root, "keeper.json")
        self.exit = os.path.join(root, "exit.json")
        self.sent = os.path.join(root, "sent")
        self._record = os.path.join(root, "record.json")

    def begin(self, record: Dict[str, Any]) -> None:
        """Make the folder and write down what was handed out. Raises `OSError`."""
        os.makedirs(self.work, mode=0o700, exist_ok=True)
        write_whole(self._record, json.dumps(record).encode("utf-8"))

    def record(self) -> Dict[str, Any]:
        """What was handed out; empty when that was not written whole."""
        return read_json(self._record)

    def process(self) -> Optional[Dict[str, Any]]:
        """The process that runs the job, or did; None when nothing was started."""
        return read_json(self.keeper) or None

    def give_up_start(self) -> bool:
        """Have no keeper begin any more. False when one has begun."""
        return write_once(self.keeper, b"{}")

    def ended(self) -> Optional[Dict[str, Any]]:
        """How the job ended, once it has."""
        return read_json(self.exit) or None

    def empty(self) -> None:
        """Remove everything of the job but its record."""
        for name in os.listdir(self.root):
            if name != "record.json":
                remove_tree(os.path.join(self.root, name))
        os.makedirs(self.work, mode=0o700, exist_ok=True)

    def remove(self) -> None:
        """Remove everything, the record first: half a folder is none."""
        try:
            os.remove(self._record)
        except OSError:
            pass
        remove_tree(self.root)


def read_json(path: str) -> Dict[str, Any]:
    """Read an object; empty when there is none that is whole."""
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read().decode("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def remove_tree(path: str) -> None:
    """Remove a file or a folder, also what its owner closed. What cannot be removed stays."""

    def opened(function: Callable[..., Any], place: str, _error: Any) -> None:
        try:
            os.chmod(os.path.dirname(place), 0o700)
            if os.path.isdir(place) and not os.path.islink(place):
                os.chmod(place, 0o700)
                shutil.rmtree(place, ignore_errors=True)
            else:
                os.remove(place)
        except OSError:
            pass

    if stat.S_ISDIR(os.lstat(path).st_mode) if os.path.lexists(path) else False:
        shutil.rmtree(path, onerror=opened)
    else:
        try:
            os.remove(path)
        except OSError:
            pass


def _file_name(hash: str) -> str:
    """A job id may be any text; folders may not."""
    if _PLAIN.fullmatch(hash):
        return hash
    return "other-" + hashlib.sha256(hash.encode("utf-8")).hexdigest()[:40]
