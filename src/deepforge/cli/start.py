"""`deepforge start`: a server for this machine, or for others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from deepforge.server.home import Home

_EPILOG = """\b
Examples:
  deepforge start
  DEEPFORGE_URL=http://127.0.0.1:8000 deepforge run examples/hello
  deepforge start --host 0.0.0.0 --public-url https://forge.example.org
"""


@click.command(epilog=_EPILOG)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Where to listen. With any address but a loopback one, callers need the access token.",
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
    import asyncio

    from deepforge.server.home import open_home
    from deepforge.server.logs import configure_logging

    home = open_home()
    configure_logging()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(home, host, port, _checked(public_url)))


async def _serve(home: Home, host: str, port: int, public_url: str | None) -> None:
    from contextlib import AsyncExitStack

    from deepforge.execution.access import Address
    from deepforge.server.app import build_app
    from deepforge.server.auth import Access, is_loopback
    from deepforge.server.listen import answering, base_url, bind, serving, stop_signals
    from deepforge.server.services import open_services

    async with AsyncExitStack() as stack:
        stop = stack.enter_context(stop_signals())
        listener = stack.enter_context(bind(host, port))
        url = base_url(listener)
        access = Access() if is_loopback(host) else Access(home.access_token())
        address = Address(loopback_url=url, public_url=public_url, file=str(home.address))
        services = await stack.enter_async_context(open_services(home, drive=True, address=address))
        app = build_app(services, access)
        await stack.enter_async_context(serving(app, listener, stopping=app.state.stopping.set))
        await stack.enter_async_context(answering(home, url))
        click.echo(f"DeepForge answers at {url}")
        if access.token is not None:
            click.echo(f"callers need the access token in {home.token}")
        await stop


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return None
    return uvloop.new_event_loop


def _checked(public_url: str | None) -> str | None:
    if public_url is None:
        return None
    from urllib.parse import urlsplit

    parts = urlsplit(public_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise click.BadParameter(
            f"{public_url!r} is not the address of a server", param_hint="--public-url"
        )
    return public_url.rstrip("/")
