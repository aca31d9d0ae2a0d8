"""A real MongoDB server, over the wire, for tests: the first of these that is there.

1. the one that `MONGODB_URI` names
2. `mongod` on PATH
3. `ferretdb` on PATH or in `.cache/bin` (`.ci/install-ferretdb` builds it), behind a gate that
   gives it back what MongoDB promises: see `mongo_gate`

Tests take `mongo_server` and ask it for databases of their own.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pymongo
import pytest
from pymongo.errors import PyMongoError

from deepforge.ids import new_id
from mongo_gate import gate

READY_WITHIN_S = 60.0
MISSING = (
    "NO MONGODB SERVER: nothing was tested on MongoDB. Set MONGODB_URI, or put mongod or ferretdb "
    "on PATH, or run .ci/install-ferretdb, which builds FerretDB where Go is"
)

_ROOT = Path(__file__).parent.parent


@dataclass
class MongoServer:
    """A running server."""

    name: str
    uri: str
    databases: list[str] = field(default_factory=list)

    def new_database(self) -> str:
        """Return the URI of a database that is not there yet. It is dropped at the end."""
        name = f"test_{new_id()}"
        self.databases.append(name)
        return with_database(self.uri, name)

    def drop_databases(self) -> None:
        with pymongo.MongoClient[dict[str, object]](self.uri) as client:
            for name in self.databases:
                client.drop_database(name)


@pytest.fixture(scope="session")
def mongo_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MongoServer]:
    """One server for the whole test session. Skips, by name, where there is none."""
    given = os.environ.get("MONGODB_URI")
    with contextlib.ExitStack() as stack:
        if given:
            server = MongoServer("the server of MONGODB_URI", given)
        elif server_command() is None:
            pytest.skip(MISSING)
        else:
            process = stack.enter_context(started(tmp_path_factory.mktemp("mongo")))
            server = MongoServer(process.name, process.uri)
        _say(request.config, f"MongoDB tests use {server.name}")
        yield server
        server.drop_databases()


class MongoProcess:
    """A server process of our own, on a folder that outlives it."""

    def __init__(self, folder: Path, port: int, command: list[str]) -> None:
        self.name = f"{_version(command[0])} ({command[0]})"
        self.uri = f"mongodb://127.0.0.1:{port}"
        self._folder = folder
        self.port = port
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, for the first time or again, and wait until it answers."""
        log = self._folder / "log.txt"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ},
            )
        deadline = time.monotonic() + READY_WITHIN_S
        while not _answers(f"mongodb://127.0.0.1:{self.port}"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-3000:]
                raise RuntimeError(f"{self.name} did not start:\n{tail}")

    def kill(self) -> None:
        """End it at once, as a power cut would end the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def started(folder: Path, *options: str) -> Iterator[MongoProcess]:
    """Run a server on this machine until the block ends, with its data in `folder`."""
    binary = server_command()
    if binary is None:
        pytest.skip(MISSING)
    for name in ("data", "state"):
        (folder / name).mkdir(exist_ok=True)
    port = _lasting_port()
    process = MongoProcess(folder, port, [*_command(binary, folder, port), *options])
    with contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        process.start()
        if is_ferretdb(binary):
            process.uri = f"mongodb://127.0.0.1:{stack.enter_context(gate(port))}"
            process.name += ", one command at a time"
        yield process


def server_command() -> str | None:
    """Return the path of a server that can be started here, if there is one."""
    built = str(_ROOT / ".cache" / "bin" / "ferretdb")
    return shutil.which("mongod") or shutil.which("ferretdb") or shutil.which(built)


def with_database(uri: str, database: str) -> str:
    """Put the name of a database into a URI; who we are is still checked where it was before."""
    start, options = re.fullmatch(r"([^?]*)(?:\?(.*))?", uri, re.DOTALL).groups()  # type: ignore[union-attr]
    scheme, _, rest = start.partition("://")
    place, _, old = rest.partition("/")
    chosen = [options] if options else []
    if "@" in place and "authsource=" not in (options or "").lower():
        chosen.append(f"authSource={old or 'admin'}")
    return f"{scheme}://{place}/{database}" + (f"?{'&'.join(chosen)}" if chosen else "")


def _command(binary: str, folder: Path, port: int) -> list[str]:
    if not is_ferretdb(binary):
        options = [f"--dbpath={folder / 'data'}", f"--port={port}", "--bind_ip=127.0.0.1"]
        return [binary, *options, "--nounixsocket", "--quiet"]
    return [
        binary,
        "--handler=sqlite",
        f"--sqlite-url=file:{folder / 'data'}/",
        f"--listen-addr=127.0.0.1:{port}",
        "--debug-addr=-",
        "--telemetry=disable",
        f"--state-dir={folder / 'state'}",
        "--log-level=WARN",
    ]


def _lasting_port() -> int:
    """Return a free port that stays free while a server on it is down.

    Systems give outgoing connections ports above 32767. Somebody who tries to reach a dead server
    at such a port can be given that very port, and then the server cannot come back.
    """
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def is_ferretdb(binary: str) -> bool:
    return "ferretdb" in Path(binary).name


def _version(binary: str) -> str:
    output = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=30)
    version = re.search(r"v\d+\.\d+\.\d+", output.stdout)
    kind = "FerretDB" if is_ferretdb(binary) else "MongoDB"
    return f"{kind} {version.group() if version else 'of an unknown version'}"


def _answers(uri: str) -> bool:
    try:
        with pymongo.MongoClient[dict[str, object]](uri, serverSelectionTimeoutMS=200) as client:
            client.admin.command("ping")
    except PyMongoError:
        return False
    return True


def _say(config: pytest.Config, line: str) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")
    if reporter is not None and capture is not None:
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            reporter.write_line(line)
