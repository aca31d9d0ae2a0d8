"""Live progress on a terminal: one line for each job that matters now."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from deepforge.cli import show
from deepforge.cli.progress import final_text, job_sentence

_MARKS = {"succeeded": "✓", "failed": "✗", "cancelled": "–", "skipped": "–"}
_ACTIVE = ("submitting", "queued", "running", "collecting")
_HIDDEN_FIRST = ("waiting", "ready", "skipped", "cancelled", "succeeded", "queued", "submitting")


class LiveProgress:
    """Redraws a table in place. Finished jobs stay in view while there is room."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._jobs: dict[str, Mapping[str, Any]] = {}
        self._last_lines: dict[str, str] = {}
        self._notes: list[str] = []
        self._title = ""
        self._lock = threading.Lock()
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(
            console=self._console,
            get_renderable=self._draw,
            refresh_per_second=8,
            transient=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def begin(self, view: Mapping[str, Any]) -> None:
        with self._lock:
            self._title = f"{view['pipeline']}  execution {view['id']}"
            self._jobs = {job["id"]: job for job in view["jobs"]}
        if not self._live.is_started:
            self._live.start()

    def job(self, job: Mapping[str, Any]) -> None:
        with self._lock:
            self._jobs[job["id"]] = job

    def log(self, job: str, text: str) -> None:
        lines = (final_text(line) for line in reversed(text.split("\n")))
        last = next((line for line in lines if line.strip()), None)
        if last is not None:
            with self._lock:
                self._last_lines[job] = last

    def note(self, text: str) -> None:
        with self._lock:
            self._notes.append(text)

    def close(self) -> None:
        if self._live.is_started:
            self._live.stop()

    def _draw(self) -> RenderableType:
        with self._lock:
            jobs = list(self._jobs.values())
            shown = fitting(jobs, self._console.height - 4 - len(self._notes))
            table = Table.grid(padding=(0, 2))
            table.add_column(width=1)
            table.add_column(no_wrap=True)
            table.add_column(no_wrap=True)
            table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
            for job in shown:
                table.add_row(*self._row(job))
        title = Text(self._title, style="bold", no_wrap=True, overflow="ellipsis")
        parts: list[RenderableType] = [title, table]
        if len(shown) < len(jobs):
            counts = Counter(job["status"] for job in jobs)
            parts.append(Text(", ".join(f"{n} {status}" for status, n in counts.items()), "dim"))
        parts += [Text(note, style="yellow") for note in self._notes]
        return Group(*parts)

    def _row(self, job: Mapping[str, Any]) -> tuple[RenderableType, ...]:
        status = job["status"]
        color = show.STATUS_COLORS.get(status, "bright_black")
        mark: RenderableType = Text(_MARKS.get(status, "·"), style=color)
        took = job["seconds"]
        if status in _ACTIVE:
            mark = self._spinner
            took = show.between(job["started_at"], None)
        words = job_sentence(job) if status in ("skipped", "ready") else ""
        told = show.one_line(job.get("message") or "")
        line = words or self._last_lines.get(job["id"], "") or told
        about = Text(f"{status} {show.seconds(took)}".rstrip(), style=color)
        return mark, Text(job["name"]), about, Text(line, style="dim")


def fitting(jobs: Sequence[Mapping[str, Any]], rows: int) -> list[Mapping[str, Any]]:
    """Leave out the least telling jobs until the rest fits, keeping the order."""
    excess = len(jobs) - max(rows, 1)
    hidden: set[str] = set()
    for status in _HIDDEN_FIRST:
        for job in jobs:
            if len(hidden) >= excess:
                break
            if job["status"] == status:
                hidden.add(job["id"])
    return [job for job in jobs if job["id"] not in hidden]
