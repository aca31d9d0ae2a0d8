"""Calling our server on behalf of one attempt: the job channel of `protocol`."""

from __future__ import annotations

import json
import os
import socket
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from deepforge.runner.addresses import WireError
from deepforge.runner.failures import TRANSIENT_STATUS, AttemptOver, failed
from deepforge.runner.protocol import (
    PROTOCOL,
    Channel,
    Grant,
    Job,
    ProtocolError,
    read_grant,
    read_job,
)
from deepforge.runner.watch import PATIENCE_S, Patience, pause
from deepforge.runner.wire import Client

LONGEST_ANSWER = 64 * 1024 * 1024


class NotReached(Exception):
    """The server did not answer, for as long as it was worth waiting."""


class Whereabouts:
    """Where the server listens: in `channel.url`, or where its address file says now.

    Grants that lead to our own server move with it, all others stay as they are.
    """

    def __init__(self, channel: Optional[Channel]) -> None:
        self._file = channel.address_file if channel else None
        self._first = channel.url.partition("/api/")[0] if channel else ""

    def locate(self, url: str) -> str:
        """Return the URL to use now."""
        if self._file is None or not url.startswith(self._first + "/api/"):
            return url
        try:
            with open(self._file, encoding="utf-8") as file:
                current = file.read(2048).strip().rstrip("/")
        except (OSError, ValueError):
            return url  # it is written again when the server is back
        if not current.startswith(("http://", "https://")):
            return url
        return current + url[len(self._first) :]


class Line:
    """One thread's way of calling. Raises `AttemptOver`, `NotReached`, `JobFailed`.

    `patience_s` is for a server that is silent; one that answers with trouble is not asked for longer
    than usual.
    """

    def __init__(self, channel: Channel, client: Client) -> None:
        self._channel = channel
        self._client = client

    def start(self, patience_s: float = PATIENCE_S) -> Optional[Job]:
        """Claim the attempt. None: another runner has it, or it is over; nothing must run."""
        body = {"runner": runner_id(), "protocol": PROTOCOL}
        try:
            status, data = self.call("/start", body, patience_s, (404, 409))
        except AttemptOver:
            return None
        return read_job(data) if status == 200 else None

    def heartbeat(self) -> bool:
        """Say that we live; return whether to cancel. One try."""
        return _says_cancel(self.call("/heartbeat", {}, 0)[1])

    def log(self, start: int, data: bytes) -> bool:
        """Send the next bytes of the log; return whether to cancel. One try."""
        return _says_cancel(self.call("/log?start=%d" % start, data, 0)[1])

    def finished(self) -> None:
        self.call("/finished", {}, 0)

    def grants(self, names: Sequence[str], patience_s: float = PATIENCE_S) -> Dict[str, Grant]:
        """Ask for fresh grants of these objects."""
        answer = self._ask("/grants", {"names": list(names)}, patience_s)
        found = answer.get("grants")
        if not isinstance(found, dict):
            raise failed("runner", "The server's answer to a request for grants has none.")
        return {name: _grant(value) for name, value in found.items()}

    def parts(
        self, output: str, size_bytes: int, patience_s: float = PATIENCE_S
    ) -> Union[Grant, Tuple[str, int, List[Grant]]]:
        """Ask how to write a large output: one grant, or (upload, bytes of a part, grants)."""
        answer = self._ask("/%s/parts" % _path(output), {"size_bytes": size_bytes}, patience_s)
        if answer.get("grant") is not None:
            return _grant(answer["grant"])
        upload, part_bytes = str(answer.get("upload")), answer.get("part_bytes")
        grants = [_grant(value) for value in answer.get("parts") or ()]
        if not isinstance(part_bytes, int) or not 0 <= size_bytes <= part_bytes * len(grants):
            raise failed("runner", "The parts granted for %s do not hold it." % output)
        return upload, part_bytes, grants

    def complete(
        self, output: str, upload: str, etags: Sequence[str], patience_s: float = PATIENCE_S
    ) -> None:
        body = {"upload": upload, "etags": list(etags)}
        self._ask("/%s/complete" % _path(output), body, patience_s)

    def abort(self, output: str, upload: str) -> None:
        self.call("/%s/abort" % _path(output), {"upload": upload}, 0)

    def call(
        self,
        path: str,
        body: Union[Mapping[str, Any], bytes],
        patience_s: float,
        expected: Tuple[int, ...] = (),
    ) -> Tuple[int, bytes]:
        """POST until there is an answer that is not the server's momentary trouble."""
        headers = {"Authorization": "Bearer " + self._channel.token}
        if not isinstance(body, bytes):
            body = json.dumps(body).encode("utf-8")
            headers["Content-Type"] = "application/json"
        else:
            headers["Content-Type"] = "application/octet-stream"
        patience = Patience(patience_s)
        while True:
            try:
                answer = self._client.send("POST", self._channel.url + path, headers, body)
                status, data = answer.status, answer.read(LONGEST_ANSWER)
                trouble = "it answered %d: %s" % (status, data[:500].decode("utf-8", "replace"))
                if 200 <= status < 300 or status in expected:
                    return status, data
            except WireError as error:
                status, trouble = 0, str(error)
                if not error.transient:
                    raise failed("transfer", "The server cannot be called: %s." % error) from error
            if status in (401, 410):
                raise AttemptOver(trouble)
            if status and status not in TRANSIENT_STATUS:
                raise failed("runner", "The server refused POST %s: %s" % (path, trouble))
            wait_s = patience.next_pause(answered=status != 0)
            if wait_s is None:
                raise NotReached("The server was not reached at POST %s: %s" % (path, trouble))
            pause(wait_s, self._client.check)

    def _ask(self, path: str, body: Mapping[str, Any], patience_s: float) -> Dict[str, Any]:
        try:
            data = self.call(path, body, patience_s)[1]
        except NotReached as error:
            raise failed("transfer", str(error), transient=True) from error
        return _object(data)


_RUNNER_ID = ""


def runner_id() -> str:
    """Tell this process from every other runner; the same for as long as it lives."""
    global _RUNNER_ID
    mark = "-%d-" % os.getpid()
    if mark not in _RUNNER_ID:  # a fork is another runner
        _RUNNER_ID = socket.gethostname() + mark + os.urandom(6).hex()
    return _RUNNER_ID


def _path(output: str) -> str:
    from urllib.parse import quote

    return quote(output, safe="/")


def _grant(value: Any) -> Grant:
    try:
        return read_grant(value)
    except ProtocolError as error:
        raise failed("runner", "The server granted something unreadable: %s" % error) from error


def _says_cancel(data: bytes) -> bool:
    return _object(data).get("cancel") is True


def _object(data: bytes) -> Dict[str, Any]:
    try:
        value = json.loads(data.decode("utf-8"))
    except ValueError as error:
        raise failed("runner", "The server's answer is not JSON: %.200r" % data) from error
    if not isinstance(value, dict):
        raise failed("runner", "The server's answer is not an object: %.200r" % data)
    return value
