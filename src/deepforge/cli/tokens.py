"""`deepforge login` and `deepforge tokens`: what commands, workers and programs present."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import click

from deepforge.cli import show
from deepforge.cli.users import read_password

_LOGIN_EPILOG = """\b
Example:
  export DEEPFORGE_URL=https://forge.example.org
  export DEEPFORGE_TOKEN="$(deepforge login ada)"
"""

_user_option = click.option(
    "--user", metavar="NAME", help="Whose, as an administrator. Default: your own."
)
_pool_option = click.option(
    "--pool", metavar="POOL", help="For the workers of this pool, as an administrator."
)
_days_option = click.option(
    "--days",
    type=click.IntRange(1, 3650),
    default=90,
    show_default=True,
    help="How long it is good for.",
)


@click.command(epilog=_LOGIN_EPILOG)
@click.argument("user")
@click.option("--name", help="What to call the token in lists. Default: a name of its own.")
@_days_option
def login(user: str, name: str | None, days: int) -> None:
    """Get a token for a user and a password, and print it.

    The password is asked for, or read from standard input: one line.
    """
    from deepforge.cli.client import connect

    body = {"user": user, "password": read_password("Password"), "name": name, "days": days}
    with connect() as client:
        made = client.post("/login", body)
    click.echo(made["token"])


@click.group()
def tokens() -> None:
    """Access tokens: create, list, revoke.

    Commands present the one in DEEPFORGE_TOKEN.
    """


@tokens.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(["api", "worker"]),
    multiple=True,
    help="What it is good for: everything, or what a worker needs. May be given twice. "
    "Default: api; of a pool: worker.",
)
@_days_option
@_user_option
@_pool_option
@show.json_option
def create(
    name: str,
    scopes: tuple[str, ...],
    days: int,
    user: str | None,
    pool: str | None,
    as_json: bool,
) -> None:
    """Make a token and print it. It cannot be shown a second time."""
    from deepforge.cli.client import connect

    body = {"name": name, "scopes": list(scopes) or None, "days": days}
    with connect() as client:
        made = client.post(f"/tokens{_whose(user, pool)}", body)
    if as_json:
        show.print_json(made)
    else:
        click.echo(made["token"])


@tokens.command("list")
@_user_option
@_pool_option
@show.json_option
def list_tokens(user: str | None, pool: str | None, as_json: bool) -> None:
    """List tokens. Their texts are not kept."""
    from deepforge.cli.client import connect

    with connect() as client:
        found = list(client.items("/tokens", user=user, pool=pool))
    if as_json:
        show.print_json(found)
        return
    rows = [
        (
            one["name"],
            ", ".join(one["scopes"]),
            show.local_time(one["created_at"]),
            show.local_time(one["expires_at"]),
            show.local_time(one["last_used_at"]) or "never",
        )
        for one in found
    ]
    show.print_table(("name", "scopes", "made", "expires", "last used"), rows)


@tokens.command()
@click.argument("name")
@_user_option
@_pool_option
def revoke(name: str, user: str | None, pool: str | None) -> None:
    """End a token. The next request with it is refused."""
    from deepforge.cli.client import connect

    with connect() as client:
        client.delete(f"/tokens/{quote(name, safe='')}", user=user, pool=pool)
    click.echo(f"{name} is revoked", err=True)


def _whose(user: str | None, pool: str | None) -> str:
    asked = {name: value for name, value in (("user", user), ("pool", pool)) if value is not None}
    return f"?{urlencode(asked)}" if asked else ""
