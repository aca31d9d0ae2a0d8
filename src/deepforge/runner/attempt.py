"""One attempt from its job to its `result.json`: fetch, run, store."""

from __future__ import annotations

import os
import time
import traceback
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from deepforge.runner import support
from deepforge.runner.cache import DEFAULT_LIMIT_BYTES, Cache
from deepforge.runner.channel import Line, NotReached
from deepforge.runner.code import find_code, unpack_code
from deepforge.runner.crew import MakeClient
from deepforge.runner.failures import AttemptOver, Cancelled, JobFailed, failed, of_disk, say
from deepforge.runner.fetch import Fetched, Item, fetch_many
from deepforge.runner.files import discard, remove_tree
from deepforge.runner.helper import Helper, python_of, support_of, wants_helper
from deepforge.runner.live import Live
from deepforge.runner.protocol import (
    ENV_CACHE,
    ENV_CACHE_BYTES,
    EXIT_CANCELLED,
    EXIT_FAILED,
    EXIT_SUCCEEDED,
    EXIT_TRY_AGAIN,
    LOG_FILE,
    Failure,
    Grant,
    InputRead,
    Job,
    Output,
    Result,
    log_marks,
    to_json,
)
from deepforge.runner.spool import Spool
from deepforge.runner.store import Upload, put_bytes, store_many
from deepforge.runner.supervise import cannot_start, supervise
from deepforge.runner.watch import Watch, patience_of
from deepforge.runner.wire import Client

CANCELLED_PATIENCE_S = 10.0  # whoever cancelled is waiting

MakeLine = Callable[[Client], Line]


