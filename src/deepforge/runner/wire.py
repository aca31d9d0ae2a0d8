"""A small HTTP/1.1 client: kept-alive connections, bodies straight between sockets and buffers.

`http.client` reads headers with an email parser and copies every block through a buffered file;
for thousands of small objects, or for one large one, that costs more than the transfer.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Union

from deepforge.runner.addresses import Address, WireError, host_text, proxy_for, split_url

BLOCK = 256 * 1024  # bytes moved at once: few system calls, and still in the processor's cache
_FILE_BLOCK = 4 * 1024 * 1024  # of a file that the system sends by itself
CONNECT_S = 15.0
SILENCE_S = 60.0  # how long the other side may say nothing at all
SLICE_S = 1.0  # how often a waiting transfer looks whether it was cancelled
LONGEST_HEAD = 64 * 1024
_USUAL_HEAD = 8 * 1024


class FilePart(NamedTuple):
    """So many bytes of a file, as a part of a body. A file that is shorter raises `OSError`."""

    path: str
    start: int
    size_bytes: int
    sha: Optional[Any] = None
    """What hashes them meanwhile."""


Blocks = Iterable[Union[bytes, bytearray, memoryview, FilePart]]
Body = Union[bytes, Callable[[], Blocks]]  # a function, so that it can be sent again


class Answer:
    """Status, headers (names in lower case), and a body to be read once."""

    def __init__(self, connection: _Connection, status: int, headers: Dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        self._connection = connection
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self._left: Optional[int] = None  # bytes to come (of this chunk); None: until the end
        if self._chunked or status in (204, 304):
            self._left = 0
            self.ended = not self._chunked
        else:
            if "content-length" in headers:
                self._left = _length(headers["content-length"])
            self.ended = self._left == 0

    def readinto(self, view: memoryview) -> int:
        """Fill some of `view`; return how much, 0 at the end. A cut body raises `WireError`."""
        if self._chunked and self._left == 0 and not self.ended:
            self._left = self._next_chunk()
        if self.ended:
            return 0
        wanted = len(view) if self._left is None else min(self._left, len(view))
        count = self._connection.receive_into(view[:wanted])
        if count == 0:
            self.ended = True
            self._connection.close()
            if self._left is not None:
                raise WireError("the connection was cut in the middle of an answer")
        elif self._left is not None:
            self._left -= count
            if self._left == 0:
                if self._chunked:
                    self._connection.read_line()
                else:
                    self.ended = True
        return count

    def read(self, limit: int) -> bytes:
        """Read at most `limit` bytes; what is left over is thrown away with the connection."""
        data = bytearray()
        size = min(limit, 65536)
        if self._left and not self._chunked:
            size = min(size, self._left)
        view = memoryview(bytearray(size))
        while len(data) < limit:
            count = self.readinto(view[: limit - len(data)])
            if count == 0:
                break
            data += view[:count]
        return bytes(data)

    def _next_chunk(self) -> int:
        size = _length(self._connection.read_line().split(b";")[0].decode("latin-1"), 16)
        if size == 0:
            while self._connection.read_line():
                pass  # trailers
            self.ended = True
        return size


class Client:
    """Sends requests over one kept-alive connection for each host. For one thread only.

    `check` is called about every second while waiting; what it raises ends the exchange.
    `locate` may move a URL to where its server listens now.
    """

    def __init__(
        self,
        check: Callable[[], None] = lambda: None,
        *,
        proxied: bool = False,
        locate: Callable[[str], str] = lambda url: url,
        silence_s: float = SILENCE_S,
    ) -> None:
        self.check = check
        self._proxied = proxied
        self._locate = locate
        self._silence_s = silence_s
        self._connections: Dict[Address, _Connection] = {}
        self._block: Optional[memoryview] = None

    @property
    def block(self) -> memoryview:
        """A buffer to receive into, the same every time: fresh memory is slow."""
        if self._block is None:
            self._block = memoryview(bytearray(BLOCK))
        return self._block

    def send(
        self,
        method: str,
        url: str,
        headers: Optional[Mapping[str, str]] = None,
        body: Optional[Body] = None,
        size_bytes: Optional[int] = None,
    ) -> Answer:
        """Send a request and return the answer with its body still to be read.

        A body given as a function needs `size_bytes`. Any status is an answer; `WireError` means
        that there was none. The answer before must have been read or given up by now.
        """
        address, target = split_url(self._locate(url))
        head = _head(method, address, target, headers or {}, body, size_bytes)
        connection = self._connections.get(address)
        if connection is not None and connection.usable():
            try:
                return connection.exchange(head, body)
            except _Stale:
                pass  # the server had closed it while it lay idle: once more, on a fresh one
        if connection is not None:
            connection.close()
        connection = _Connection(address, self._look, self._silence_s, self._proxied)
        self._connections[address] = connection
        try:
            return connection.exchange(head, body)
        except _Stale as error:
            raise WireError(str(error)) from error

    def begin(
        self, check: Callable[[], None], *, proxied: bool, locate: Callable[[str], str]
    ) -> None:
        """Serve another job from now on, with the connections that are left of the one before."""
        if proxied != self._proxied:
            self.close()
        self.check, self._proxied, self._locate = check, proxied, locate

    def rest(self) -> List[int]:
        """Keep no more than the connection to the last host, if it is idle; return its descriptor."""
        self._block = None
        last = next(reversed(list(self._connections.items())), None)
        for connection in self._connections.values():
            if last is None or connection is not last[1] or not connection.usable():
                connection.close()
        self._connections = dict([last]) if last is not None else {}
        return [one.descriptor for one in self._connections.values() if one.descriptor >= 0]

    def _look(self) -> None:
        self.check()  # the one of the moment

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


class _Stale(Exception):
    """The connection ended before any part of an answer came."""


class _HungUp(Exception):
    """The server takes no more of the request. It may have answered already."""


class _Connection:
    def __init__(
        self, address: Address, check: Callable[[], None], silence_s: float, proxied: bool
    ) -> None:
        self._check = check
        self._silence_s = silence_s
        self._buffer = memoryview(bytearray(_USUAL_HEAD))
        self._start = self._end = 0
        self._answer: Optional[Answer] = None
        self._closing = False
        self._absolute = b""  # what a plain HTTP proxy wants before the target, and its header
        self._credentials = b""
        self._socket: Optional[socket.socket] = self._connect(address, proxied)

    @property
    def descriptor(self) -> int:
        """-1 when it is closed."""
        return -1 if self._socket is None else self._socket.fileno()

    def usable(self) -> bool:
        """True if the answer before was read whole and nobody has hung up since."""
        if self._socket is None or self._closing:
            return False
        if self._answer is not None and not self._answer.ended:
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return self._start == self._end and not poll.poll(0)

    def exchange(self, head: bytes, body: Optional[Body]) -> Answer:
        if self._absolute:
            method, rest = head.split(b" ", 1)
            head = method + b" " + self._absolute + rest
            head = head.replace(b"\r\n", b"\r\n" + self._credentials, 1)
        hung_up: Optional[_HungUp] = None
        try:
            try:
                self._send(head, body)
            except _HungUp as error:
                hung_up = error
                self._closing = True
            self._answer = self._read_head()
        except _Stale as error:
            self.close()
            raise _Stale(str(hung_up or error)) from error
        except BaseException:
            self.close()
            raise
        return self._answer

    def receive_into(self, view: memoryview) -> int:
        """Receive at least one byte, or 0 at the end of the stream."""
        if self._start < self._end:
            count = min(len(view), self._end - self._start)
            view[:count] = self._buffer[self._start : self._start + count]
            self._start += count
            return count
        return self._receive(view)

    def read_line(self) -> bytes:
        line = self._read_until(b"\r\n")
        return line[:-2]

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self, address: Address, proxied: bool) -> socket.socket:
        scheme, host, port = address
        proxy = proxy_for(address) if proxied else None
        try:
            found = socket.create_connection(proxy[0] if proxy else (host, port), CONNECT_S)
        except OSError as error:
            raise WireError(
                "cannot reach %s:%d: %s" % (host, port, error),
                refused=isinstance(error, (ConnectionRefusedError, socket.gaierror)),
            ) from error
        try:
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if proxy is not None:
                self._socket = found
                self._greet_proxy(address, proxy[1])
            if scheme == "https":
                found = _secured(found, host)
            found.settimeout(SLICE_S)
        except BaseException:
            found.close()
            raise
        return found

    def _greet_proxy(self, address: Address, credentials: bytes) -> None:
        scheme, host, port = address
        if scheme == "http":
            self._absolute = b"http://" + host_text(address).encode("ascii")
            self._credentials = credentials
            return
        self._send(b"CONNECT %s:%d HTTP/1.1\r\n%s\r\n" % (host.encode(), port, credentials), None)
        status = self._read_head().status
        if status != 200:
            raise WireError("the proxy refused to connect to %s (%d)" % (host, status))
        self._start = self._end = 0

    def _send(self, head: bytes, body: Optional[Body]) -> None:
        if body is None or isinstance(body, bytes):
            self._send_all(head + (body or b""))
            return
        pending: Optional[bytes] = head
        for block in body():
            if isinstance(block, FilePart):
                self._send_all(pending or b"")
                self._send_file(block)
            elif pending is not None and len(block) <= 65536:
                self._send_all(pending + bytes(block))
            else:
                if pending is not None:
                    self._send_all(pending)
                self._send_all(block)
            pending = None
        if pending is not None:
            self._send_all(pending)

    def _send_file(self, part: FilePart) -> None:
        """Have the system send from the file: what it does not copy to us and back is a fifth of our
        work. Over TLS, and where it cannot or fails, copy: that tells which side is at fault."""
        by_system = sys.platform == "linux" and type(self._socket) is socket.socket
        with open(part.path, "rb", buffering=0) as file:
            start, end = part.start, part.start + part.size_bytes
            if by_system and part.sha is None:
                start = self._send_from(file.fileno(), start, end)
            file.seek(start)
            buffer = memoryview(bytearray(min(BLOCK, end - start)))
            while start < end:
                count = file.readinto(buffer[: end - start])
                if not count:
                    raise OSError(None, "%s became shorter while it was sent" % part.path)
                sent = 0
                if part.sha is not None:
                    part.sha.update(buffer[:count])
                    if by_system:
                        sent = self._send_from(file.fileno(), start, start + count) - start
                self._send_all(buffer[sent:count])
                start += count

    def _send_from(self, file: int, start: int, end: int) -> int:
        """Send a file without copying, from `start` to `end`; return how far that went."""
        quiet_since = 0.0
        while start < end:
            assert self._socket is not None
            try:
                count = os.sendfile(
                    self._socket.fileno(), file, start, min(_FILE_BLOCK, end - start)
                )
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._socket, select.POLLOUT)
                if not poll.poll(SLICE_S * 1000):
                    quiet_since = self._wait(quiet_since)
                continue
            except (BrokenPipeError, ConnectionResetError) as error:
                raise _HungUp("the connection broke: %s" % error) from error
            except OSError:
                break
            if not count:
                break
            start += count
            quiet_since = 0.0
            self._check()
        return start

    def _send_all(self, data: Union[bytes, bytearray, memoryview]) -> None:
        view = memoryview(data)
        quiet_since = 0.0
        while len(view):
            assert self._socket is not None
            try:
                view = view[self._socket.send(view) :]
                quiet_since = 0.0
            except socket.timeout:
                quiet_since = self._wait(quiet_since)
            except (BrokenPipeError, ConnectionResetError) as error:
                raise _HungUp("the connection broke: %s" % error) from error
            except OSError as error:
                raise WireError("the connection broke: %s" % error) from error
        self._check()

    def _receive(self, view: memoryview) -> int:
        quiet_since = 0.0
        while True:
            if self._socket is None:
                raise WireError("the connection is closed")
            try:
                count = self._socket.recv_into(view)
            except socket.timeout:
                quiet_since = self._wait(quiet_since)
            except OSError as error:
                self.close()
                raise WireError("the connection broke: %s" % error) from error
            else:
                self._check()
                return count

    def _wait(self, quiet_since: float) -> float:
        self._check()
        now = time.monotonic()
        if quiet_since and now - quiet_since > self._silence_s:
            self.close()
            raise WireError("the other side said nothing for %.0f s" % self._silence_s)
        return quiet_since or now - SLICE_S

    def _read_head(self) -> Answer:
        while True:
            first = self._read_until(b"\r\n\r\n", stale=True)
            lines = first[:-4].decode("latin-1").split("\r\n")
            words = lines[0].split(" ", 2)
            if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
                raise WireError("what answered is not an HTTP server: %.80r" % lines[0])
            headers: Dict[str, str] = {}
            for line in lines[1:]:
                name, _, value = line.partition(":")
                headers[name.strip().lower()] = value.strip()
            status = int(words[1])
            if status >= 200:
                break
        asked = headers.get("connection", "").lower()
        if asked == "close" or (words[0] == "HTTP/1.0" and asked != "keep-alive"):
            self._closing = True
        return Answer(self, status, headers)

    def _read_until(self, mark: bytes, stale: bool = False) -> bytes:
        """Take everything up to and with `mark` out of the buffer, receiving as needed."""
        searched = self._start
        while True:
            found = bytes(self._buffer[searched : self._end]).find(mark)
            if found >= 0:
                end = searched + found + len(mark)
                data = bytes(self._buffer[self._start : end])
                self._start = end
                return data
            if self._start:
                rest = bytes(self._buffer[self._start : self._end])
                self._buffer[: len(rest)] = rest
                self._start, self._end = 0, len(rest)
            if self._end == LONGEST_HEAD:
                raise WireError("the head of the answer is too long", transient=False)
            if self._end == len(self._buffer):
                self._buffer = memoryview(bytearray(self._buffer).ljust(LONGEST_HEAD))
            searched = max(self._start, self._end - len(mark))
            try:
                count = self._receive(self._buffer[self._end :])
            except WireError as error:
                if stale and self._end == 0 and isinstance(error.__cause__, ConnectionError):
                    raise _Stale(str(error)) from error
                raise
            if count == 0:
                if stale and self._end == 0:
                    raise _Stale("the server hung up without an answer")
                raise WireError("the connection was cut in the middle of an answer")
            self._end += count


def _head(
    method: str,
    address: Address,
    target: str,
    headers: Mapping[str, str],
    body: Optional[Body],
    size_bytes: Optional[int],
) -> bytes:
    lines: List[str] = ["%s %s HTTP/1.1" % (method, target), "Host: %s" % host_text(address)]
    for name, value in headers.items():
        if name.lower() in ("host", "content-length", "accept-encoding"):
            continue
        if "\n" in name + value or "\r" in name + value:
            raise WireError("a header with a line break: %r" % name, transient=False)
        lines.append("%s: %s" % (name, value))
    if body is not None:
        lines.append(
            "Content-Length: %d" % (len(body) if isinstance(body, bytes) else size_bytes or 0)
        )
    lines.append("Accept-Encoding: identity\r\n\r\n")
    return "\r\n".join(lines).encode("latin-1")


def _length(text: str, base: int = 10) -> int:
    try:
        value = int(text, base)
    except ValueError:
        value = -1
    if value < 0:
        raise WireError("the answer says that it has %.40r bytes" % text, transient=False)
    return value


def _secured(plain: socket.socket, host: str) -> socket.socket:
    import ssl

    try:
        return ssl.create_default_context().wrap_socket(plain, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise WireError(
            "the certificate of %s is not trusted here: %s" % (host, error), transient=False
        ) from error
    except OSError as error:
        raise WireError("no secure connection to %s: %s" % (host, error)) from error
