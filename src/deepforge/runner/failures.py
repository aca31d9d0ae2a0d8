"""What can stop a job, as exceptions of the runner."""

from __future__ import annotations

import errno
import json
import sys
import time
from typing import Optional, Tuple

from deepforge.runner.protocol import Failure, Grant

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)


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


def say(text: str) -> None:
    """Tell whoever reads the platform's own log. It is fine if nobody can."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass


def of_disk(doing: str, error: OSError) -> JobFailed:
    """What an error of a file system means. `doing` is the first half of the sentence."""
    if error.errno in FULL:
        return failed(
            "storage_full",
            "%s: there is no room left (%s)." % (doing, error.strerror),
            hint="Free some space there, or choose another storage or compute.",
        )
    return failed("transfer", "%s: %s." % (doing, error), hint="Look at the path and its rights.")


def of_status(doing: str, status: int, body: bytes, grant: Grant) -> JobFailed:
    """What a storage means that refuses a grant for good."""
    said, cure = _words(body)
    if status == 507 or b"QuotaExceeded" in body or b"InsufficientStorage" in body:
        return failed(
            "storage_full",
            "%s: the storage has no room left (it answered %d %s)." % (doing, status, said),
            hint=cure or "Free some space in the storage, or choose another one.",
        )
    if status in (400, 401, 403) and (is_expired(grant) or _tells_of_expiry(body)):
        return failed(
            "grants_expired",
            "%s: the permission to do so had expired (%s)." % (doing, grant.expires_at),
            transient=True,
            hint="It runs again with new grants. A compute that reaches the server renews its own.",
        )
    hint = None
    if status == 404:
        hint = "The object is not in the storage any more. Run again the job that made it."
    elif status in (401, 403):
        hint = "Check the keys and rights of this storage connection, and the clocks of both sides."
    elif status == 413:
        hint = "The object is too large for one request to this storage."
    answer = "%s: the storage answered %d %s." % (doing, status, said)
    return failed("transfer", answer, hint=cure or hint)


def _tells_of_expiry(body: bytes) -> bool:
    """Our own server says yes or no, where it was refused itself; others are known by a word."""
    try:
        return bool(json.loads(body.decode("utf-8", "replace"))["error"]["details"]["expired"])
    except (ValueError, LookupError, TypeError):
        return b"xpired" in body


def _words(body: bytes) -> Tuple[str, Optional[str]]:
    """What a refusal says, and the cure that our own server names if it is the one to refuse."""
    text = body.decode("utf-8", "replace")
    try:
        error = json.loads(text)["error"]
        message, hint = error["message"], error["hint"]
    except (ValueError, LookupError, TypeError):
        return " ".join(text[:300].split()), None
    return str(message), None if hint is None else str(hint)


def is_expired(grant: Grant) -> bool:
    """Whether the grant has ended, as far as the clock of this machine can tell."""
    if not grant.expires_at:
        return False
    now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    return grant.expires_at[:19] <= now
