"""`python -m deepforge.testing.sciserver`: the stand-in as a program, until it is interrupted."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from deepforge.testing.sciserver import running


def main() -> None:
    """Say the address on the first line, then serve."""
    parser = argparse.ArgumentParser(
        prog="python -m deepforge.testing.sciserver",
        description="A stand-in for SciServer on loopback. It runs submitted commands for real.",
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes any free one")
    parser.add_argument("--folder", type=Path, help="keep all files here")
    parser.add_argument("--tick", type=float, default=0.5, help="seconds between steps of a job")
    parser.add_argument(
        "--user", action="append", default=[], metavar="NAME:PASSWORD", help="may be given again"
    )
    arguments = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with running(arguments.folder, port=arguments.port, tick_s=arguments.tick) as site:
        site.state.verdicts_kept_s = 60.0
        for entry in arguments.user or ["alice:wonderland"]:
            name, _, password = entry.partition(":")
            site.users.add_user(name, password)
        sys.stdout.write(f"{site.url}\n")
        sys.stdout.flush()
        ended.wait()


if __name__ == "__main__":
    main()
