"""Hashing data while they are moved, in the same thread or beside it."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from typing import Any, Deque, Iterator, List, Union

from deepforge.runner.wire import BLOCK

_BLOCKS = 4


@contextmanager
def hashing(sha: Any, *, beside: bool) -> Iterator[Union[_Here, _Beside]]:
    """Give something with `block`, a buffer to fill, and `update`, to hash what is in it.

    With `beside`, another thread does the hashing: `sha` is complete when the block is left, and a
    buffer is given again only when it has been hashed.
    """
    if not beside:
        yield _Here(sha)
        return
    hasher = _Beside(sha)
    try:
        yield hasher
    finally:
        hasher.finish()


class _Here:
    def __init__(self, sha: Any) -> None:
        self.update = sha.update

    def block(self) -> memoryview:
        return _own_block()


class _Beside:
    def __init__(self, sha: Any) -> None:
        self._sha = sha
        self._blocks = [memoryview(bytearray(BLOCK)) for _ in range(_BLOCKS)]
        self._number = 0
        self._waiting: Deque[memoryview] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def block(self) -> memoryview:
        with self._changed:
            while len(self._waiting) > _BLOCKS - 2:
                self._changed.wait()
        self._number += 1
        return self._blocks[self._number % _BLOCKS]

    def update(self, view: memoryview) -> None:
        with self._changed:
            self._waiting.append(view)
            self._changed.notify()

    def finish(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._ended:
                        return
                    self._changed.wait()
                view = self._waiting[0]
            self._sha.update(view)
            with self._changed:
                self._waiting.popleft()
                self._changed.notify()


_local = threading.local()


def _own_block() -> memoryview:
    """A buffer of this thread, the same every time: fresh memory is slow."""
    found: List[memoryview] = _local.__dict__.setdefault("blocks", [])
    if not found:
        found.append(memoryview(bytearray(BLOCK)))
    return found[0]
