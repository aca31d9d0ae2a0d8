"""Follow an execution to its end, showing what happens; Ctrl-C asks for its cancellation."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from deepforge.cli.client import Client
from deepforge.cli.progress import PlainProgress, Progress, SilentProgress
from deepforge.errors import DeepForgeError, Unavailable

_TRIES = 6
_FIRST_PAUSE_S = 0.5


def follow(
    client: Client, execution: str, *, quiet: bool = False, prints_logs: bool = False
) -> dict[str, Any]:
    """Show an execution until it has ended and return its last view.

    It is told on standard error; with `prints_logs`, what jobs print goes to standard output.

    The first Ctrl-C asks for cancellation and goes on showing; the second raises
    `KeyboardInterrupt` after telling how to come back.
    """
    progress = PlainProgress(prints_logs=True) if prints_logs else _progress(quiet)
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
        return SilentProgress()
    if sys.stderr.isatty():
        from deepforge.cli.live import LiveProgress

        return LiveProgress()
    return PlainProgress()
