"""Follow an execution to its end, showing what happens; Ctrl-C asks for its cancellation."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

import click

from deepforge.cli import show
from deepforge.cli.client import Client
from deepforge.errors import DeepForgeError, Unavailable

_TRIES = 6
_FIRST_PAUSE_S = 0.5


class Progress(Protocol):
    """Shows events as they come."""

    def begin(self, view: Mapping[str, Any]) -> None:
        """The whole execution, at first and again after a lost connection."""

    def job(self, job: Mapping[str, Any]) -> None: ...

    def log(self, job: str, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None:
        """Show what is still held back."""


def follow(client: Client, execution: str, *, quiet: bool = False) -> dict[str, Any]:
    """Show an execution until it has ended and return its last view.

    The first Ctrl-C asks for cancellation and goes on showing; the second raises
    `KeyboardInterrupt` after telling how to come back.
    """
    progress = _progress(quiet)
    try:
        with _cancel_on_interrupt(client, execution, progress):
            return _watch(client, execution, progress)
    except KeyboardInterrupt:
        progress.close()
        running = (
            "what runs already goes on; the rest waits. " if client.embedded else "it goes on. "
        )
        click.echo(
            f"left execution {execution}: {running}Come back with\n"
            f"  deepforge executions logs -f {execution}",
            err=True,
        )
        raise
    finally:
        progress.close()


def _watch(client: Client, execution: str, progress: Progress) -> dict[str, Any]:
    pause_s, tries = _FIRST_PAUSE_S, 0
    while True:
        try:
            for kind, data in client.events(execution):
                tries, pause_s = 0, _FIRST_PAUSE_S
                if kind == "end":
                    return data
                if kind == "execution" and "jobs" in data:
                    progress.begin(data)
                elif kind == "job":
                    progress.job(data)
                elif kind == "log":
                    progress.log(data["job"], data["text"])
                elif kind == "execution" and data.get("paused_by"):
                    progress.note(f"paused: {data['paused_by']}")
        except Unavailable:
            tries += 1
            if tries == _TRIES:
                raise
            time.sleep(pause_s)
            pause_s *= 2


@contextmanager
def _cancel_on_interrupt(client: Client, execution: str, progress: Progress) -> Iterator[None]:
    asked: list[threading.Thread] = []

    def cancel() -> None:
        progress.note("cancelling; Ctrl-C again leaves without waiting")
        try:
            client.post(f"/executions/{execution}/cancel")
        except DeepForgeError as error:
            progress.note(f"cancelling did not work: {error.message}")

    def caught(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        # on a thread of its own: the one that was interrupted may hold locks of the client or stderr
        asked.append(threading.Thread(target=cancel, daemon=True))
        asked[0].start()

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are not ours to catch here
        return
    before = signal.signal(signal.SIGINT, caught)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if asked:
            asked[0].join(timeout=5)


def _progress(quiet: bool) -> Progress:
    if quiet:
        return _Silent()
    if sys.stderr.isatty():
        from deepforge.cli.live import LiveProgress

        return LiveProgress()
    return PlainProgress()


class PlainProgress:
    """One line for each thing that happens, for logs and pipes."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._told: dict[str, tuple[str, int]] = {}
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
        told = (job["status"], job["attempts"])
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
        click.echo(f"{self._names.get(job, job)} | {final_text(line)}", err=True)


class _Silent:
    def begin(self, view: Mapping[str, Any]) -> None: ...

    def job(self, job: Mapping[str, Any]) -> None: ...

    def log(self, job: str, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


def job_sentence(job: Mapping[str, Any]) -> str:
    """Say what became of a job; empty for states that need no words."""
    status = job["status"]
    took = show.seconds(job["seconds"])
    if status == "running":
        return "running" if job["attempts"] < 2 else f"running, attempt {job['attempts']}"
    if status == "ready" and job["attempts"]:
        return f"attempt {job['attempts']} did not succeed; trying again"
    if status == "succeeded":
        return "taken from an earlier execution" if job["cached"] else f"succeeded in {took}"
    if status == "failed":
        return "failed"
    if status == "skipped":
        return f"skipped, because {job['skipped_because']} did not succeed"
    return "cancelled" if status == "cancelled" else ""


def final_text(line: str) -> str:
    """What of a line is left to see: what follows the last carriage return within it."""
    text = line.rstrip("\r").rpartition("\r")[2]
    return "".join(letter for letter in text if letter == "\t" or letter.isprintable())
