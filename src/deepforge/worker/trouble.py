"""What can go wrong between a worker and its server, and what to do about each."""

from __future__ import annotations

from typing import Optional


class WorkerError(Exception):
    """The worker cannot go on. `hint` is the next step."""

    def __init__(self, message: str, hint: Optional[str] = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Trouble(Exception):
    """No answer, or none that can be used. Trying again later may help.

    `answered`: somebody answered, so the network is there.
    """

    def __init__(self, message: str, *, answered: bool = False) -> None:
        super().__init__(message)
        self.answered = answered


class NotAdmitted(Trouble):
    """The server wants another token. Somebody may give it one."""

    def __init__(self, message: str) -> None:
        super().__init__(message, answered=True)


class Refused(Exception):
    """The server understood, and the same request will always fail."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class JobEnded(Exception):
    """A job cannot be run here: the status that says so in the executor protocol, and why."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
