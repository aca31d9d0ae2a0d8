"""How jobs end, as the executor protocol says it."""

from __future__ import annotations

import errno
import signal
import traceback
from dataclasses import dataclass
from typing import Any, Mapping, Optional

SUCCESS, FAILED, CANCELED, CREATED = "SUCCESS", "FAILED_TO_EXECUTE", "CANCELED", "CREATED"
LOST = "LOST"  # said to nobody: the job is not ours any more

_INTERRUPTED = (130, -signal.SIGINT)


@dataclass(frozen=True)
class End:
    """How a job ended, as the executor protocol says it, and what only we say."""

    status: str
    exit_code: Optional[int] = None
    reason: Optional[str] = None  # as in `compute.port`
    message: Optional[str] = None


VANISHED = End(
    FAILED,
    reason="node_failure",
    message="its processes ended while nobody watched, for example because the machine restarted",
)


def end_of(found: Mapping[str, Any]) -> End:
    """What an `exit.json` means. A job that was asked to end and still made it to 0 has made it."""
    code, ended_by = found.get("code"), found.get("ended_by")
    if code == 0:
        return End(SUCCESS, 0)
    if ended_by == "stop":
        return End(CREATED, code, message="the worker was stopped")
    if ended_by == "cancel" or (ended_by is None and code in _INTERRUPTED):
        return End(CANCELED, code)
    if ended_by == "walltime":
        return End(FAILED, code, "walltime", "it ran longer than it may")
    reason = "signal" if isinstance(code, int) and code < 0 else "normal"
    return End(FAILED, code, reason)


def describe(error: Exception) -> str:
    """Why a job could not be run or reported; a fault of ours is printed too."""
    if not isinstance(error, OSError):
        traceback.print_exc()
        return "a fault of the worker: %s: %s" % (type(error).__name__, error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk of the worker is full"
    return "the worker's system refused: %s" % error
