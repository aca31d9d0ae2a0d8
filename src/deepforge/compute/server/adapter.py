"""Server Compute: jobs on the server's own machine, a bounded number at once, the others queued.

It works on Linux and macOS. On macOS there are no subreapers: a job that starts a daemon in a
session of its own can leave it behind.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from deepforge.compute.port import (
    JOB_KEY,
    PYTHON,
    Capabilities,
    ComputeAdapter,
    Host,
    JobHandle,
    JobReport,
    JobRequest,
    Refusal,
)
from deepforge.compute.server.folder import OWN_PREFIX, Folder, JobFolder
from deepforge.compute.server.interpreter import check_python, full_path
from deepforge.compute.server.launch import RUNNER_FILE
from deepforge.compute.server.link import Link
from deepforge.errors import (
    AdapterBug,
    ConfigError,
    DeepForgeError,
    InvalidRequest,
    StorageFull,
    Unavailable,
)
from deepforge.machine import machine_space
from deepforge.runner.files import remove_tree
from deepforge.runner.protocol import ENV_CACHE, ENV_CACHE_BYTES, ENV_PYTHON, ENV_START
from deepforge.settings import setting

_CHECK_WITHIN_S = 30.0
_SWEEP_AFTER_S = 10.0
_LOG_CHUNK_BYTES = 256 * 1024
_LONGEST_HANDED = 256 * 1024
_MAKE_ROOM = "free some space there, or move DEEPFORGE_HOME to another disk"


@dataclass(frozen=True)
class ServerSettings:
    """Settings of Server Compute."""

    slots: int | None = setting(
        "How many jobs run at once; further ones wait their turn. Default: one for each core.",
        default=None,
    )
    python: str | None = setting(
        "Python interpreter that runs the operations. Default: the one that runs DeepForge.",
        default=None,
        example="/opt/conda/envs/lab/bin/python",
    )
    start: Literal["warm", "fresh"] = setting(
        "How an operation starts: forked from a warm interpreter, or in a fresh one, which takes "
        "ten times as long.",
        default="warm",
    )
    cache_bytes: int = setting(
        "Size limit of the data cache, where inputs are kept for the next job that needs them.",
        default=20 * 1024**3,
        unit="bytes",
    )


class ServerCompute(ComputeAdapter):
    """Runs jobs here. A supervisor process beside the server owns them, so they outlive it."""

    capabilities = Capabilities(
        log="live", cancel_running=True, walltime=True, max_poll_batch=1000, poll_every_s=0.1
    )
    grace_s: ClassVar[float] = 5.0
    """How long a job may take to end by itself before it is killed."""
    idle_s: ClassVar[float] = 30.0
    """How long a supervisor without jobs and connections stays."""

    settings: ServerSettings

    def __init__(self, settings: ServerSettings, host: Host) -> None:
        super().__init__(settings, host)
        wrong = {
            name: "must be at least 1"
            for name, value in (("slots", settings.slots), ("cache_bytes", settings.cache_bytes))
            if value is not None and value < 1
        }
        if wrong:
            listing = ", ".join(wrong)
            raise ConfigError(f"settings are wrong: {listing} must be at least 1", fields=wrong)
        self._folder = Folder(host.folder.absolute())
        self._slots = settings.slots or _cores()
        self._python = full_path(settings.python or sys.executable)
        self._sweeper: asyncio.Task[None] | None = None
        self._link = Link(self._folder, slots=self._slots, idle_s=self.idle_s)

    async def __aexit__(self, *exception: object) -> None:
        sweeper, self._sweeper = self._sweeper, None
        if sweeper is not None:
            sweeper.cancel()
            await asyncio.wait([sweeper])
            await asyncio.to_thread(_delete_all, self._folder.trash)
        await self._link.close()

    @property
    def file_spaces(self) -> Mapping[str, str]:
        return {machine_space(): "/"}

    @property
    def machine(self) -> str:
        return machine_space()

    @property
    def reaches_server(self) -> Literal["loopback"]:
        return "loopback"

    async def check(self) -> None:
        """Run a trivial job from end to end, past the queue.

        Raises `ConfigError` naming `python` when that is no interpreter we can use, `StorageFull`,
        and `Unavailable` when jobs cannot be started here.
        """
        await asyncio.to_thread(check_python, self._python)
        key = "check-" + secrets.token_hex(8)
        code = "import sys; sys.exit(42)"
        handle = await self._submit(JobRequest(key, (PYTHON, "-c", code)), urgent=True)
        try:
            report = await self._ended(handle)
        finally:
            await self.release(handle)
            await asyncio.to_thread(_delete_all, self._folder.trash)
        if report.exit_code != 42:
            raise Unavailable(
                f"a trivial job did not end as it should: {report}",
                hint=f"the supervisor's log is {self._folder.log}",
            )

    async def why_not(self, request: JobRequest) -> Sequence[Refusal]:
        """Refuse what this machine does not have: more cores or memory, GPUs to hand out."""
        asked, found = request.resources, []
        if asked.cpus is not None and asked.cpus > _cores():
            message = f"{asked.cpus} cores were asked for; this machine has {_cores()}"
            found.append(Refusal("resources.cpus", message))
        memory_bytes = _memory_bytes()
        if asked.memory_bytes is not None and memory_bytes and asked.memory_bytes > memory_bytes:
            message = (
                f"{asked.memory_bytes / 2**30:.1f} GiB of memory were asked for; "
                f"this machine has {memory_bytes / 2**30:.1f} GiB"
            )
            found.append(Refusal("resources.memory_bytes", message))
        if asked.gpus:
            found.append(
                Refusal(
                    "resources.gpus",
                    "Server Compute does not hand out GPUs",
                    hint="leave gpus out: operations see every GPU of the machine",
                )
            )
        return found

    async def submit(self, request: JobRequest) -> JobHandle:
        return await self._submit(request, urgent=False)

    async def poll(self, handles: Sequence[JobHandle]) -> list[JobReport]:
        answer = await self._ask({"op": "poll", "keys": [_key(handle) for handle in handles]})
        return [JobReport(*report) for report in answer["reports"]]

    async def cancel(self, handles: Sequence[JobHandle]) -> None:
        await self._ask({"op": "cancel", "keys": [_key(handle) for handle in handles]})

    async def log(self, handle: JobHandle, *, start: int = 0) -> AsyncIterator[bytes]:
        path = self._folder.job(_key(handle)).log
        try:
            file = await asyncio.to_thread(path.open, "rb")
        except FileNotFoundError:
            return  # not started, or released
        with file:
            file.seek(start)
            while chunk := await asyncio.to_thread(file.read, _LOG_CHUNK_BYTES):
                yield chunk

    async def release(self, handle: JobHandle) -> None:
        """Forget the job. Its folder is deleted within seconds, and when this is closed."""
        await self._ask({"op": "release", "key": _key(handle)})
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.create_task(self._sweep())

    async def _sweep(self) -> None:
        """Delete what was released. Not at once: file systems make new files slowly where some were
        just deleted, and one thread for many folders is cheaper than one for each."""
        await asyncio.sleep(_SWEEP_AFTER_S)
        await asyncio.to_thread(_delete_all, self._folder.trash)

    async def _submit(self, request: JobRequest, *, urgent: bool) -> JobHandle:
        is_runner = tuple(request.command[:2]) == (PYTHON, RUNNER_FILE)
        files = dict(request.files)
        if is_runner:
            files.pop(RUNNER_FILE, None)  # the supervisor has the runner of this version loaded
        handed = _handed(request.command, files) if is_runner else None
        record = self._record(request, handed, is_runner=is_runner, urgent=urgent)
        message = {"op": "submit", "key": request.key, "slots": self._slots}
        if handed is not None:
            if not self._folder.jobs.is_dir():
                await asyncio.to_thread(_make, self._folder)
            await self._ask({**message, "request": record}, current=True)
        else:
            await self._submit_staged(message, record, files)
        return {"key": request.key}

    async def _submit_staged(
        self, message: dict[str, Any], record: dict[str, Any], files: Mapping[str, bytes]
    ) -> None:
        """Submit a job with files: they are written here, and the supervisor takes them over."""
        name = secrets.token_hex(12)
        staged = self._folder.staging / name
        await asyncio.to_thread(_stage, self._folder, staged, record, files)
        message = {**message, "staging": name}
        try:
            answer = await self._ask(message, current=True)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        if answer["known"]:
            await asyncio.to_thread(shutil.rmtree, staged, ignore_errors=True)

    @cached_property
    def _environment(self) -> Mapping[str, str]:
        """What every job is told of this machine."""
        environment = {
            ENV_PYTHON: self._python,
            ENV_CACHE: str(self._folder.cache),
            ENV_CACHE_BYTES: str(self.settings.cache_bytes),
        }
        if self.settings.start == "warm":
            environment[ENV_START] = "fork"
        return environment

    def _record(
        self, request: JobRequest, handed: str | None, *, is_runner: bool, urgent: bool
    ) -> dict[str, Any]:
        """What the supervisor is told of the job."""
        return {
            "command": [self._python if word == PYTHON else word for word in request.command],
            "is_runner": is_runner,
            "handed": handed,
            "environment": self._environment,
            "walltime_s": request.resources.walltime_s,
            "grace_s": self.grace_s,
            "labels": dict(request.labels),
            "submitted_ns": time.time_ns(),
            "urgent": urgent,
        }

    async def _ask(self, message: dict[str, Any], *, current: bool = False) -> dict[str, Any]:
        answer = await self._link.ask(message, current=current)
        if "error" in answer:
            raise _refused(answer)
        return answer

    async def _ended(self, handle: JobHandle) -> JobReport:
        deadline = time.monotonic() + _CHECK_WITHIN_S
        while True:
            (report,) = await self.poll([handle])
            if report.state not in ("queued", "running"):
                return report
            if time.monotonic() > deadline:
                await self.cancel([handle])
                raise Unavailable(f"a trivial job did not end within {_CHECK_WITHIN_S:.0f} s")
            await asyncio.sleep(0.02)


def _key(handle: JobHandle) -> str:
    """The key in a handle; "" for one that is not ours: no job has it."""
    key = handle.get("key")
    return key if isinstance(key, str) and JOB_KEY.fullmatch(key) else ""


def _handed(command: Sequence[str], files: Mapping[str, bytes]) -> str | None:
    """The one small file that the runner reads, which can be handed to it without writing it."""
    if len(files) != 1 or tuple(command[2:]) != tuple(files):
        return None
    (data,) = files.values()
    try:
        return data.decode() if len(data) <= _LONGEST_HANDED else None
    except UnicodeDecodeError:
        return None


def _refused(answer: Mapping[str, Any]) -> DeepForgeError:
    message = f"the supervisor could not do it: {answer['message']}"
    if answer["error"] == "storage_full":
        return StorageFull(message, hint=_MAKE_ROOM)
    return (Unavailable if answer["error"] == "unavailable" else AdapterBug)(message)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def _stage(
    folder: Folder, staged: Path, record: dict[str, Any], files: Mapping[str, bytes]
) -> None:
    """Write a whole job folder where the supervisor can take it over by renaming it."""
    reserved = [name for name in files if name.startswith(OWN_PREFIX)]
    if reserved:
        raise InvalidRequest(f"the file name {reserved[0]!r} is reserved", part="files")
    with _disk_errors(folder.root):
        if not folder.staging.is_dir():
            _make(folder)
        try:
            staged.mkdir(mode=0o700)
            for name, data in files.items():
                path = staged / name
                if "/" in name:
                    path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            JobFolder(staged).begin_record(record)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise


def _make(folder: Folder) -> None:
    try:
        folder.make()
    except OSError as error:
        raise ConfigError(
            f"the folder {folder.root} cannot be made: {error.strerror}",
            hint="DEEPFORGE_HOME must be a folder that belongs to the user who runs the server",
        ) from error


@contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFull(
                f"there is no room for the job's files in {root}",
                hint=_MAKE_ROOM,
            ) from error
        if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.EISDIR, errno.ENOTDIR):
            message = f"a file of the job cannot be written: {error.strerror}"
            raise InvalidRequest(message, part="files") from error
        raise Unavailable(f"the job's files could not be written: {error}") from error


def _delete_all(trash: Path) -> None:
    """Delete all released folders, whatever their jobs made of them."""
    try:
        released = list(trash.iterdir())
    except OSError:  # there is none yet
        return
    for one in released:
        with suppress(OSError):  # what stays is tried again with the next ones
            remove_tree(str(one))
