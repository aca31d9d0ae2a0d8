"""How things look on a terminal: tables, sizes, times, one summary of an execution."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from unicodedata import combining, east_asian_width

import click

from deepforge.cli.main import CANCELLED, FAILED, SUCCEEDED

STATUS_COLORS = {
    "succeeded": "green",
    "running": "cyan",
    "collecting": "cyan",
    "failed": "red",
    "cancelled": "yellow",
    "skipped": "yellow",
}

FAILURES_SHOWN = 10
NAMES_SHOWN = 8

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
"""Gives a command the option `--json`."""


def print_json(value: Any) -> None:
    """Print any JSON value on one line of standard output."""
    click.echo(json.dumps(value, ensure_ascii=False))


def print_table(
    headings: Sequence[str], rows: Iterable[Sequence[object]], *, err: bool = False
) -> None:
    """Print aligned columns. An empty cell is a dash; the column `status` is coloured."""
    texts = [[_cell(cell) for cell in row] for row in rows]
    if not texts:
        return
    widths = [max(map(_width, column)) for column in zip(headings, *texts, strict=True)]
    _print_row([heading.upper() for heading in headings], widths, err=err, bold=True)
    for cells in texts:
        colors = [
            STATUS_COLORS.get(cell) if heading == "status" else None
            for heading, cell in zip(headings, cells, strict=True)
        ]
        _print_row(cells, widths, colors, err=err)


def print_fields(fields: Mapping[str, object]) -> None:
    """Print names and values below each other; what is None is left out."""
    shown = {name: value for name, value in fields.items() if value is not None}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        click.echo(f"{name:<{width}}  {_cell(value)}")


def size(size_bytes: int | None) -> str:
    """Spell a number of bytes, e.g. `3.2 MiB`."""
    if size_bytes is None:
        return ""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    number = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        number /= 1024
        if number < 1023.95 or unit == "TiB":
            break
    return f"{number:.1f} {unit}"


def seconds(duration_s: float | None) -> str:
    """Spell a duration, e.g. `0.31 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if duration_s is None:
        return ""
    if duration_s < 9.995:
        return f"{duration_s:.2f} s"
    whole = round(duration_s)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def between(start: str | None, end: str | None) -> float | None:
    """Return the seconds from one time to another; without an end, to now."""
    if start is None:
        return None
    until = datetime.now(UTC) if end is None else datetime.fromisoformat(end)
    return max(0.0, (until - datetime.fromisoformat(start)).total_seconds())


def local_time(text: str | None) -> str:
    """Spell a time of the API in the user's own time zone, to the second."""
    if text is None:
        return ""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def status(text: str) -> str:
    return click.style(text, fg=STATUS_COLORS.get(text))


def exit_code(execution: Mapping[str, Any]) -> int:
    """Return the exit code of a command that followed this execution to its end."""
    return {"succeeded": SUCCEEDED, "cancelled": CANCELLED}.get(execution["status"], FAILED)


def print_summary(view: Mapping[str, Any]) -> None:
    """Tell on standard error how an execution ended, why, what it left, and what to do next."""
    took = seconds(between(view["created_at"], view["ended_at"]))
    click.echo(
        f"{view['pipeline']} {status(view['status'])} after {took} (execution {view['id']})",
        err=True,
    )
    print_failures(view, err=True)
    if view["artifacts"]:
        click.echo(err=True)
        print_artifacts(view["artifacts"], err=True)
    if view["status"] == "failed":
        failed = next((job["id"] for job in view["jobs"] if job["status"] == "failed"), None)
        click.echo(err=True)
        if failed is not None:
            click.echo(f"its output:  deepforge executions logs {view['id']} {failed}", err=True)
        click.echo(f"try again:   deepforge executions rerun {view['id']}", err=True)


def print_failures(view: Mapping[str, Any], *, err: bool) -> None:
    """Tell why jobs failed, with the user's own tracebacks; of many that say the same, once."""
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for job in view["jobs"]:
        if _has_failure(job):
            said = json.dumps([job["status"], job["failure"]], sort_keys=True)
            alike.setdefault(said, []).append(job)
    shown = list(alike.values())[:FAILURES_SHOWN]
    for job, *others in shown:
        _print_failure(job, err=err)
        if others:
            click.echo(f"  so {status(job['status'])}, too: {_names(others)}", err=err)
    left = [job for some in list(alike.values())[FAILURES_SHOWN:] for job in some]
    if left:
        click.echo(f"\nFor other reasons: {_names(left)}.", err=err)
        click.echo(f"Each one's: deepforge executions show {view['id']} --json", err=err)


def _names(jobs: Sequence[Mapping[str, Any]]) -> str:
    names = ", ".join(one_line(job["name"]) for job in jobs[:NAMES_SHOWN])
    more = len(jobs) - NAMES_SHOWN
    return names if more <= 0 else f"{names} and {more} more"


def _has_failure(job: Mapping[str, Any]) -> bool:
    """Whether there is something to say of why it ended as it did."""
    return job["status"] == "failed" or (job["status"] == "cancelled" and bool(job["failure"]))


def _print_failure(job: Mapping[str, Any], *, err: bool) -> None:
    failure = job["failure"] or {"message": "it did not say why"}
    name = click.style(job["name"], bold=True)
    click.echo(f"\n{name} {status(job['status'])}: {failure['message']}", err=err)
    if failure.get("file"):
        click.echo(f"  at {failure['file']}:{failure['line']}", err=err)
    for line in (failure.get("traceback") or "").rstrip().splitlines():
        click.echo(f"    {line}", err=err)
    if failure.get("hint"):
        click.echo(f"  {click.style('hint:', fg='cyan')} {failure['hint']}", err=err)


def print_artifacts(artifacts: Iterable[Mapping[str, Any]], *, err: bool = False) -> None:
    rows = [
        (
            one["name"],
            one["version"],
            one["type"].rpartition(".")[2],
            size(one["size_bytes"]),
            one["storage"],
            local_time(one["created_at"]),
        )
        for one in artifacts
    ]
    print_table(("artifact", "version", "type", "size", "storage", "made"), rows, err=err)


def result_json(view: Mapping[str, Any]) -> dict[str, Any]:
    """The last line of `deepforge run --json`."""
    return {
        "execution": view["id"],
        "status": view["status"],
        "jobs": [
            _only(job, "name", "status", "cached", "attempts", "seconds") for job in view["jobs"]
        ],
        "artifacts": [
            _only(one, "name", "version", "type", "size_bytes", "digest", "storage")
            for one in view["artifacts"]
        ],
    }


def _print_row(
    cells: Sequence[str],
    widths: Sequence[int],
    colors: Sequence[str | None] | None = None,
    *,
    err: bool,
    bold: bool | None = None,
) -> None:
    padded = [
        cell + " " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True)
    ]
    padded[-1] = padded[-1].rstrip()
    styled = [
        click.style(cell, fg=color, bold=bold) if color or bold else cell
        for cell, color in zip(padded, colors or [None] * len(cells), strict=True)
    ]
    click.echo("  ".join(styled), err=err)


def _only(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: values[name] for name in names}


def one_line(text: str) -> str:
    """Make a text printable that may hold anything, as names do: one line, no control characters."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else one_line(str(value))


def _width(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    wide = sum(east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(map(bool, map(combining, text)))
