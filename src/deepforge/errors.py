"""Every error that DeepForge raises on purpose, for the person who must act.

    DeepForgeError
    ├── ConfigError             the settings are wrong; `fields` names them
    ├── AuthError               who we are was not accepted, or no longer
    ├── Forbidden               who we are is known, and may not do this
    ├── NotFound                (also FileNotFoundError)
    ├── AlreadyExists
    ├── Conflict                somebody else changed it first; read again
    │   └── AttemptOver         the attempt of a job has ended, or another took its place
    ├── InvalidRequest          the same request will always fail
    │   └── InvalidProject      the text of a project breaks a rule; `findings`
    ├── NotSupported            a capability that is not there, with its reason
    ├── StorageFull             no room left for the data
    ├── NoCapacity              transient: later may work
    ├── RateLimited             transient: slower may work
    ├── Unavailable             transient (also ConnectionError)
    ├── OutcomeUnknown          transient: it may or may not have happened
    ├── Corrupt                 data and digest disagree
    └── AdapterBug              anything else that escaped an adapter

`transient` says whether the same call may succeed later without anybody changing anything.
HTTP status codes and exit codes are mapped at the edges (`server/wire.py`, `cli/main.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class DeepForgeError(Exception):
    """Base of the tree. `message` says what happened to which thing, `hint` the next step."""

    code: ClassVar[str] = "error"
    transient: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"

    def details(self) -> dict[str, Any]:
        """What a machine may want to know besides the text, as JSON values."""
        return {}


class ConfigError(DeepForgeError):
    """Settings are missing or wrong. `fields` maps a setting's name to what is wrong with it."""

    code = "config_error"

    def __init__(
        self, message: str, *, fields: Mapping[str, str] | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.fields = dict(fields or {})

    def details(self) -> dict[str, Any]:
        return {"fields": self.fields}


class AuthError(DeepForgeError):
    """Credentials were refused. With `expired`, signing in again helps and work pauses meanwhile."""

    code = "auth_error"

    def __init__(self, message: str, *, expired: bool = False, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.expired = expired

    def details(self) -> dict[str, Any]:
        return {"expired": self.expired}


class Forbidden(DeepForgeError):
    """The caller is known and not allowed."""

    code = "forbidden"


class NotFound(DeepForgeError, FileNotFoundError):
    """There is no such thing."""

    code = "not_found"


class AlreadyExists(DeepForgeError):
    """Something of that name or key is there already, and was left as it was."""

    code = "already_exists"


class Conflict(DeepForgeError):
    """The thing changed since it was read. Read it again, decide again."""

    code = "conflict"


class AttemptOver(Conflict):
    """An attempt of a job has ended, or another one took its place: its runner should stop."""

    code = "attempt_over"


class InvalidRequest(DeepForgeError):
    """The request can never succeed as it is. `part` names the part at fault."""

    code = "invalid_request"

    def __init__(self, message: str, *, part: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.part = part

    def details(self) -> dict[str, Any]:
        return {} if self.part is None else {"part": self.part}


class InvalidProject(InvalidRequest):
    """The text of a project breaks rules. `findings` has one dictionary for each, all at once.

    A finding has `file`, `line`, `message` and, where there is one, `hint`.
    """

    code = "invalid_project"

    def __init__(
        self, message: str, *, findings: Sequence[Mapping[str, Any]], hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.findings = [dict(finding) for finding in findings]

    def details(self) -> dict[str, Any]:
        return {"findings": self.findings}


class NotSupported(DeepForgeError):
    """An optional capability was used that this adapter does not have."""

    code = "not_supported"

    def __init__(self, capability: str, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"{capability} is not supported: {reason}", hint=hint)
        self.capability = capability
        self.reason = reason

    def details(self) -> dict[str, Any]:
        return {"capability": self.capability, "reason": self.reason}


class StorageFull(DeepForgeError):
    """There is no room for the data. Nothing partial was left behind."""

    code = "storage_full"


class NoCapacity(DeepForgeError):
    """Nothing free just now."""

    code = "no_capacity"
    transient = True

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class RateLimited(DeepForgeError):
    """Too many requests. Wait `retry_after_s` if it is given."""

    code = "rate_limited"
    transient = True

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class Unavailable(DeepForgeError, ConnectionError):
    """The service could not be reached or did not answer properly. Trying again may help."""

    code = "unavailable"
    transient = True


class OutcomeUnknown(DeepForgeError):
    """The request was sent and the answer was lost. Ask again with the same key."""

    code = "outcome_unknown"
    transient = True


class Corrupt(DeepForgeError):
    """The bytes that came are not the bytes that were stored. They were discarded."""

    code = "corrupt"

    def __init__(self, message: str, *, expected: str, found: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.expected = expected
        self.found = found

    def details(self) -> dict[str, Any]:
        return {"expected": self.expected, "found": self.found}


class AdapterBug(DeepForgeError):
    """An adapter raised something outside this tree; the original is the `__cause__`."""

    code = "adapter_bug"
