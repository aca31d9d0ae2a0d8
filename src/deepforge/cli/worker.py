"""`deepforge worker`: run jobs of a server on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from deepforge.errors import ConfigError
from deepforge.worker.options import OPTIONS
from deepforge.worker.trouble import WorkerError

_EPILOG = """\b
Examples:
  deepforge worker --url https://forge.example.org --token -
  deepforge worker --url https://forge.example.org --jobs 2 --memory 24G --label gpu
  deepforge worker --url https://forge.example.org --service

Jobs run as you, with your rights: work for servers that you trust. One SIGTERM or Ctrl-C lets
running jobs end and takes no new ones, a second one ends them too. A worker that is killed finds its
jobs again when it starts anew.

Without DeepForge on the machine, python3 alone will do: the server gives the same program as one
file, worker.pyz.
"""


def _options(command: click.Command) -> click.Command:
    """The options of the program itself, said in one place."""
    for option in OPTIONS:
        command.params.append(
            click.Option(
                [option.name],
                help=option.help,
                metavar=option.metavar,
                is_flag=option.metavar is None,
                multiple=option.is_many,
            )
        )
    return command


@_options
@click.command(epilog=_EPILOG)
def worker(**given: Any) -> int:  # the values of OPTIONS
    """Run jobs of a server on this machine, until told to end."""
    from deepforge.worker.__main__ import work

    named = {name.replace("_", "-"): value for name, value in given.items()}
    try:
        return work(named, [str(Path(sys.argv[0]).resolve()), "worker"])
    except WorkerError as error:
        raise ConfigError(error.message, hint=error.hint) from error
