"""How much memory does a transfer take, and does that grow with the object?

The most that each process ever had, Python and all libraries included.
"""

from __future__ import annotations

from functools import partial

from benchmarks.measure import in_turn, table
from benchmarks.objects import Load, depot
from benchmarks.transfer import OURS

SIZES_MIB = (64, 256, 1024)
SMALL_SIZES_MIB = (16, 64, 128)


def main(rounds: int, *, small: bool) -> None:
    rows = []
    with depot() as place:
        for size_mib in SMALL_SIZES_MIB if small else SIZES_MIB:
            sample = place.sample(Load(f"{size_mib} MiB", 1, size_mib * 1024**2))
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
    table("Memory: peak MB of one transfer, the worst of all rounds", ["", *columns], rows)
