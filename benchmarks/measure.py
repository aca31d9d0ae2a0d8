"""How we measure: rounds in turn, medians, ratios taken inside a round."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Measurement = Mapping[str, float]


def clean_environment(**more: str) -> dict[str, str]:
    """What every measured process gets: no byte-code switch (it makes each start compile all it
    imports) and nothing of ours."""
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ
    }
    return {**kept, **more}


def in_turn(
    candidates: Mapping[str, Callable[[], Measurement]], *, rounds: int, warmup: int = 1
) -> dict[str, list[Measurement]]:
    """Run every candidate once a round, `rounds` times, after `warmup` rounds that do not count.

    Other work on the machine then hits all of them alike.
    """
    measured: dict[str, list[Measurement]] = {name: [] for name in candidates}
    for number in range(-warmup, rounds):
        for name, run in candidates.items():
            print(f"  round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            found = run()
            if number >= 0:
                measured[name].append(found)
    return measured


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def ratio(ours: Sequence[Measurement], theirs: Sequence[Measurement], figure: str) -> float:
    """The median of the ratios of each round."""
    return median([one[figure] / other[figure] for one, other in zip(ours, theirs, strict=True)])


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    print(f"\n### {title}\n")
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def run(
    command: Sequence[str | Path], environment: Mapping[str, str], cwd: Path | None = None
) -> str:
    """Run a command to its end and return what it printed. Raises when it fails."""
    done = subprocess.run(
        [str(one) for one in command],
        env=dict(environment),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout
