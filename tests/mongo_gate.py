"""A gate in front of FerretDB that lets one command through at a time.

MongoDB changes one document atomically. FerretDB 1 does not: it reads, then writes, and of twenty
updates that name one revision several succeed (seen in 49 of 50 rounds). Behind the gate a command
is atomic again, as on the real thing, so a test that passes shows that *we* need no more than that:
whoever spreads a compare-and-set over two commands still loses.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

_OP_MSG = 2013
_NO_ANSWER = 2  # the flag "moreToCome"


@contextlib.contextmanager
def gate(
    server_port: int,
    *,
    lose: Callable[[bytes], bool] | None = None,
    mend: Callable[[bytes], bytes] = lambda command: command,
) -> Iterator[int]:
    """Serve a free port until the block ends. Yields it. The server behind may die and come back.

    A command for which `lose` is true is done, but the connection ends before its answer. What
    `mend` makes of a command is what the server gets.
    """
    one_at_a_time = threading.Lock()
    opened: list[socket.socket] = []
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                opened.append(client)
                thread = threading.Thread(
                    target=_pass_on, args=(client, server_port, one_at_a_time, lose, mend)
                )
                threads.append(thread)
                thread.start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for client in opened:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


def _pass_on(
    client: socket.socket,
    server_port: int,
    one_at_a_time: threading.Lock,
    lose: Callable[[bytes], bool] | None,
    mend: Callable[[bytes], bytes],
) -> None:
    with client, contextlib.suppress(OSError, EOFError):
        server = socket.create_connection(("127.0.0.1", server_port))
        with server:
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                command = mend(_message(client))
                with one_at_a_time:
                    server.sendall(command)
                    answer = _message(server) if _is_answered(command) else b""
                if lose is not None and lose(command):
                    return
                client.sendall(answer)


def _message(source: socket.socket) -> bytes:
    head = _exactly(source, 4)
    return head + _exactly(source, struct.unpack("<i", head)[0] - 4)


def _exactly(source: socket.socket, size_bytes: int) -> bytes:
    buffer = bytearray(size_bytes)
    view = memoryview(buffer)
    while view:
        count = source.recv_into(view)
        if count == 0:
            raise EOFError
        view = view[count:]
    return bytes(buffer)


def _is_answered(command: bytes) -> bool:
    code, flags = struct.unpack_from("<iI", command, 12)
    return not (code == _OP_MSG and flags & _NO_ANSWER)
