"""Hashing and writing what arrives: in the thread that receives, or beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from deepforge.runner.files import write_all
from deepforge.runner.wire import BLOCK, Client

if TYPE_CHECKING:
    from queue import SimpleQueue

_BLOCKS = 4


class Sink:
    """Fill `block()`, then `take` what is in it; after `close` everything is hashed and written."""

    def __init__(self, file: Any, sha: Any, client: Client) -> None:
        self._file = file
        self._sha = sha
        self._client = client

    def block(self) -> memoryview:
        return self._client.block

    def take(self, view: memoryview) -> None:
        self._sha.update(view)  # meanwhile the other side fills the socket's buffer
        write_all(self._file, view)

    def close(self) -> None:
        pass


class ThreadSink(Sink):
    """Lets another thread hash and write. For one large object: hashing takes longer than the rest."""

    def __init__(self, file: Any, sha: Any, client: Client) -> None:
        import threading  # only here: once it is known, every fork takes longer
        from queue import SimpleQueue

        super().__init__(file, sha, client)
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._taken: SimpleQueue[Optional[memoryview]] = SimpleQueue()
        self._error: Optional[OSError] = None
        for _ in range(_BLOCKS):
            self._free.put(memoryview(bytearray(BLOCK)))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def block(self) -> memoryview:
        return self._free.get()

    def take(self, view: memoryview) -> None:
        if self._error is not None:
            raise self._error
        self._taken.put(view)

    def close(self) -> None:
        self._taken.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            view = self._taken.get()
            if view is None:
                return
            try:
                if self._error is None:
                    super().take(view)
            except OSError as error:  # raised in the thread that receives
                self._error = error
            self._free.put(memoryview(view.obj))
