"""How long until a command says something, and until a server answers?

Every process is a fresh one with its libraries byte-compiled, as they are after an installation.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.measure import Measurement, clean_environment, in_turn, median, ratio, run, table
from benchmarks.objects import PEERS_PYTHON
from deepforge.server.home import Home

BIN = Path(sys.executable).parent
PYTHON = "python -c pass"
RIVAL = "metaflow help"
READY_WITHIN_S = 30.0


def main(rounds: int, *, small: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        compare_commands(Path(name), rounds if small else 4 * rounds)
        start_server(Path(name), rounds)


def compare_commands(folder: Path, rounds: int) -> None:
    commands: dict[str, Sequence[str | Path]] = {
        PYTHON: [sys.executable, "-c", "pass"],
        "import deepforge": [sys.executable, "-c", "import deepforge"],
        "deepforge --help": [BIN / "deepforge", "--help"],
        "deepforge run --help": [BIN / "deepforge", "run", "--help"],
        "deepforge --version": [BIN / "deepforge", "--version"],
    }
    peers = PEERS_PYTHON.parent
    if PEERS_PYTHON.exists():
        commands[RIVAL] = [peers / "metaflow", "help"]
        commands["luigi --help"] = [peers / "luigi", "--module", "luigi", "--help"]
    else:
        print("Without metaflow and luigi: their environment is not made: run `make bench`.")
    environment = clean_environment(HOME=str(folder))
    measured = in_turn(
        {label: partial(clock, command, environment) for label, command in commands.items()},
        rounds=rounds,
    )
    rival = measured.get(RIVAL)
    table(
        "Commands",
        ["", "ms", "x python", "x metaflow"],
        [
            [
                label,
                f"{median([one['seconds'] for one in found]) * 1000:.0f}",
                f"{ratio(found, measured[PYTHON], 'seconds'):.1f}",
                f"{ratio(found, rival, 'seconds'):.2f}" if rival else "",
            ]
            for label, found in measured.items()
        ],
    )


def clock(command: Sequence[str | Path], environment: dict[str, str]) -> Measurement:
    began = time.perf_counter()
    run(command, environment)
    return {"seconds": time.perf_counter() - began}


def start_server(folder: Path, rounds: int) -> None:
    homes = {
        "a new home": lambda: Path(tempfile.mkdtemp(dir=folder)),
        "a home that was used before": lambda: folder / "home",
    }
    measured = in_turn(
        {label: lambda home=home: until_healthy(home()) for label, home in homes.items()},  # type: ignore[misc]
        rounds=rounds,
    )
    table(
        "`deepforge start` until /api/v1/health answers",
        ["", "s"],
        [
            [label, f"{median([one['seconds'] for one in found]):.2f}"]
            for label, found in measured.items()
        ],
    )


def until_healthy(home: Path) -> Measurement:
    """Start a server, ask for its health until it answers, and end it."""
    began = time.perf_counter()
    server = subprocess.Popen(
        [BIN / "deepforge", "start", "--port", "0"],
        env=clean_environment(DEEPFORGE_HOME=str(home)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not is_healthy(home):
            if server.poll() is not None or time.perf_counter() - began > READY_WITHIN_S:
                raise RuntimeError(f"the server was not ready within {READY_WITHIN_S:.0f} s")
            time.sleep(0.005)
        return {"seconds": time.perf_counter() - began}
    finally:
        server.terminate()
        server.wait()


def is_healthy(home: Path) -> bool:
    url = Home(home).read_address()
    if url is None:
        return False
    connection = http.client.HTTPConnection(url.partition("://")[2], timeout=10)
    try:
        connection.request("GET", "/api/v1/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
