"""Follow an execution to its end, showing what happens; Ctrl-C asks for its cancellation."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from deepforge.cli.client import Client
from deepforge.cli.progress import PlainProgress, Progress, SilentProgress
from deepforge.errors import DeepForgeError, Unavailable

_TRIES = 6
_FIRST_PAUSE_S = 0.5
_ANSWER_WITHIN_S = 5.0


def follow(
    client: Client, execution: str, *, quiet: bool = False, prints_logs: bool = False
) -> dict[str, Any]:
    """Show an execution until it has ended and return its last view.

    It is told on standard error; with `prints_logs`, what jobs print goes to standard output.

    The first Ctrl-C asks for cancellation and goes on showing; the second raises
    `KeyboardInterrupt` after telling how to come back.
    """
    progress = PlainProgress(prints_logs=True) if prints_logs else _progress(quiet)
    cancelling = _Cancelling(client, execution, progress)
    try:
        with cancelling.on_interrupt():
            return _watch(
                client, execution, progress, logs=not quiet or prints_logs, whole_logs=prints_logs
            )
    except KeyboardInterrupt:
        progress.close()
        click.echo(_how_to_come_back(execution, cancelling, client.embedded), err=True)
        raise
    except Unavailable as error:
        first = f"{error.hint}; then " if error.hint else ""
        raise Unavailable(
            f"lost sight of execution {execution}: {error.message}",
            hint=f"{first}come back with: deepforge executions logs -f {execution}",
        ) from error
    finally:
        progress.close()


def _how_to_come_back(execution: str, cancelling: _Cancelling, embedded: bool) -> str:
    if cancelling.was_accepted and not embedded:
        return (
            f"left execution {execution}: the server goes on cancelling it. See how it ends:\n"
            f"  deepforge executions show {execution}"
        )
    if cancelling.was_accepted:  # nobody drives it now; some of its jobs may not have been told yet
        became = "its cancellation is noted, and waits for the next command that sees to it"
    else:
        became = "it was not cancelled, and what runs goes on"
    command = f"deepforge executions cancel {execution}"
    return f"left execution {execution}: {became}. End it with\n  {command}"


def _watch(
    client: Client, execution: str, progress: Progress, *, logs: bool, whole_logs: bool
) -> dict[str, Any]:
    pause_s, tries = _FIRST_PAUSE_S, 0
    shown: dict[tuple[str, int], int] = {}  # where the log of an attempt was told up to
    while True:
        try:
            for kind, data in client.events(execution, logs=logs, whole_logs=whole_logs):
                tries, pause_s = 0, _FIRST_PAUSE_S
                if kind == "end":
                    return data
                if kind == "execution" and "jobs" in data:
                    progress.begin(data)
                elif kind == "job":
                    progress.job(data)
                elif kind == "log":
                    progress.log(data["job"], _news(data, shown))
                elif kind == "execution" and data.get("paused_by"):
                    progress.note(f"paused: {data['paused_by']}")
        except Unavailable:
            tries += 1
            if tries == _TRIES:
                raise
            time.sleep(pause_s)
            pause_s *= 2


def _news(data: Mapping[str, Any], shown: dict[tuple[str, int], int]) -> str:
    """The part of a piece of log that was not told before a connection was lost."""
    attempt = data["job"], data["attempt"]
    told = shown.get(attempt, 0)
    shown[attempt] = max(told, data["end"])
    text: str = data["text"]
    if told <= data["start"]:
        return text
    return text.encode()[told - data["start"] :].decode(errors="replace")


class _Cancelling:
    """Asks for the end of an execution at the first Ctrl-C; the second raises `KeyboardInterrupt`."""

    def __init__(self, client: Client, execution: str, progress: Progress) -> None:
        self._client = client
        self._execution = execution
        self._progress = progress
        self._thread: threading.Thread | None = None
        self.was_accepted = False

    @contextmanager
    def on_interrupt(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # signals are not ours to catch here
            return
        before = signal.signal(signal.SIGINT, self._caught)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
            if self._thread is not None:
                self._thread.join(timeout=_ANSWER_WITHIN_S)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self._thread is not None:
            raise KeyboardInterrupt
        # on a thread of its own: the one that was interrupted may hold locks of the client or stderr
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        self._progress.note("cancelling; Ctrl-C again leaves without waiting")
        try:
            self._client.post(f"/executions/{self._execution}/cancel")
            self.was_accepted = True
        except DeepForgeError as error:
            self._progress.note(f"cancelling did not work: {error.message}")


def _progress(quiet: bool) -> Progress:
    if quiet:
        return SilentProgress()
    if sys.stderr.isatty():
        from deepforge.cli.live import LiveProgress

        return LiveProgress()
    return PlainProgress()
