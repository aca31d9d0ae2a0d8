"""`deepforge workers`: the machines that ask for jobs, and what each of them runs."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from deepforge.cli import show

_pool_option = click.option("--pool", metavar="POOL", help="A worker of this pool, not your own.")


@click.group()
def workers() -> None:
    """Machines that ask for jobs: list, show, forget; and the queue of those jobs.

    Start one with `deepforge worker` on the machine that shall do the work.
    """


@workers.command("list")
@show.json_option
def list_workers(as_json: bool) -> None:
    """List workers, those of your pools too, and how many jobs each runs."""
    from deepforge.cli.client import connect

    with connect() as client:
        found = list(client.items("/workers"))
    if as_json:
        show.print_json(found)
        return
    show.print_table(
        ("id", "name", "status", "pool", "last seen", "labels", "cpus", "memory", "gpus", "jobs"),
        [
            (
                one["id"],
                one["name"],
                one["status"],
                one["pool"],
                show.local_time(one["last_seen_at"]),
                " ".join(one["labels"]),
                *_machine(one["total"]),
                len(one["jobs"]) + one["jobs_of_others"],
            )
            for one in found
        ],
    )


@workers.command("show")
@click.argument("worker")
@_pool_option
@show.json_option
def show_worker(worker: str, pool: str | None, as_json: bool) -> None:
    """Show one worker and your jobs there."""
    from deepforge.cli.client import connect

    with connect() as client:
        one = client.get(_path(worker), pool=pool)
    if as_json:
        show.print_json(one)
        return
    cpus, memory, gpus = _machine(one["total"])
    show.print_fields(
        {
            "id": one["id"],
            "name": one["name"],
            "pool": one["pool"],
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
            "jobs of others": one["jobs_of_others"] or None,
        }
    )
    if one["jobs"]:
        click.echo()
        rows = [
            (job["execution"], job["job"], show.local_time(job["since"])) for job in one["jobs"]
        ]
        show.print_table(("execution", "job", "since"), rows)


@workers.command()
@click.option("--pool", metavar="POOL", help="Your jobs in the queue of this pool.")
@show.json_option
def queue(pool: str | None, as_json: bool) -> None:
    """List your jobs that wait for a worker, each with its place and why it waits."""
    from deepforge.cli.client import connect

    with connect() as client:
        found = list(client.items("/queue", pool=pool))
    if as_json:
        show.print_json(found)
        return
    rows = [
        (
            one["position"],
            one["execution"],
            one["job"],
            show.local_time(one["waiting_since"]),
            one["reason"],
        )
        for one in found
    ]
    show.print_table(("place", "execution", "job", "since", "why it waits"), rows)


@workers.command("forget")
@click.argument("worker")
@_pool_option
def forget(worker: str, pool: str | None) -> None:
    """Forget a worker. Its jobs count as lost and are tried again elsewhere.

    A worker that is still alive is there again when it asks for work the next time.
    """
    from deepforge.cli.client import connect

    with connect() as client:
        client.delete(_path(worker), pool=pool)
    click.echo(f"worker {worker} is forgotten", err=True)


def _path(worker: str) -> str:
    return f"/workers/{quote(worker, safe='')}"


def _machine(total: dict[str, Any] | None) -> tuple[object, str, object]:
    """Its processors, memory and GPUs, if it tells."""
    if total is None:
        return None, "", None
    return f"{total['cpus']:g}", show.size(total["memory_bytes"]), total["gpus"]
