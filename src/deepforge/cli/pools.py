"""`deepforge pools`: workers that several users share."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from deepforge.cli import show

_ADD_EPILOG = """\b
Example:
  deepforge pools add lab --member alice --member bob
  deepforge tokens create box --pool lab           a token for the pool's workers
  deepforge compute add worker lab --pool lab      what each member does
"""


@click.group()
def pools() -> None:
    """Workers that several users share: add, change, remove.

    Jobs in a pool's queue are handed out first come first served, whoever's they are.
    """


@pools.command(epilog=_ADD_EPILOG)
@click.argument("name")
@click.option(
    "--member", "members", metavar="USER", multiple=True, help="Who may use it. May be repeated."
)
@click.option("--everyone", is_flag=True, help="Every user may.")
@show.json_option
def add(name: str, members: tuple[str, ...], everyone: bool, as_json: bool) -> None:
    """Make a pool, as an administrator."""
    from deepforge.cli.client import connect

    body = {"name": name, "members": list(members), "everyone": everyone}
    with connect() as client:
        made = client.post("/pools", body)
    if as_json:
        show.print_json(made)
    else:
        click.echo(
            f"pool {name} is there; workers join it with: "
            f"deepforge tokens create WORKER --pool {name}",
            err=True,
        )


@pools.command("list")
@show.json_option
def list_pools(as_json: bool) -> None:
    """List the pools you may use; administrators see all."""
    from deepforge.cli.client import connect

    with connect() as client:
        found = list(client.items("/pools"))
    if as_json:
        show.print_json(found)
        return
    rows = [
        (one["name"], _who(one), one["workers"], one["running"], one["waiting"]) for one in found
    ]
    show.print_table(("name", "for", "workers", "running", "waiting"), rows)


@pools.command("show")
@click.argument("name")
@show.json_option
def show_pool(name: str, as_json: bool) -> None:
    """Show one pool."""
    from deepforge.cli.client import connect

    with connect() as client:
        one = client.get(_path(name))
    if as_json:
        show.print_json(one)
    else:
        _print(one)


@pools.command()
@click.argument("name")
@click.option("--add", "added", metavar="USER", multiple=True, help="Who may use it from now on.")
@click.option("--remove", "removed", metavar="USER", multiple=True, help="Who may not any more.")
@click.option("--everyone/--no-everyone", default=None, help="Let every user use it, or no longer.")
@show.json_option
def members(
    name: str,
    added: tuple[str, ...],
    removed: tuple[str, ...],
    everyone: bool | None,
    as_json: bool,
) -> None:
    """Change who may use a pool. Running jobs go on; what waits of who was removed does not start."""
    from deepforge.cli.client import connect

    if not added and not removed and everyone is None:
        raise click.UsageError("say what: --add USER, --remove USER, or --everyone")
    body = {"add": list(added), "remove": list(removed), "everyone": everyone}
    with connect() as client:
        changed = client.patch(_path(name), body)
    if as_json:
        show.print_json(changed)
    else:
        _print(changed)


@pools.command()
@click.argument("name")
def remove(name: str) -> None:
    """Remove a pool with its tokens and workers. Refused while jobs wait or run there."""
    from deepforge.cli.client import connect

    with connect() as client:
        client.delete(_path(name))
    click.echo(f"pool {name} is removed, and its tokens are revoked", err=True)


def _print(one: dict[str, Any]) -> None:
    show.print_fields(
        {
            "name": one["name"],
            "for": _who(one),
            "workers": one["workers"],
            "running": one["running"],
            "waiting": one["waiting"],
            "made": show.local_time(one["created_at"]),
        }
    )


def _who(one: dict[str, Any]) -> str:
    """Who may use it, as far as one may know."""
    if one["everyone"]:
        return "everyone"
    return "its members" if one["members"] is None else " ".join(one["members"]) or "nobody"


def _path(name: str) -> str:
    return f"/pools/{quote(name, safe='')}"
