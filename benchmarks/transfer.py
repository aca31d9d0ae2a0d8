"""How fast are we at moving objects, beside the clients that people would take instead?

One large object, some of middle size and many small ones, up and down, on a real SeaweedFS on this
machine. Ours hash what they send and verify what they get; the peers are as they come. Each runs in a
process of its own, and its start is not measured. Large uploads measure the server more than the
client: there the processor time tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from benchmarks.measure import Measurement, in_turn, median, ratio, table
from benchmarks.objects import Load, depot, missing

LOADS = (
    Load("1 x 1 GiB", 1, 1024**3),
    Load("64 x 16 MiB", 64, 16 * 1024**2),
    Load("2,000 x 16 KiB", 2000, 16 * 1024),
)
SMALL_LOADS = (
    Load("1 x 128 MiB", 1, 128 * 1024**2),
    Load("16 x 4 MiB", 16, 4 * 1024**2),
    Load("125 x 16 KiB", 125, 16 * 1024),
)
OURS = {"client": "DeepForge, storage client", "grants": "DeepForge, grants"}
PEERS = {"obstore": "obstore", "boto3": "boto3", "minio": "minio-py", "s5cmd": "s5cmd"}


def main(rounds: int, *, small: bool) -> None:
    clients = {}
    for client, label in {**OURS, **PEERS}.items():
        why_not = missing(client)
        if why_not is None:
            clients[client] = label
        else:
            print(f"Without {label}: {why_not}.")
    with depot() as place:
        for load in SMALL_LOADS if small else LOADS:
            sample = place.sample(load)
            for direction, move in (("up", place.upload), ("down", place.download)):
                candidates = {client: partial(move, client, sample) for client in clients}
                measured = in_turn(candidates, rounds=rounds)
                report(f"Transfer: {load.title} {direction}", load, clients, measured)
            place.forget(sample)


def report(
    title: str,
    load: Load,
    labels: Mapping[str, str],
    measured: Mapping[str, Sequence[Measurement]],
) -> None:
    peers = [found for client, found in measured.items() if client in PEERS]
    fastest = [min(found, key=lambda one: one["seconds"]) for found in zip(*peers, strict=True)]
    raw = measured["obstore"]
    many = load.size_bytes < 1024**2
    table(
        title,
        [
            "",
            "objects/s" if many else "MB/s",
            "x fastest peer",
            "time x obstore",
            "client CPU s",
            "peak MB",
        ],
        [
            [
                label,
                f"{(load.count if many else load.total_bytes / 1e6) / typical(found, 'seconds'):.0f}",
                f"{1 / ratio(found, fastest, 'seconds'):.2f}",
                f"{ratio(found, raw, 'seconds'):.2f}",
                f"{typical(found, 'cpu_s'):.2f}",
                f"{typical(found, 'peak_mb'):.0f}",
            ]
            for label, found in ((labels[client], found) for client, found in measured.items())
        ],
    )


def typical(found: Sequence[Measurement], figure: str) -> float:
    return median([one[figure] for one in found])
