"""The adapter's end of the wire: find the supervisor, start it, replace an old one, ask."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from deepforge.compute.environment import clean_environment
from deepforge.compute.server import wire
from deepforge.compute.server.folder import Folder
from deepforge.errors import OutcomeUnknown, Unavailable

_ANSWER_WITHIN_S = 30.0
_START_WITHIN_S = 30.0
_PAUSES_S = (0.0, 0.01, 0.05, 0.25)  # a killed one's socket may outlive it for a moment
_MOST_TOGETHER = 16  # messages: those behind should not wait long for the first answer
_LONGEST_SOCKET_PATH = 100  # bytes; the kernel's limit is 107, on some systems 103
_PACKAGE = Path(__file__).parents[2]

_BOOT = (
    "import sys; root, options = sys.argv[1:]; root in sys.path or sys.path.append(root); "
    "from deepforge.compute.server.supervisor import main; main(options)"
)


@dataclass(eq=False)
class _Asked:
    """A message that waits for its answer, which is one of the last two."""

    data: bytes
    current: bool
    answer: dict[str, Any] | None = None
    error: Exception | None = None


class _Broken(Exception):
    """Nobody answers on this connection; the cause says how we know."""


class Link:
    """One connection to the supervisor of a folder, made when it is first needed.

    Every message may be sent twice without harm, so a lost connection is made anew.
    """

    def __init__(self, folder: Folder, *, slots: int, idle_s: float) -> None:
        self._folder = folder
        self._slots = slots
        self._idle_s = idle_s
        self._turn = asyncio.Lock()
        self._asked: deque[_Asked] = deque()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._is_current = False
        self._is_understood = False

    async def ask(self, message: dict[str, Any], *, current: bool = False) -> dict[str, Any]:
        """Send a message and return the answer.

        With `current`, a supervisor that another version of this code started is replaced first,
        and always one that speaks otherwise; its jobs go on. Raises `Unavailable` when none can
        be started, `OutcomeUnknown` when the connection breaks again and again.
        """
        asked = _Asked(wire.pack(message), current)
        self._asked.append(asked)
        try:
            async with self._turn:
                while asked.answer is None and asked.error is None:
                    await self._ask_together(list(islice(self._asked, _MOST_TOGETHER)))
        finally:
            self._forget(asked)
        if asked.answer is None:
            assert asked.error is not None
            raise asked.error
        return asked.answer

    async def _ask_together(self, asked: Sequence[_Asked]) -> None:
        """Have these answered, all or none: what waits while others talk goes out as one.

        When this is cancelled they go on waiting, for whoever has the next turn.
        """
        messages, current = [one.data for one in asked], any(one.current for one in asked)
        try:
            for one, answer in zip(asked, await self._ask(messages, current), strict=True):
                one.answer = answer
        except Exception as error:
            for one in asked:
                one.error = error
        for one in asked:
            self._forget(one)

    def _forget(self, asked: _Asked) -> None:
        if asked in self._asked:  # whoever asked may have given up meanwhile
            self._asked.remove(asked)

    async def _ask(self, messages: Sequence[bytes], current: bool) -> list[dict[str, Any]]:
        deadline = time.monotonic() + _ANSWER_WITHIN_S
        for pause_s in _PAUSES_S:
            with suppress(_Broken):  # it was killed, or has just left: the next one knows all
                return await self._ask_once(messages, current)
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(pause_s)
        try:
            return await self._ask_once(messages, current)
        except _Broken as broken:
            raise OutcomeUnknown(
                f"the supervisor of {self._folder.root} does not answer: {broken.__cause__!r}",
                hint=f"what it said last is in {self._folder.log}",
            ) from broken.__cause__

    async def close(self) -> None:
        """Hang up. The supervisor and its jobs go on."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
            with suppress(OSError):
                await streams[1].wait_closed()

    async def _ask_once(self, messages: Sequence[bytes], current: bool) -> list[dict[str, Any]]:
        if self._streams is None:
            await self._connect()
        if not self._is_current and (current or not self._is_understood):
            await self._exchange([wire.pack({"op": "leave"})])
            await self.close()
            await self._start()
            await self._connect()
            # whatever it says now: starting again would give the same
            self._is_current = self._is_understood = True
        return await self._exchange(messages)

    async def _connect(self) -> None:
        try:
            await self._open()
        except _Broken:
            await self._start()
            await self._open()
        (hello,) = await self._exchange([wire.pack({"op": "hello"})])
        self._is_current = hello["version"] == code_version()
        self._is_understood = hello["v"] == wire.VERSION

    async def _open(self) -> None:
        try:
            with _short(self._folder.socket) as path:
                self._streams = await asyncio.open_unix_connection(path)
        except OSError as error:
            raise _Broken from error

    async def _exchange(self, messages: Sequence[bytes]) -> list[dict[str, Any]]:
        assert self._streams is not None
        reader, writer = self._streams
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                writer.write(b"".join(messages))
                return [await _read(reader) for _ in messages]
        except BaseException as error:  # also when cancelled: the next one would read this answer
            self._streams = None
            writer.close()
            if isinstance(error, (OSError, EOFError)):
                raise _Broken from error
            raise

    async def _start(self) -> None:
        """Start a supervisor. On return one listens, this one or another."""
        options = {
            "folder": str(self._folder.root),
            "slots": self._slots,
            "idle_s": self._idle_s,
            "version": code_version(),
        }
        command = [sys.executable, "-P", "-c", _BOOT, str(_PACKAGE.parent), json.dumps(options)]
        try:
            done = await asyncio.to_thread(_run_launcher, command, self._folder)
        except (OSError, subprocess.SubprocessError) as error:
            raise Unavailable(
                f"the supervisor of {self._folder.root} could not be started: {error}"
            ) from error
        if done:
            said = await asyncio.to_thread(_last_words, self._folder.log)
            raise Unavailable(
                f"the supervisor of {self._folder.root} could not be started: {said}",
                hint=f"its log is {self._folder.log}",
            )


async def _read(reader: asyncio.StreamReader) -> dict[str, Any]:
    head = await reader.readexactly(wire.HEAD_BYTES)
    return wire.read(await reader.readexactly(wire.body_bytes(head)))


@cache
def code_version() -> str:
    """Return a digest of everything a supervisor loads: jobs must run with the code we run."""
    digest = hashlib.sha256(sys.executable.encode())
    for folder in ("compute/server", "runner"):
        for path in sorted((_PACKAGE / folder).glob("*.py")):
            digest.update(path.read_bytes())
    serialization = _PACKAGE / "serialization.py"
    if serialization.exists():
        digest.update(serialization.read_bytes())
    return digest.hexdigest()


def _run_launcher(command: list[str], folder: Folder) -> int:
    """Run the process that becomes the supervisor; it ends when adapters can connect."""
    folder.make()
    with folder.log.open("ab") as log:
        if log.tell() > 1024 * 1024:
            log.truncate(0)
        done = subprocess.run(
            command,
            cwd=folder.root,
            env=clean_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            timeout=_START_WITHIN_S,
            check=False,
        )
    return done.returncode


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Give a path to the same socket that is short enough for the kernel."""
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="df-", dir="/tmp") as short:
        link = Path(short) / "f"
        link.symlink_to(path.parent)
        yield str(link / path.name)
