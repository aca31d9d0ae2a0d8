"""`python3 worker.pyz --url … --token -`: work for a DeepForge server."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, List, Mapping, Sequence

from deepforge.runner.support import VERSION
from deepforge.worker.folder import Folder
from deepforge.worker.loop import Worker
from deepforge.worker.machine import keep_secrets_in_memory
from deepforge.worker.options import (
    OPTIONS,
    TOKEN_VARIABLE,
    folder_of,
    given_url,
    given_words,
    read_options,
)
from deepforge.worker.say import say
from deepforge.worker.service import unit
from deepforge.worker.trouble import WorkerError

EPILOG = """\
Jobs run as you, with your rights: work for servers that you trust. One SIGTERM or Ctrl-C lets running
jobs end and takes no new ones, a second one ends them too. A worker that is killed finds its jobs again
when it starts anew.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the program and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python3 " + os.path.basename(sys.argv[0]),
        description="Run jobs of a DeepForge server on this machine.",
        epilog=EPILOG,
    )
    for option in OPTIONS:
        if option.metavar is None:
            parser.add_argument(option.name, help=option.help, action="store_true")
        else:
            action = "append" if option.is_many else "store"
            parser.add_argument(
                option.name, help=option.help, metavar=option.metavar, action=action
            )
    parser.add_argument("--version", action="version", version="DeepForge worker %s" % VERSION)
    found = {
        name.replace("_", "-"): one for name, one in vars(parser.parse_args(arguments)).items()
    }
    command = [sys.executable, os.path.abspath(sys.argv[0])]
    try:
        return work(found, command)
    except WorkerError as error:
        say("error: %s" % error.message)
        if error.hint:
            say("hint: %s" % error.hint)
        return 3


def work(given: Mapping[str, Any], command: List[str]) -> int:
    """Do what the options say; `command` is how this program was called. Raises `WorkerError`."""
    if given.get("service"):
        given_url(given)
        token_file = str(given.get("token-file") or Folder(folder_of(given)).token)
        token_file = os.path.abspath(os.path.expanduser(token_file))
        sys.stdout.write(unit([*command, *given_words(given)], token_file))
        return 0
    keep_secrets_in_memory()
    options = read_options(given, os.environ)
    os.environ.pop(TOKEN_VARIABLE, None)
    return Worker(options).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
