"""How much memory does a transfer take, and does that grow with the object, or with their number?

The most that each process ever had, Python and all libraries included.
"""

from __future__ import annotations

from functools import partial

from benchmarks.measure import in_turn, table
from benchmarks.objects import Load, depot
from benchmarks.transfer import OURS

MIB = 1024**2
LOADS = (
    *(Load(f"{size_mib} MiB", 1, size_mib * MIB) for size_mib in (64, 256, 1024)),
    Load("64 x 16 MiB", 64, 16 * MIB),
)
SMALL_LOADS = (
    *(Load(f"{size_mib} MiB", 1, size_mib * MIB) for size_mib in (16, 64, 128)),
    Load("8 x 16 MiB", 8, 16 * MIB),
)


def main(rounds: int, *, small: bool) -> None:
    rows = []
    with depot() as place:
        for load in SMALL_LOADS if small else LOADS:
            sample = place.sample(load)
            measured = in_turn(
                {
                    f"{client} {direction}": partial(move, client, sample)
                    for client in OURS
                    for direction, move in (("up", place.upload), ("down", place.download))
                },
                rounds=rounds,
                warmup=0,
            )
            place.forget(sample)
            peaks = [max(one["peak_mb"] for one in found) for found in measured.values()]
            rows.append([sample.load.title, *(f"{peak:.0f}" for peak in peaks)])
    columns = [
        f"{label.partition(', ')[2]} {way}" for label in OURS.values() for way in ("up", "down")
    ]
    table("Memory: peak MB of a transfer, the worst of all rounds", ["", *columns], rows)
