"""`python -m benchmarks [NAME …]`: each benchmark is one file and one question."""

from __future__ import annotations

import argparse
import importlib
import os
import platform

BENCHMARKS = (
    "overhead",
    "transfer",
    "memory",
    "commands",
    "claims",
    "workers",
    "worker_latency",
    "sciserver",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (default 5)")
    parser.add_argument("--small", action="store_true", help="a sixteenth of the work, to try it")
    chosen = parser.parse_args()
    names = chosen.names or BENCHMARKS
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark called {', '.join(sorted(unknown))}")
    load = os.getloadavg()[0]
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, load {load:.1f} at the start. "
        "Medians; ratios are taken inside each round."
    )
    for name in names:
        importlib.import_module(f"benchmarks.{name}").main(chosen.rounds, small=chosen.small)


if __name__ == "__main__":
    main()
