"""A few threads that move many things, each with connections of its own."""

from __future__ import annotations

from collections import deque
from typing import Callable, Deque, Dict, List, Sequence, Tuple, TypeVar

from deepforge.runner.watch import Watch
from deepforge.runner.wire import Client

T = TypeVar("T")
R = TypeVar("R")

WORKERS = 8  # most small transfers wait for the other side

MakeClient = Callable[[Callable[[], None]], Client]
"""Makes the connections of one worker; they call the function given while they wait."""


def each(
    items: Sequence[T],
    work: Callable[[Client, T], R],
    make_client: MakeClient,
    watch: Watch,
    workers: int = WORKERS,
) -> List[R]:
    """Do `work` for every item and return the results in order.

    With one item or one worker all happens in this thread. The first error ends the other workers
    and is raised; so is `Cancelled`.
    """
    if len(items) <= 1 or workers <= 1:
        client = make_client(watch.check)
        try:
            return [work(client, item) for item in items]
        finally:
            client.close()

    import threading  # only here: once it is known, every fork takes longer

    waiting: Deque[Tuple[int, T]] = deque(enumerate(items))
    results: Dict[int, R] = {}
    errors: List[BaseException] = []
    stopped = threading.Event()

    def check() -> None:
        if stopped.is_set():
            raise _Stopped()

    def run() -> None:
        client = make_client(check)
        try:
            while waiting and not stopped.is_set():
                try:
                    number, item = waiting.popleft()
                except IndexError:
                    break
                results[number] = work(client, item)
        except _Stopped:
            pass
        except BaseException as error:  # raised below, in the thread that waits
            errors.append(error)
            stopped.set()
        finally:
            client.close()

    threads = [threading.Thread(target=run, daemon=True) for _ in range(min(workers, len(items)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)
                watch.check()
    finally:
        stopped.set()
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(items))]


class _Stopped(Exception):
    """Another worker failed, or the job was cancelled."""
