"""`make soak`: a worker that has no network for longer than an hour, on a real clock.

No test that lasts seconds can show that nothing on the way ends by itself in an hour: questions that are
held, connections that were kept, grants, leases, patience. The server goes on all the time; only the
network between it and the worker is away, first without a word, then with refused connections.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal

from journeys.parts import nothing_left, states, steps_project, view_of, wait_until
from seaweed import free_ports
from shell import Shell, WarmShell

LINE_EVERY_S = 5.0

# Of three operations on two slots, 0 ends within the outage, 1 goes on beyond it, 2 waits in the queue.
BODY = f"""
with (folder / f"ran-{{n}}").open("a") as file:
    file.write("x")
count = 0
while not (folder / f"gate-{{n}}").exists():
    print("line", n, count, flush=True)
    count += 1
    time.sleep({LINE_EVERY_S} if (folder / "is-cut").exists() else 0.1)
print("last", n, count, flush=True)
n = f"{{n}} after {{count}} lines"
"""


class Network:
    """Joins a port of 127.0.0.1 with another one, as long as its `state` is `up`.

    `silent` swallows what is sent, answers nothing and says nothing; `refused` ends what there is and
    lets nobody in. What was swallowed is lost.
    """

    def __init__(self, port: int, target_port: int) -> None:
        self.state: Literal["up", "silent", "refused"] = "up"
        self.connections = 0
        self._port = port
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def become(self, state: Literal["up", "silent", "refused"]) -> None:
        self.state = state
        if state != "refused" and self._server is None:
            self._server = await asyncio.start_server(self._join, "127.0.0.1", self._port)
        if state == "refused" and self._server is not None:
            self._server.close()
            self._server = None
            for writer in list(self._open):
                writer.transport.abort()

    async def _join(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        self.connections += 1
        server, to_server = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._open |= {to_client, to_server}
        try:
            await asyncio.gather(self._pass(client, to_server), self._pass(server, to_client))
        except asyncio.CancelledError:
            pass  # the soak is over
        finally:
            self._open -= {to_client, to_server}
            for writer in (to_client, to_server):
                writer.close()

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                if self.state == "up":
                    target.write(data)
                    await target.drain()
            if self.state == "up":
                target.write_eof()


async def soak(shell: Shell, minutes: float) -> None:
    """Fails unless a pipeline goes through an outage of so many minutes as if there had been none."""
    port, public_port = free_ports(2)
    folder = shell.folder
    url = f"http://127.0.0.1:{public_port}"  # all that worker and jobs know
    network = Network(public_port, port)
    with ExitStack() as stack:
        password = b"correct horse battery"
        await run(shell, "users", "add", "ada", input=password)
        serve = ("start", "--port", str(port), "--public-url", url)
        stack.enter_context(running(shell, "server", *serve))
        await asyncio.to_thread(wait_until, lambda: is_open(port))
        near = Shell(
            folder / "no-home",
            folder,
            shell.warm,
            {"DEEPFORGE_URL": f"http://127.0.0.1:{port}"},
        )
        token = (await run(near, "login", "ada", input=password)).strip()
        client = Shell(
            near.home, folder, shell.warm, {**near.environment, "DEEPFORGE_TOKEN": token}
        )
        await run(client, "compute", "add", "worker", "box")
        workers_token = (await run(client, "tokens", "create", "w", "--scope", "worker")).strip()
        (folder / "worker-token").write_text(workers_token)
        (folder / "worker-token").chmod(0o600)
        await network.become("up")
        what = ("--jobs", "2", "--cpus", "2", "--folder", str(folder / "worker-folder"))
        works = ("worker", "--url", url, "--token-file", str(folder / "worker-token"), *what)
        stack.enter_context(running(shell, "worker", *works))

        project = steps_project(folder, 3, BODY)
        execution = (
            await run(client, "run", str(project), "--compute", "box", "--detach")
        ).split()[-1]
        await asyncio.to_thread(
            wait_until, lambda: all((folder / f"ran-{n}").exists() for n in (0, 1))
        )
        say(f"two jobs of {execution} run, one is queued: {await shown(client, execution)}")

        outage_s = minutes * 60
        (folder / "is-cut").touch()
        await network.become("silent")
        say("the network is silent")
        await asyncio.sleep(outage_s / 4)
        (folder / "gate-0").touch()
        say("the first job was let end")
        await asyncio.sleep(outage_s / 4)
        await network.become("refused")
        say(f"the network refuses; {await shown(client, execution)}")
        await asyncio.sleep(outage_s / 2)
        seen = await shown(client, execution)
        before = network.connections
        check(not (folder / "ran-2").exists(), "the queued job waits")
        check(not seen["v0"] and not seen["v1"], "the server keeps both running jobs")
        await network.become("up")
        (folder / "is-cut").unlink()
        say("the network is there again")

        back_at = time.monotonic()
        await asyncio.to_thread(wait_until, (folder / "ran-2").exists, within_s=120)
        say(f"the queued job began {time.monotonic() - back_at:.1f} s later")
        for n in (1, 2):
            (folder / f"gate-{n}").touch()
        await asyncio.to_thread(
            wait_until,
            lambda: view_of(client, execution)["status"] not in ("running", "queued"),
            within_s=120,
        )
        view = await asyncio.to_thread(view_of, client, execution)
        check(network.connections > before, "the worker came back by the network")
        check("succeeded" == view["status"], f"the execution {view['status']}")
        for n in range(3):
            (job,) = [one for one in view["jobs"] if one["name"] == f"v{n}"]
            check(1 == job["attempts"], f"v{n} took {job['attempts']} attempts")
            check("x" == (folder / f"ran-{n}").read_text(), f"v{n} ran once")
            log = await run(client, "executions", "logs", execution, f"v{n}")
            lines = [one for one in log.splitlines() if one.startswith(("line ", "last "))]
            count = len(lines) - 1
            expected = [f"line {n} {number}" for number in range(count)]
            check([*expected, f"last {n} {count}"] == lines, f"the log of v{n}: {count} lines")
            value = await run(client, "artifacts", "get", f"v{n}", "-")
            check(f"{n} after {count} lines" in value, f"the result of v{n} counts")
    nothing_left(shell.home)


async def run(shell: Shell, *arguments: str, input: bytes = b"") -> str:
    result = await asyncio.to_thread(shell, *arguments, input=input)
    return result.data.decode(errors="replace")


async def shown(client: Shell, execution: str) -> dict[str, bool]:
    """Of each job, by its name, whether it is over; the states are said."""
    view = await asyncio.to_thread(view_of, client, execution)
    say(f"  {states(view)}")
    return {name: one not in ("queued", "running") for name, one in states(view).items()}


@contextmanager
def running(shell: Shell, name: str, *arguments: str) -> Iterator[None]:
    with (shell.folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            shell.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=shell.folder,
            env=shell.environ(),
        )
    with process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


def is_open(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def check(is_so: bool, what: str) -> None:
    if not is_so:
        raise AssertionError(f"not so: {what}")
    say(f"ok: {what}")


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=61, help="of outage (default 61)")
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory(prefix="deepforge-soak-") as root:
        folder = Path(root) / "here"
        folder.mkdir()
        warm = WarmShell(folder)
        try:
            say(f"an outage of {minutes:g} minutes; files in {folder}")
            asyncio.run(soak(Shell(Path(root) / "home", folder, warm), minutes))
        except BaseException:
            for log in sorted(folder.glob("*.log")):
                sys.stderr.write(f"--- {log.name}\n{log.read_text()[-20_000:]}\n")
            raise
        finally:
            warm.close()
    say("the soak has passed")


if __name__ == "__main__":
    main()
