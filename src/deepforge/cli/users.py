"""`deepforge users`: who may use a server."""

from __future__ import annotations

import getpass
import sys
from typing import Any
from urllib.parse import quote

import click

from deepforge.cli import show
from deepforge.errors import InvalidRequest

_PASSWORD_EPILOG = "The password is asked for, or read from standard input: one line."


@click.group()
def users() -> None:
    """Who may use a server that others can reach: add, change, disable.

    Without DEEPFORGE_URL the accounts of the home folder are meant, and no server is needed.
    """


@users.command(epilog=_PASSWORD_EPILOG)
@click.argument("name")
@click.option("--admin", is_flag=True, help="An administrator, as the first user is anyway.")
@click.option("--server-compute", is_flag=True, help="May run jobs on the server's own machine.")
@show.json_option
def add(name: str, admin: bool, server_compute: bool, as_json: bool) -> None:
    """Make an account."""
    from deepforge.cli.client import connect

    body = {
        "name": name,
        "password": new_password(),
        "is_admin": admin,
        "server_compute": server_compute,
    }
    with connect() as client:
        made = client.post("/users", body)
    if as_json:
        show.print_json(made)
    else:
        kind = ", an administrator" if made["is_admin"] else ""
        click.echo(f"{name}{kind} may log in: deepforge login {name}", err=True)


@users.command("list")
@show.json_option
def list_users(as_json: bool) -> None:
    """List accounts."""
    from deepforge.cli.client import connect

    with connect() as client:
        found = list(client.items("/users"))
    if as_json:
        show.print_json(found)
        return
    rows = [
        (
            one["name"],
            "administrator" if one["is_admin"] else "user",
            "yes" if one["server_compute"] else "no",
            "disabled" if one["is_disabled"] else "",
            show.local_time(one["created_at"]),
        )
        for one in found
    ]
    show.print_table(("name", "role", "server compute", "state", "made"), rows)


@users.command(epilog="Passwords are asked for, or read from standard input: a line for each.")
@click.argument("name", required=False)
def passwd(name: str | None) -> None:
    """Change a password: your own, or as an administrator that of NAME. Tokens stay as they are."""
    from deepforge.cli.client import connect

    if name is None:
        body = {"current": read_password("Present password"), "password": new_password()}
        path = "/password"
    else:
        body = {"password": new_password()}
        path = f"/users/{quote(name, safe='')}/password"
    with connect() as client:
        client.post(path, body)
    click.echo("the password is changed", err=True)


@users.command()
@click.argument("name")
def disable(name: str) -> None:
    """Shut a user out: no login, no token works. What runs already goes on until it ends."""
    _change(name, {"is_disabled": True})
    click.echo(f"{name} is disabled; the other way: deepforge users enable {name}", err=True)


@users.command()
@click.argument("name")
def enable(name: str) -> None:
    """Let a disabled user in again. Tokens that were not revoked work again."""
    _change(name, {"is_disabled": False})
    click.echo(f"{name} is enabled", err=True)


@users.command()
@click.argument("name")
@click.option("--admin/--no-admin", default=None, help="Make an administrator, or no longer.")
@click.option(
    "--server-compute/--no-server-compute",
    default=None,
    help="Let jobs run on the server's own machine, or no longer. Administrators always may.",
)
def permit(name: str, admin: bool | None, server_compute: bool | None) -> None:
    """Change what a user may."""
    asked = {"is_admin": admin, "server_compute": server_compute}
    body = {field: value for field, value in asked.items() if value is not None}
    if not body:
        raise click.UsageError("say what: --admin, --server-compute, or the other way round")
    _change(name, body)
    click.echo(f"{name} is changed", err=True)


def new_password() -> str:
    """Ask twice for a new password, or read it from standard input."""
    password = read_password("New password")
    if sys.stdin.isatty() and getpass.getpass("Once more: ") != password:
        raise InvalidRequest("the two passwords differ", part="password")
    return password


def read_password(prompt: str) -> str:
    """Ask for a password without showing it, or read a line of standard input."""
    if sys.stdin.isatty():
        password = getpass.getpass(f"{prompt}: ")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise InvalidRequest(
            "read no password from standard input",
            part="password",
            hint="without a terminal, send it in a line: … < password.txt",
        )
    return password


def _change(name: str, body: dict[str, Any]) -> None:
    from deepforge.cli.client import connect

    with connect() as client:
        client.patch(f"/users/{quote(name, safe='')}", body)