class Attempt:
    """Runs one job in a folder of its own. Use it once.

    `client` is this thread's, and may be connected already; `make_client` makes those of others.
    """

    def __init__(
        self,
        job: Job,
        folder: str,
        settings: Mapping[str, str],
        watch: Watch,
        client: Client,
        make_client: MakeClient,
        make_line: Optional[MakeLine],
        helper: Optional[Helper] = None,
    ) -> None:
        self._job = job
        self._folder = folder
        self._settings = settings
        self._watch = watch
        self._client = client
        self._make_client = make_client
        self._make_line = make_line
        self._helper = helper
        self._live: Optional[Live] = None
        if make_line is not None and job.channel is not None:
            self._live = Live(make_line, make_client, watch, job.channel.heartbeat_s)
        self._spool = Spool(
            os.path.join(folder, LOG_FILE),
            job.limits.log_bytes,
            marks=log_marks(job.attempt) if make_line is None else None,
        )
        self._cache = _cache_of_this_machine(settings)
        self._patience_s = patience_of(settings)
        self._seconds: Dict[str, float] = {}
        self._environment = {"platform": _platform(), "runner": support.VERSION}
        self._from_cache = 0
        self._inputs_read: List[InputRead] = []
        self._temporary: List[str] = []

    def run(self) -> int:
        """Do everything and return the exit code. Leaves `result.json` wherever that is possible."""
        started_at = _now()
        result = Result(attempt=self._job.attempt, status="failed", started_at=started_at)
        try:
            result = replace(result, status="succeeded", outputs=self._produce())
        except Cancelled:
            result = replace(result, status="cancelled")
            self._patience_s = min(self._patience_s, CANCELLED_PATIENCE_S)
        except JobFailed as error:
            result = replace(result, failure=error.failure)
        except AttemptOver as error:
            say("the attempt is over: %s" % error)
            return self._leave(EXIT_CANCELLED)
        except Exception as error:  # ours: it becomes a failure like any other
            result = replace(result, failure=_our_fault(error))
        tell = self._spool.note if self._make_line is None else say  # not among what is printed
        _empty(os.path.join(self._folder, "work"), tell)  # it may be what fills the disk
        if self._live is not None and self._live.over:
            return self._leave(EXIT_CANCELLED)
        return self._leave(self._finish(result))

    def _produce(self) -> List[Output]:
        begun_s = time.monotonic()
        _clear(self._folder)
        with self._moving():
            code, inputs = self._fetch()
        begun_s = self._took("fetch", begun_s)

        outputs: List[Output] = []

        def reported(report: Dict[str, Any]) -> None:
            nonlocal outputs
            if report["failure"] is None:
                stored_s = self._took("run", begun_s)
                with self._moving():
                    outputs = self._store(report["outputs"])
                self._took("store", stored_s)

        report = self._operate(self._spec(code, inputs), reported)
        self._environment["python"] = report["python"]
        if report["failure"] is not None:
            raise JobFailed(Failure(**report["failure"]))
        if "store" not in self._seconds:  # it ended before we looked
            reported(report)
        return outputs

    @contextmanager
    def _moving(self) -> Iterator[None]:
        """While data are moved a cancel comes at once, and the server hears that we live."""
        watch = self._watch
        watch.tick = self._live.attend if self._live is not None else None
        watch.interrupts = True
        try:
            watch.check()
            yield
        finally:
            watch.interrupts = False
            watch.tick = None

    def _fetch(self) -> Tuple[str, Sequence[Optional[Fetched]]]:
        job = self._job
        code = find_code(job.code, self._cache)
        items = []
        if code is None:
            items.append(Item("code", job.code.grant, job.code.size_bytes, job.code.digest))
        for one in job.inputs:
            if one.grant is not None:
                items.append(Item(one.object_name, one.grant, one.size_bytes, one.digest))
        folder = os.path.join(self._folder, "inputs")
        fetched = fetch_many(
            items,
            folder,
            cache=self._cache,
            make_client=self._make_client,
            renew=self._renewal,
            watch=self._watch,
            patience_s=self._patience_s,
        )
        if code is None:
            code = unpack_code(job.code, fetched.pop(0).path, self._folder, self._cache)
        self._temporary = [one.path for one in fetched if one.path.startswith(folder)]
        self._from_cache = sum(one.cached for one in fetched)
        if self._cache is not None and any(item.grant.kind == "http" for item in items):
            self._cache.trim()
        waiting = iter(fetched)
        inputs = [next(waiting) if one.grant is not None else None for one in job.inputs]
        self._inputs_read = [
            InputRead(one.object_name, found.size_bytes, found.digest)
            for one, found in zip(job.inputs, inputs)
            if found is not None and one.digest is None
        ]
        return code, inputs

    def _spec(self, code: str, inputs: Sequence[Optional[Fetched]]) -> Dict[str, Any]:
        """What `call` needs to know, as plain values."""
        job, folder = self._job, self._folder
        return {
            "path": os.path.join(folder, "spec.txt"),
            "report": os.path.join(folder, "report.txt"),
            "support": "",
            "code": code,
            "module": job.operation.module,
            "name": job.operation.name,
            "file": job.operation.file,
            "arguments": [
                (one.name, one.literal, one.resource_module, one.resource_name, one.arguments)
                for one in job.arguments
            ],
            "inputs": [
                (one.name, one.position, found.path if found else None, one.type, one.format)
                for one, found in zip(job.inputs, inputs)
            ],
            "outputs": [
                (one.name, self._output_path(number)) for number, one in enumerate(job.outputs)
            ],
        }

    def _operate(
        self, spec: Dict[str, Any], reported: Callable[[Dict[str, Any]], None]
    ) -> Dict[str, Any]:
        own: Optional[Helper] = None
        start: Union[str, Helper, None] = self._helper
        if start is None:
            start = python = python_of(self._settings)
            spec["support"] = support_of(self._settings, self._folder)
            if wants_helper(self._settings):
                try:
                    start = own = Helper(python, spec["support"])
                except OSError as error:
                    raise cannot_start(python, error) from error
        live = self._live
        try:
            return supervise(
                spec,
                folder=self._folder,
                start=start,
                spool=self._spool,
                watch=self._watch,
                time_s=self._job.limits.time_s,
                tick=(lambda: live.attend(self._spool)) if live is not None else _nothing,
                reported=reported,
            )
        finally:
            if own is not None:
                own.end()

    def _store(self, written: Sequence[Any]) -> List[Output]:
        uploads = [
            Upload(
                "outputs/" + slot.name,
                self._output_path(number),
                slot.grant,
                slot.max_grant_bytes,
                slot.part_above_bytes,
            )
            for number, slot in enumerate(self._job.outputs)
        ]
        stored = store_many(
            uploads,
            make_client=self._make_client,
            make_line=self._make_line,
            renew=self._renewal,
            watch=self._watch,
            patience_s=self._patience_s,
        )
        return [
            Output(name, type_name, format_name, one.size_bytes, one.digest)
            for (name, type_name, format_name), one in zip(written, stored)
        ]

    def _finish(self, result: Result) -> int:
        """Store the log, then the result, then say so; return the exit code."""
        if self._live is not None:
            self._live.stop()
        self._spool.close()
        client = self._client
        client.check = _nothing  # a cancel comes too late now
        try:
            try:
                log = self._spool.summary(self._store_log())
                result = replace(result, log=log)
            except JobFailed as error:
                if result.status == "succeeded":
                    result = replace(result, status="failed", failure=error.failure, outputs=[])
            result = replace(
                result,
                ended_at=_now(),
                seconds=self._seconds,
                environment=self._environment,
                inputs_from_cache=self._from_cache,
                inputs=self._inputs_read,
            )
            _complain(result)
            put_bytes(
                client, "result", to_json(result), self._job.result, self._renewal, self._patience_s
            )
            self._hint(client)
        except JobFailed as error:
            say("the result cannot be stored: %s" % error)
            return EXIT_TRY_AGAIN if error.failure.transient else EXIT_FAILED
        except AttemptOver as error:
            say("the attempt is over: %s" % error)
            return EXIT_CANCELLED
        if result.status == "cancelled":
            return EXIT_CANCELLED
        if result.failure is not None:
            return EXIT_TRY_AGAIN if result.failure.transient else EXIT_FAILED
        return EXIT_SUCCEEDED

    def _store_log(self) -> Optional[str]:
        """Store what was printed, if anything was; return its digest."""
        if not self._spool.size_bytes:
            return None
        (stored,) = store_many(
            [Upload("log", self._spool.path, self._job.log)],
            make_client=self._make_client,
            renew=self._renewal,
            patience_s=self._patience_s,
        )
        return stored.digest

    def _hint(self, client: Client) -> None:
        """Tell the server that the result is there. It would find it anyway, a little later."""
        if self._make_line is not None:
            try:
                self._make_line(client).finished()
            except (NotReached, JobFailed, AttemptOver) as error:
                say("the server was not told that the job has ended: %s" % error)

    @property
    def _renewal(self) -> Optional[Callable[[Client, str], Grant]]:
        make_line = self._make_line
        if make_line is None:
            return None

        def renew(client: Client, name: str) -> Grant:
            found = make_line(client).grants([name], self._patience_s).get(name)
            if found is None:
                raise failed("runner", "The server did not grant %s again." % name)
            return found

        return renew

    def _took(self, part: str, begun_s: float) -> float:
        now_s = time.monotonic()
        self._seconds[part] = round(now_s - begun_s, 6)
        return now_s

    def _leave(self, code: int) -> int:
        """Stop what still goes on and give back the disk space; return the code."""
        if self._live is not None:
            self._live.stop()
        for number in range(len(self._job.outputs)):
            discard(self._output_path(number))
        for path in self._temporary:
            discard(path)
        if self._cache is not None:
            self._cache.close()
        return code

    def _output_path(self, number: int) -> str:
        return os.path.join(self._folder, "output-%d" % number)


