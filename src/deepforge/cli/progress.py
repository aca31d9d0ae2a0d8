"""What is told of an execution while it runs, as plain lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import click

from deepforge.cli import show

_LONGEST_REASON = 200


class Progress(Protocol):
    """Shows events as they come."""

    def begin(self, view: Mapping[str, Any]) -> None:
        """The whole execution, at first and again after a lost connection."""

    def job(self, job: Mapping[str, Any]) -> None: ...

    def log(self, job: str, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None:
        """Show what is still held back."""


class PlainProgress:
    """One line for each thing that happens, for logs and pipes.

    With `prints_logs`, what jobs print is our own output; else it is told on standard error like the
    rest.
    """

    def __init__(self, *, prints_logs: bool = False) -> None:
        self._prints_logs = prints_logs
        self._names: dict[str, str] = {}
        self._told: dict[str, tuple[str, int, str | None]] = {}
        self._partial: dict[str, str] = {}

    def begin(self, view: Mapping[str, Any]) -> None:
        if not self._names:
            count = len(view["jobs"])
            jobs = "1 job" if count == 1 else f"{count} jobs"
            click.echo(f"{view['pipeline']}: {jobs}, execution {view['id']}", err=True)
        self._names = {job["id"]: job["name"] for job in view["jobs"]}
        for job in view["jobs"]:
            self.job(job)

    def job(self, job: Mapping[str, Any]) -> None:
        told = (job["status"], job["attempts"], job.get("message"))
        if self._told.get(job["id"]) == told:
            return
        self._told[job["id"]] = told
        self._flush(job["id"])
        if sentence := job_sentence(job):
            click.echo(f"{job['name']}: {sentence}", err=True)

    def log(self, job: str, text: str) -> None:
        *lines, rest = (self._partial.pop(job, "") + text).split("\n")
        if rest:
            self._partial[job] = rest
        for line in lines:
            self._line(job, line)

    def note(self, text: str) -> None:
        click.echo(text, err=True)

    def close(self) -> None:
        for job in list(self._partial):
            self._flush(job)

    def _flush(self, job: str) -> None:
        if rest := self._partial.pop(job, ""):
            self._line(job, rest)

    def _line(self, job: str, line: str) -> None:
        text = f"{self._names.get(job, job)} | {final_text(line)}"
        click.echo(text, err=not self._prints_logs)


class SilentProgress:
    """Shows nothing."""

    def begin(self, view: Mapping[str, Any]) -> None: ...

    def job(self, job: Mapping[str, Any]) -> None: ...

    def log(self, job: str, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


def job_sentence(job: Mapping[str, Any]) -> str:
    """Say what became of a job; empty for states that need no words."""
    status = job["status"]
    took = show.seconds(job["seconds"])
    if message := job.get("message"):
        return f"{status}: {show.one_line(message)}"
    if status == "running":
        return "running" if job["attempts"] < 2 else f"running, attempt {job['attempts']}"
    if status == "ready" and job["attempts"]:
        return f"attempt {job['attempts']} did not succeed{_reason(job)}; trying again"
    if status == "succeeded":
        return "taken from an earlier execution" if job["cached"] else f"succeeded in {took}"
    if status == "failed":
        return "failed"
    if status == "skipped":
        return f"skipped, because {job['skipped_because']} did not succeed"
    return "cancelled" if status == "cancelled" else ""


def _reason(job: Mapping[str, Any]) -> str:
    message = ((job.get("failure") or {}).get("message") or "").strip()
    if not message:
        return ""
    line = final_text(message.splitlines()[0])
    return f": {line if len(line) <= _LONGEST_REASON else line[:_LONGEST_REASON] + '…'}"


def final_text(line: str) -> str:
    """What of a line is left to see: what follows the last carriage return within it."""
    text = line.rstrip("\r").rpartition("\r")[2]
    return "".join(letter for letter in text if letter == "\t" or letter.isprintable())
