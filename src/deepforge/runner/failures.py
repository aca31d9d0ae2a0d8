"""What can stop a job, as exceptions of the runner."""

from __future__ import annotations

import errno
from typing import Optional

from deepforge.runner.protocol import Failure

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class JobFailed(Exception):
    """The attempt ends with this failure; it is written to `result.json`."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Cancelled(Exception):
    """Somebody asked for the end: a signal, or the answer to a heartbeat."""


class AttemptOver(Exception):
    """The server no longer wants this attempt: leave, and write nothing."""


def failed(
    kind: str, message: str, *, transient: bool = False, hint: Optional[str] = None
) -> JobFailed:
    return JobFailed(Failure(kind=kind, message=message, transient=transient, hint=hint))


def of_disk(doing: str, error: OSError) -> JobFailed:
    """What an error of a file system means. `doing` is the first half of the sentence."""
    if error.errno in FULL:
        return failed(
            "storage_full",
            "%s: there is no room left (%s)." % (doing, error.strerror),
            hint="Free some space there, or choose another storage or compute.",
        )
    return failed("transfer", "%s: %s." % (doing, error), hint="Look at the path and its rights.")
