"""`deepforge start`: a server for this machine, or for others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from deepforge.server.start import Listening

_EPILOG = """\b
Examples:
  deepforge start
  DEEPFORGE_URL=http://127.0.0.1:8000 deepforge run examples/hello
  deepforge users add ada
  deepforge start --host 0.0.0.0 --public-url https://forge.example.org
"""


@click.command(epilog=_EPILOG)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Where to listen. With any address but a loopback one, callers need accounts.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="0 takes a free one.",
)
@click.option(
    "--public-url", metavar="URL", help="How jobs on other machines reach this server, if they can."
)
def start(host: str, port: int, public_url: str | None) -> None:
    """Start a server and keep it running until Ctrl-C.

    Executions that were running go on. Those still running when it stops go on at the next start.
    """
    from deepforge.server import start as server
    from deepforge.server.home import open_home
    from deepforge.server.listen import run
    from deepforge.server.logs import configure_logging

    configure_logging()
    run(server.start(open_home(), host=host, port=port, public_url=public_url, announce=_announce))


def _announce(listening: Listening) -> None:
    click.echo(f"DeepForge answers at {listening.url}")
    if listening.wants_login:
        click.echo("callers need an account: deepforge login")