def _clear(folder: str) -> None:
    """Remove what an attempt left that was begun in this folder before."""
    for name in ("inputs", "work"):
        _empty(os.path.join(folder, name))
    discard(os.path.join(folder, "report.txt"))


def _empty(path: str, tell: Callable[[str], None] = say) -> None:
    """Give back the disk space of a folder, if that can be done. An empty one stays: it costs
    nothing, and its platform may use it again."""
    try:
        if not os.listdir(path):
            return
    except FileNotFoundError:
        return
    except OSError:
        pass  # somebody closed it
    try:
        remove_tree(path)
    except OSError as error:
        tell("%s cannot be removed: %s" % (path, error))


def _cache_of_this_machine(settings: Mapping[str, str]) -> Optional[Cache]:
    folder = settings.get(ENV_CACHE)
    if not folder:
        return None
    limit = settings.get(ENV_CACHE_BYTES, "")
    return Cache(folder, int(limit) if limit.isdigit() else DEFAULT_LIMIT_BYTES)


def _our_fault(error: Exception) -> Failure:
    if isinstance(error, OSError):
        return of_disk("The folder of the job cannot be used", error).failure
    return Failure(
        kind="runner",
        message="The runner itself failed: %s: %s" % (type(error).__name__, error),
        type="%s.%s" % (type(error).__module__, type(error).__qualname__),
        traceback=traceback.format_exc(),
        hint="This is a fault of DeepForge. Please report it with this traceback.",
    )


def _complain(result: Result) -> None:
    """Say on the platform's own log how it ended, if not well."""
    if result.failure is not None:
        say("%s: %s" % (result.failure.kind, result.failure.message))
    elif result.status != "succeeded":
        say(result.status)


def _platform() -> str:
    system = os.uname()
    return "%s %s %s" % (system.sysname, system.release, system.machine)


def _now() -> str:
    now = time.time()
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    return "%s.%06dZ" % (text, int(now * 1_000_000) % 1_000_000)


def _nothing() -> None:
    pass
