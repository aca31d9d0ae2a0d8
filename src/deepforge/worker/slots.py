"""Which part of the machine each job has. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Tuple


@dataclass(frozen=True)
class Capacity:
    """What jobs may use together."""

    jobs: int
    cpus: int
    memory_bytes: int
    gpus: Tuple[str, ...] = ()  # as CUDA calls them


@dataclass(frozen=True)
class Need:
    """What one job has asked for. What it did not ask for counts as one processor and nothing else."""

    cpus: int = 1
    memory_bytes: int = 0
    gpus: int = 0


class Slots:
    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._taken: Dict[str, Tuple[Need, Tuple[str, ...]]] = {}

    def why_never(self, need: Need) -> Optional[str]:
        """Why a job does not even fit into the empty machine, or None if it does."""
        whole = self.capacity
        for asked, there, unit in (
            (need.cpus, whole.cpus, "processors"),
            (need.memory_bytes, whole.memory_bytes, "bytes of memory"),
            (need.gpus, len(whole.gpus), "GPUs"),
        ):
            if asked > there:
                return "it asks for %d %s; this worker has %d" % (asked, unit, there)
        return None

    def take(self, job: str, need: Need) -> Optional[Tuple[str, ...]]:
        """Give a job its part and return its GPUs. None when it does not fit now."""
        free = self.free()
        fits = (
            free.jobs >= 1
            and free.cpus >= need.cpus
            and free.memory_bytes >= need.memory_bytes
            and len(free.gpus) >= need.gpus
        )
        return self.restore(job, need, free.gpus[: need.gpus]) if fits else None

    def restore(self, job: str, need: Need, gpus: Tuple[str, ...]) -> Tuple[str, ...]:
        """Count a job that has its part already."""
        self._taken[job] = (need, gpus)
        return gpus

    def give_back(self, job: str) -> None:
        self._taken.pop(job, None)

    def free(self) -> Capacity:
        needs = [need for need, _ in self._taken.values()]
        used = {gpu for _, gpus in self._taken.values() for gpu in gpus}
        whole = self.capacity
        return Capacity(
            max(0, whole.jobs - len(needs)),
            max(0, whole.cpus - sum(need.cpus for need in needs)),
            max(0, whole.memory_bytes - sum(need.memory_bytes for need in needs)),
            tuple(gpu for gpu in whole.gpus if gpu not in used),
        )


def read_need(resources: Mapping[str, Any]) -> Need:
    """Read what the server says that a job asks for. What is no number was not asked for."""
    return Need(
        _count(resources.get("cpus"), 1),
        _count(resources.get("memoryBytes"), 0),
        _count(resources.get("gpus"), 0),
    )


def _count(value: Any, default: int) -> int:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return int(-(-value // 1))
    return default
