"""The threads that use SQLite, and the desk where the tasks of an event loop leave work for them."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from deepforge.errors import Unavailable

Work = Callable[[sqlite3.Connection], Any]  # what one request does, in a thread; any result


@dataclass(frozen=True)
class Statement:
    """One statement with its parameters. The result is how many rows it changed."""

    sql: str
    values: Sequence[Any]

    def __call__(self, connection: sqlite3.Connection) -> int:
        return connection.execute(self.sql, self.values).rowcount


class Request(NamedTuple):
    work: Work
    future: asyncio.Future[Any]


class _Answer(NamedTuple):
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class Desk:
    """Where tasks of one event loop leave work for threads. Answers come back many at a time:
    handing over is what costs, not the SQL."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._requests: SimpleQueue[Request | None] = SimpleQueue()
        self._answers: deque[_Answer] = deque()
        self._is_called = False
        self._is_open = True

    def ask(self, work: Work) -> asyncio.Future[Any]:
        if not self._is_open:
            raise Unavailable("the database was closed")
        future = self._loop.create_future()
        self._requests.put(Request(work, future))
        return future

    def close(self) -> None:
        """Take no more requests. Threads finish those that wait."""
        self._is_open = False
        self._requests.put(None)

    def take(self) -> Request | None:
        """Wait for a request; None when there will be no more."""
        request = self._requests.get()
        if request is None:
            self._requests.put(None)  # for the other threads
        return request

    def take_waiting(self) -> list[Request]:
        """Take all that wait now."""
        taken: list[Request] = []
        with contextlib.suppress(Empty):
            while (request := self._requests.get_nowait()) is not None:
                taken.append(request)
            self._requests.put(None)
        return taken

    def answer(self, answers: Iterable[_Answer]) -> None:
        self._answers.extend(answers)
        if self._is_called:  # it clears this before it looks at the answers, so it sees these
            return
        self._is_called = True
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_called = False
        while self._answers:
            answer = self._answers.popleft()
            if answer.future.done():  # its task was cancelled
                continue
            if answer.error is None:
                answer.future.set_result(answer.result)
            else:
                answer.future.set_exception(answer.error)


def write_all(connection: sqlite3.Connection, desk: Desk) -> None:
    with contextlib.closing(connection):
        while (first := desk.take()) is not None:
            desk.answer(_commit(connection, [first, *desk.take_waiting()]))


def read_all(connection: sqlite3.Connection, desk: Desk) -> None:
    with contextlib.closing(connection):
        while (request := desk.take()) is not None:
            desk.answer([_perform(connection, request)])


def _commit(connection: sqlite3.Connection, batch: Sequence[Request]) -> list[_Answer]:
    """Do all requests in one transaction and commit once.

    No savepoints: a statement that fails leaves nothing behind and does not disturb the others. A
    single statement is a transaction by itself, and every call of SQLite hands the interpreter's lock
    to and fro: the fewer the better.
    """
    if len(batch) == 1 and isinstance(batch[0].work, Statement):
        return [_perform(connection, batch[0])]
    try:
        connection.execute("begin immediate")
    except sqlite3.Error as error:
        return [_Answer(request.future, error=error) for request in batch]
    answers: list[_Answer] = []
    try:
        for request in batch:
            answers.append(_perform(connection, request))
            if not connection.in_transaction:  # such as a full disk: SQLite took everything back
                raise answers[-1].error or sqlite3.OperationalError("the transaction is gone")
        connection.execute("commit")
    except Exception as error:
        if connection.in_transaction:
            connection.execute("rollback")
        if len(batch) == 1:
            return [_Answer(batch[0].future, error=error)]
        return [answer for request in batch for answer in _commit(connection, [request])]
    return answers


def _perform(connection: sqlite3.Connection, request: Request) -> _Answer:
    try:
        return _Answer(request.future, request.work(connection))
    except Exception as error:  # whatever it is belongs to the task that asked
        return _Answer(request.future, error=error)
