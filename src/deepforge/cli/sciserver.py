"""`deepforge sciserver`: link the account of storages and computes, and see until when it lasts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from deepforge.cli import show
from deepforge.cli.main import FAILED, SUCCEEDED
from deepforge.errors import ConfigError, InvalidRequest

if TYPE_CHECKING:
    from deepforge.cli.client import Client
    from deepforge.sciserver.hosts import Hosts
    from deepforge.settings import Secret

_ADAPTER = "sciserver"
_PASSING = "Temporary/"

_EPILOG = """\b
Examples:
  deepforge storage add sciserver sky --username alice
  deepforge sciserver link
  deepforge storage check sky
"""


@click.group(epilog=_EPILOG)
def sciserver() -> None:
    """Your SciServer account: link it, and see until when the link lasts."""


@sciserver.command()
@click.option("--site", help="Address of the SciServer site, if you use several.")
@click.option("--username", help="Name of the account, if you use several.")
@click.option(
    "--password",
    "by_password",
    is_flag=True,
    help="Log in here and now: the password is asked for, or read from standard input, tried once "
    "and not kept.",
)
@click.option(
    "--browser/--no-browser", default=True, help="Open the login page; else its address is shown."
)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(1, 3600),
    default=300.0,
    show_default=True,
    help="How long to wait for the browser. In seconds.",
)
def link(
    site: str | None, username: str | None, by_password: bool, browser: bool, wait_s: float
) -> None:
    """Log in at SciServer, for all your storages and computes there.

    A link lasts for a day at most. Executions that wait because it ended go on after a new one. A kept
    password that SciServer refused is forgotten.
    """
    from deepforge.cli.client import connect
    from deepforge.sciserver.hosts import Hosts
    from deepforge.sciserver.login import look_at

    with connect() as client:
        kept = [
            one
            for port in ("storage", "compute")
            for one in client.items(f"/connections/{port}")
            if one["adapter"] == _ADAPTER and not one["builtin"]
        ]
    site = _the_one("site", {one["settings"]["site"].rstrip("/") for one in kept}, site)
    kept = [one for one in kept if one["settings"]["site"].rstrip("/") == site]
    hosts = Hosts.of(site)
    if by_password or username is not None:
        names = {one["settings"]["username"] for one in kept}
        username = _the_one("username", names, username)
    if by_password and username is not None:
        token = _log_in(hosts, username)
    else:
        token = _browse(hosts, browser, wait_s)
    made = asyncio.run(look_at(hosts, token))
    if username not in (None, made.username):
        raise InvalidRequest(
            f"you logged in as {made.username!r}, not as {username!r}",
            part="username",
            hint=f"log out at {hosts.site} in your browser, then try again",
        )
    targets = [one for one in kept if one["settings"]["username"] == made.username]
    if not targets:
        raise ConfigError(
            f"you logged in as {made.username!r}, whom no storage or compute of yours belongs to",
            hint=_add_hint(made.username),
        )
    with connect() as client:
        for one in targets:
            linked = client.patch(
                f"/connections/{one['port']}/{quote(one['name'], safe='')}",
                {"secrets": {"token": made.value.reveal()}},
            )
            if "password" in set(one["secrets"]) - set(linked["secrets"]):
                click.echo(
                    f"{one['port']} {one['name']}: SciServer refused the password that was kept; it is "
                    "forgotten",
                    err=True,
                )
    names_told = ", ".join(f"{one['port']} {one['name']}" for one in targets)
    left = show.seconds(_left_s(made.expires_at))
    click.echo(f"linked as {made.username} for {left}: {names_told}", err=True)


@sciserver.command()
@show.json_option
def status(as_json: bool) -> int:
    """Show until when each link lasts, and the room in each volume. Asks SciServer."""
    from deepforge.cli.client import connect

    with connect() as client:
        found = list(client.items("/sciserver"))
    if as_json:
        show.print_json(found)
    elif not found:
        click.echo("no storage or compute of yours is at SciServer", err=True)
    else:
        rows = [
            (one["port"], one["name"], one["username"], one["volume"], _lasts(one), _room(one))
            for one in found
        ]
        show.print_table(("port", "name", "account", "volume", "link", "used"), rows)
        _tell(found)
    return FAILED if any(one["problem"] for one in found) else SUCCEEDED


def tell_ends(client: Client, **which: Any) -> None:
    """Say which links end soon, or are needed again: of these names, or what an execution needs."""
    _tell(list(client.items("/sciserver", **which)))


def _tell(found: Sequence[dict[str, Any]]) -> None:
    for one in found:
        if (one["volume"] or "").startswith(_PASSING):
            click.echo(
                f"{one['name']}: SciServer may delete a file 72 hours after it was made; copy "
                "elsewhere what matters",
                err=True,
            )
        if one["problem"]:
            click.echo(f"{one['name']}: {one['problem']}", err=True)
            if one["hint"]:
                click.echo(f"    {click.style('hint:', fg='cyan')} {one['hint']}", err=True)
        elif one["ends_soon"]:
            left = show.seconds(_left_s(one["ends_at"]))
            click.echo(
                f"{one['name']}: your SciServer link ends in {left}; before a long run: "
                "deepforge sciserver link",
                err=True,
            )


def _browse(hosts: Hosts, browser: bool, wait_s: float) -> Secret:
    from deepforge.sciserver.link import listening

    with listening(hosts) as listener:
        click.echo(f"log in at SciServer: {listener.page_url}", err=True)
        if browser:
            import webbrowser

            webbrowser.open(listener.page_url)
        return listener.wait(wait_s)


def _log_in(hosts: Hosts, username: str) -> Secret:
    from deepforge.cli.users import read_password
    from deepforge.sciserver.login import log_in
    from deepforge.settings import Secret

    if sys.stdin.isatty():
        click.echo("three wrong passwords lock a SciServer account for ten minutes", err=True)
    password = Secret(read_password(f"SciServer password of {username}"))
    return asyncio.run(log_in(hosts, username, password))


def _the_one(option: str, found: set[str], asked: str | None) -> str:
    """The value that is asked for, or the only one there is."""
    wanted = None if asked is None else asked.rstrip("/")
    if not found:
        raise ConfigError(
            "no storage or compute of yours is at SciServer", hint=_add_hint("YOUR-ACCOUNT")
        )
    if wanted in found:
        return wanted
    listing = ", ".join(sorted(found))
    if wanted is not None:
        raise InvalidRequest(
            f"no storage or compute of yours has the {option} {wanted!r}",
            part=option,
            hint=f"there is: {listing}",
        )
    if len(found) > 1:
        raise InvalidRequest(
            f"you use several: {listing}", part=option, hint=f"say which: --{option}"
        )
    return next(iter(found))


def _add_hint(username: str) -> str:
    return f"add one first: deepforge storage add sciserver NAME --username {username}"


def _lasts(one: dict[str, Any]) -> str:
    if one["problem"]:
        return "does not work"
    if one["renews_itself"]:
        return "renews itself"
    return f"{show.seconds(_left_s(one['ends_at']))} left" if one["ends_at"] else ""


def _room(one: dict[str, Any]) -> str:
    if one["used_bytes"] is None:
        return ""
    used = show.size(one["used_bytes"])
    return f"{used} of {show.size(one['limit_bytes'])}" if one["limit_bytes"] else used


def _left_s(ends_at: str) -> float:
    from deepforge.ids import epoch_s, utc_now

    return max(0.0, epoch_s(ends_at) - epoch_s(utc_now()))
