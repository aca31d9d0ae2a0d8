"""A few threads that move many things, each with connections of its own."""

from __future__ import annotations

import threading
from collections import deque
from typing import Callable, Deque, Dict, List, Optional, Sequence, Tuple, TypeVar

from deepforge.runner.failures import Cancelled
from deepforge.runner.watch import Watch
from deepforge.runner.wire import Client

T = TypeVar("T")
R = TypeVar("R")

WORKERS = 4


def each(
    items: Sequence[T],
    work: Callable[[Client, T], R],
    client: Callable[[Callable[[], None]], Client],
    watch: Watch,
    workers: int = WORKERS,
) -> List[R]:
    """Do `work` for every item and return the results in order.

    With one item or one worker all happens in this thread. The first error ends the others and is
    raised; so does a cancel. `client(check)` makes the connections of one worker.
    """
    if len(items) <= 1 or workers <= 1:
        own = client(watch.check)
        try:
            return [work(own, item) for item in items]
        finally:
            own.close()
    crew = _Crew(items, work, client, watch)
    threads = [
        threading.Thread(target=crew.run, daemon=True) for _ in range(min(workers, len(items)))
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)
                watch.check()
    except BaseException:
        crew.stopped = True
        raise
    if crew.error is not None:
        raise crew.error
    return [crew.results[number] for number in range(len(items))]


class _Stopped(Exception):
    """Another worker failed, or the job was cancelled."""


class _Crew:
    def __init__(
        self,
        items: Sequence[T],
        work: Callable[[Client, T], R],
        client: Callable[[Callable[[], None]], Client],
        watch: Watch,
    ) -> None:
        self.waiting: Deque[Tuple[int, T]] = deque(enumerate(items))
        self.results: Dict[int, R] = {}
        self.error: Optional[BaseException] = None
        self.stopped = False
        self._work = work
        self._client = client
        self._watch = watch

    def run(self) -> None:
        client = self._client(self._check)
        try:
            while True:
                number, item = self.waiting.popleft()
                self.results[number] = self._work(client, item)
        except (IndexError, _Stopped, Cancelled):
            pass
        except BaseException as error:  # handed to the thread that waits
            self.error = self.error or error
            self.stopped = True
        finally:
            client.close()

    def _check(self) -> None:
        if self.stopped or self._watch.cancelled:
            raise _Stopped()
