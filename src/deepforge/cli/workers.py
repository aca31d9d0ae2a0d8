"""`deepforge workers`: the machines that ask for jobs, and what each of them runs."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from deepforge.cli import show


@click.group()
def workers() -> None:
    """Machines that ask for jobs: list, show, forget.

    Start one with `deepforge worker` on the machine that shall do the work.
    """


@workers.command("list")
@show.json_option
def list_workers(as_json: bool) -> None:
    """List workers and how many jobs each runs."""
    from deepforge.cli.client import connect

    with connect() as client:
        found = list(client.items("/workers"))
    if as_json:
        show.print_json(found)
        return
    show.print_table(
        ("id", "name", "status", "last seen", "labels", "cpus", "memory", "gpus", "jobs"),
        [
            (
                one["id"],
                one["name"],
                one["status"],
                show.local_time(one["last_seen_at"]),
                " ".join(one["labels"]),
                *_machine(one["total"]),
                len(one["jobs"]),
            )
            for one in found
        ],
    )


@workers.command("show")
@click.argument("worker")
@show.json_option
def show_worker(worker: str, as_json: bool) -> None:
    """Show one worker and its jobs."""
    from deepforge.cli.client import connect

    with connect() as client:
        one = client.get(_path(worker))
    if as_json:
        show.print_json(one)
        return
    cpus, memory, gpus = _machine(one["total"])
    show.print_fields(
        {
            "id": one["id"],
            "name": one["name"],
            "status": show.status(one["status"]),
            "last seen": show.local_time(one["last_seen_at"]),
            "first seen": show.local_time(one["first_seen_at"]),
            "labels": " ".join(one["labels"]) or None,
            "cpus": cpus,
            "memory": memory or None,
            "gpus": gpus,
            "python": one["python"],
            "platform": one["platform"],
            "version": one["version"],
        }
    )
    if one["jobs"]:
        click.echo()
        rows = [
            (job["execution"], job["job"], show.local_time(job["since"])) for job in one["jobs"]
        ]
        show.print_table(("execution", "job", "since"), rows)


@workers.command("forget")
@click.argument("worker")
def forget(worker: str) -> None:
    """Forget a worker. Its jobs count as lost and are tried again elsewhere.

    A worker that is still alive is there again when it asks for work the next time.
    """
    from deepforge.cli.client import connect

    with connect() as client:
        client.delete(_path(worker))
    click.echo(f"worker {worker} is forgotten", err=True)


def _path(worker: str) -> str:
    return f"/workers/{quote(worker, safe='')}"


def _machine(total: dict[str, Any] | None) -> tuple[object, str, object]:
    """Its processors, memory and GPUs, if it tells."""
    if total is None:
        return None, "", None
    return f"{total['cpus']:g}", show.size(total["memory_bytes"]), total["gpus"]
