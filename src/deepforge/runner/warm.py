"""The warm helper: a clean interpreter that does nothing but fork. See `helper` for who uses it.

    runner ── helper ── the fork that waits, or the operation

One fork always waits for the next operation, since a fork takes longer than a small one runs. It
imports little and does little: each page of memory that a fork writes to costs a copy.
"""

from __future__ import annotations

import os
import sys

from deepforge.runner import call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn, Optional

NEWS = 66  # "pid" of a fork that waits; "pid status peak_bytes" of one that has ended

_NUMBER = 4  # bytes
_PIECE = 65536


def order_to(pid: int, order: bytes) -> bytes:
    """How an order for the fork with this pid is written to the pipe that all forks read."""
    return b"".join(number.to_bytes(_NUMBER, sys.byteorder) for number in (pid, len(order))) + order


def main() -> NoReturn:
    """Fork for ever, one process at a time; end when the runner has ended."""
    code = 1
    try:
        _get_ready()
        scale = 1 if sys.platform == "darwin" else 1024
        while True:
            pid = os.fork()
            if pid == 0:
                _operate()
            os.write(NEWS, b"%d\n" % pid)
            _, status, usage = os.wait4(pid, 0)
            os.write(NEWS, b"%d %d %d\n" % (pid, status, usage.ru_maxrss * scale))
    except BrokenPipeError:
        code = 0
    finally:
        os._exit(code)


def _get_ready() -> None:
    """Do now what would be the same in every fork."""
    import gc
    import pickle  # noqa: F401
    import resource  # noqa: F401  # os.wait4 wants it

    import deepforge.serialization  # noqa: F401

    for number in (call.REPORT, call.LIFE, NEWS):
        os.set_inheritable(number, False)
    os.environ["PYTHONUNBUFFERED"] = "1"  # for interpreters that the operation starts
    call.get_ready()
    call.watch_life()
    sys.modules["__main__"] = type(sys)("__main__")
    gc.collect()
    gc.freeze()  # what is here already need not be looked through, and so not be copied


def _operate() -> NoReturn:
    """Everything in a fork: wait for an operation, and become it."""
    try:
        os.setsid()
        call.end_with_runner()
        os.close(NEWS)
        order = _receive()
        if order is not None:
            call.run_and_leave(call.take(order))
    finally:
        os._exit(127)


def _receive() -> Optional[bytes]:
    """Wait for an order that is meant for this process. None when there will be none."""
    me = os.getpid()
    told = b""
    while True:
        data = os.read(0, _PIECE)
        if not data:
            return None
        told += data
        while len(told) >= 2 * _NUMBER:
            end = 2 * _NUMBER + int.from_bytes(told[_NUMBER : 2 * _NUMBER], sys.byteorder)
            if len(told) < end:
                break
            if int.from_bytes(told[:_NUMBER], sys.byteorder) == me:
                return told[2 * _NUMBER : end]
            told = told[end:]  # it was for one that was killed while it waited
