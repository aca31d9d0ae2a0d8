"""How the stand-in misbehaves when it is told to."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "status", "error", "unauthorized", "login_page", "missing", "quota",
    "reset_before", "reset_after", "truncate", "hang", "corrupt", "slow", "trickle",
    "job_stuck", "job_error", "job_timeout", "job_canceled", "job_vanish", "job_status",
]  # fmt: skip
"""`status`: `status` as a page of a proxy. `error`: 500 with `text`. `unauthorized`: 401.
`login_page`: a page with 200. `missing`: as a file that is not there. `quota`: the disk is full after
`after_bytes` of an upload.

`reset_before`, `reset_after`: the connection breaks before or after the request took effect; with
`after_bytes` in the middle of an upload. `truncate`, `hang`: the answer ends or stops after
`after_bytes`; `corrupt`: the byte there is another one, in an answer or as an upload is stored.
`slow`: the answer begins after `after_s`; `trickle`: after every `after_bytes` it rests for
`after_s`.

The others wait for the next job: never taken from the queue; not started, with `text`; ended by the
time limit or by an administrator `after_s` after its start; its folder is gone at the end; `status` is
shown in place of its own, at the end if it is 16 or more and before it otherwise."""

KINDS: tuple[str, ...] = Kind.__args__  # type: ignore[attr-defined]  # of a Literal


@dataclass
class Fault:
    """One way to be wrong, for the next `times` requests that are meant. `path` is searched for."""

    kind: Kind
    method: str = ""
    path: str = ""
    times: int = 1
    skip: int = 0
    after_bytes: int = 0
    after_s: float = 0.0
    status: int = 503
    text: str = ""

    def is_for(self, method: str, path: str) -> bool:
        return self.method in ("", method) and re.search(self.path, path) is not None


class Faults:
    """The faults that wait, used in the order they came."""

    def __init__(self) -> None:
        self.waiting: list[Fault] = []
        self._lock = threading.Lock()

    def add(
        self,
        kind: Kind,
        *,
        method: str = "",
        path: str = "",
        times: int = 1,
        skip: int = 0,
        after_bytes: int = 0,
        after_s: float = 0.0,
        status: int = 503,
        text: str = "",
    ) -> None:
        """Be wrong once, or `times` times, after `skip` requests that are answered well.

        `path` is a regular expression, searched in the path with its prefix; for the faults of jobs,
        in the label of the job.
        """
        if kind not in KINDS:
            raise ValueError(f"there is no fault {kind!r}: one of {', '.join(KINDS)}")
        fault = Fault(kind, method, path, times, skip, after_bytes, after_s, status, text)
        with self._lock:
            self.waiting.append(fault)

    def clear(self) -> None:
        with self._lock:
            self.waiting.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """The fault for this request, and count it."""
        with self._lock:
            for fault in self.waiting:
                if not fault.kind.startswith("job_") and fault.is_for(method, path):
                    return self._counted(fault)
            return None

    def take_job(self, label: str) -> Fault | None:
        """The fault for the job that is submitted now."""
        with self._lock:
            for fault in self.waiting:
                if fault.kind.startswith("job_") and re.search(fault.path, label):
                    return self._counted(fault)
            return None

    def _counted(self, fault: Fault) -> Fault | None:
        if fault.skip:
            fault.skip -= 1
            return None
        fault.times -= 1
        if fault.times == 0:
            self.waiting.remove(fault)
        return fault
