"""`deepforge executions`: see, stop and repeat what ran."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from deepforge.cli import show
from deepforge.cli.main import SUCCEEDED
from deepforge.errors import NotFound

if TYPE_CHECKING:
    from deepforge.cli.client import Client


@click.group()
def executions() -> None:
    """See, stop and repeat what ran."""


@executions.command("list")
@click.option("--project", metavar="NAME", help="Only those of this project.")
@click.option(
    "--status",
    type=click.Choice(["running", "succeeded", "failed", "cancelled"]),
    help="Only those in this state.",
)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most.")
@show.json_option
def list_executions(project: str | None, status: str | None, limit: int, as_json: bool) -> None:
    """List executions, newest first."""
    from deepforge.cli.client import connect

    with connect() as client:
        found = list(client.items("/executions", most=limit, project=project, status=status))
    if as_json:
        show.print_json(found)
        return
    rows = [
        (
            one["id"],
            one["project"],
            one["pipeline"],
            one["status"],
            show.local_time(one["created_at"]),
            show.seconds(show.between(one["created_at"], one["ended_at"])),
        )
        for one in found
    ]
    show.print_table(("execution", "project", "pipeline", "status", "started", "time"), rows)


@executions.command("show")
@click.argument("execution")
@show.json_option
def show_execution(execution: str, as_json: bool) -> None:
    """Show an execution with its jobs and artifacts."""
    from deepforge.cli.client import connect

    with connect() as client:
        view = client.get(f"/executions/{_part(execution)}")
        if view["paused_by"] and not as_json:
            from deepforge.cli.sciserver import tell_ends

            tell_ends(client, execution=view["id"])
    if as_json:
        show.print_json(view)
        return
    show.print_fields(
        {
            "execution": view["id"],
            "project": view["project"],
            "pipeline": view["pipeline"],
            "commit": view["commit"],
            "status": view["status"],
            "paused by": "; ".join((view["paused_by"] or "").splitlines()) or None,
            "started": show.local_time(view["created_at"]),
            "ended": show.local_time(view["ended_at"]) or None,
            "rerun of": view["rerun_of"],
            "storage": view["storage"],
            **{f"  {name} =": value for name, value in view["attributes"].items()},
            **{f"  {name} <-": value for name, value in view["inputs"].items()},
        }
    )
    click.echo()
    show.print_table(("job", "operation", "status", "attempts", "time", "compute"), _job_rows(view))
    for job in view["jobs"]:
        if job["message"]:
            click.echo(f"{job['name']}: {show.one_line(job['message'])}")
    show.print_failures(view, err=False)
    if view["artifacts"]:
        click.echo()
        show.print_artifacts(view["artifacts"])


@executions.command()
@click.argument("execution")
@click.argument("job", required=False)
@click.option("-f", "--follow", is_flag=True, help="Stay until the execution has ended.")
@click.option("--attempt", type=click.IntRange(min=1), help="Which try.  [default: the last]")
def logs(execution: str, job: str | None, follow: bool, attempt: int | None) -> int | None:
    """Print what a job of the operations printed, or with -f all jobs as they go.

    JOB is the name or the id of a job; it may be left out if there is only one.
    Following moves an execution on if nobody else does, and ends with its exit code.
    """
    from deepforge.cli.client import connect

    with connect(driving=follow) as client:
        if follow and job is None:
            from deepforge.cli.follow import follow as follow_all

            view = follow_all(client, _part(execution), prints_logs=True)
            show.print_summary(view)
            return show.exit_code(view)
        view = client.get(f"/executions/{_part(execution)}")
        id = _find_job(view, job)["id"]
        if not follow:
            _print_log(client, view["id"], id, attempt)
            return None
        return show.exit_code(_follow_log(client, view["id"], id))


@executions.command()
@click.argument("execution")
@click.option(
    "--detach", is_flag=True, help="Only ask; do not wait for the end. Needs DEEPFORGE_URL."
)
@show.json_option
def cancel(execution: str, detach: bool, as_json: bool) -> None:
    """Cancel an execution and wait until it has ended. One that has ended is left as it is."""
    from deepforge.cli.client import connect
    from deepforge.cli.follow import follow

    with connect(driving=not detach) as client:
        if detach:
            client.must_outlive_us()
        view = client.post(f"/executions/{_part(execution)}/cancel")
        if view["status"] == "running" and not detach:
            view = follow(client, view["id"], quiet=as_json)
    if as_json:
        show.print_json(show.result_json(view))
    else:
        click.echo(f"execution {view['id']}: {view['status']}", err=True)


@executions.command("give-up")
@click.argument("execution")
@click.argument("job")
@show.json_option
def give_up(execution: str, job: str, as_json: bool) -> None:
    """Count the attempt of a job as lost, whose worker is silent. A new attempt follows.

    JOB is its name or id. Whatever the worker still reports of it is ignored.
    """
    from deepforge.cli.client import connect

    with connect() as client:
        path = f"/executions/{_part(execution)}"
        id = _find_job(client.get(path), job)["id"]
        view = client.post(f"{path}/jobs/{_part(id)}/give-up")
    if as_json:
        show.print_json(view)
    else:
        click.echo(f"the attempt of {job} was given up; its worker is not heard any more", err=True)


@executions.command()
@click.argument("execution")
@click.option("--detach", is_flag=True, help="Do not wait for its end. Needs DEEPFORGE_URL.")
@show.json_option
def rerun(execution: str, detach: bool, as_json: bool) -> int:
    """Run an execution again: the same commit and choices; what succeeded is taken over."""
    from deepforge.cli.client import connect
    from deepforge.cli.follow import follow
    from deepforge.cli.sciserver import tell_ends

    with connect(driving=not detach) as client:
        if detach:
            client.must_outlive_us()
        tell_ends(client, execution=execution)
        view = client.post(f"/executions/{_part(execution)}/rerun")
        if detach:
            show.print_json(show.result_json(view)) if as_json else click.echo(view["id"])
            return SUCCEEDED
        view = follow(client, view["id"])
    show.print_summary(view)
    if as_json:
        show.print_json(show.result_json(view))
    return show.exit_code(view)


def _part(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def _job_rows(view: dict[str, Any]) -> list[tuple[object, ...]]:
    return [
        (
            job["name"],
            job["operation"],
            job["status"],
            "cached" if job["cached"] else job["attempts"],
            show.seconds(job["seconds"]),
            job["compute"],
        )
        for job in view["jobs"]
    ]


def _find_job(view: dict[str, Any], wanted: str | None) -> dict[str, Any]:
    jobs: list[dict[str, Any]] = view["jobs"]
    names = ", ".join(job["name"] for job in jobs[:12]) + (", …" if len(jobs) > 12 else "")
    if wanted is None and len(jobs) == 1:
        return jobs[0]
    if wanted is None:
        raise click.UsageError(f"say which job: {names}", click.get_current_context())
    for key in ("id", "name"):
        for job in jobs:
            if job[key] == wanted:
                return job
    raise NotFound(f"execution {view['id']} has no job {wanted!r}", hint=f"its jobs are: {names}")


def _print_log(
    client: Client, execution: str, job: str, attempt: int | None, start: int = 0
) -> int:
    """Write the bytes of the log as they are to standard output; return where they end for now."""
    while True:
        with client.download(
            f"/executions/{execution}/jobs/{job}/log", attempt=attempt, start=start
        ) as response:
            for chunk in response.iter_bytes():
                sys.stdout.buffer.write(chunk)
            end = int(response.headers["X-Next-Start"])
        if end == start:
            sys.stdout.buffer.flush()
            return end
        start = end


def _follow_log(client: Client, execution: str, job: str) -> dict[str, Any]:
    """Write the log of the last attempt, and of each later one, until the execution has ended."""
    attempt, start = 0, 0
    for kind, data in client.events(execution):
        if kind == "log" and data["job"] == job:
            if data["attempt"] > attempt:
                attempt, start = data["attempt"], 0
            # an event is a hint: the log itself is read, so that nothing is printed twice
            start = _print_log(client, execution, job, attempt, start)
        elif kind == "end":
            ended = _find_job(data, job)
            if ended["attempts"]:
                start = start if attempt == ended["attempts"] else 0
                _print_log(client, execution, job, ended["attempts"], start)
            return data
    raise AssertionError("events always end with `end`")
