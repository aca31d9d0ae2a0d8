"""Every compute with every storage that is installed: hello runs, or is refused with the cure.

Adapters join by being registered. One that this file does not know how to set up fails, by name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deepforge import plugins
from deepforge.plugins import Port
from deepforge.testing.sciserver import SciServer, running
from interop.webgme.ours import server_running
from journeys.parts import Server, nothing_left, serving, working
from seaweed import Seaweed
from shell import EXAMPLES, Result, Shell, WarmShell

ORIGINAL = "webgme-engine"
"""The original server, where it is installed: another service behind the adapter `webgme`."""


def installed(port: Port) -> list[str]:
    return [one.id for one in plugins.adapters(port)]


@dataclass
class Lab:
    """A running server with a worker. Services for the adapters start when they are asked for."""

    server: Server
    folder: Path
    request: pytest.FixtureRequest
    stack: ExitStack
    added: set[str] = field(default_factory=set)
    site: SciServer | None = None

    def add(self, port: Port, id: str) -> str:
        """Connect a real part of this kind, once, under its own name; return the name."""
        name = f"{port}-{id}"
        if name not in self.added:
            makers = STORAGES if port == "storage" else COMPUTES
            if id not in makers:
                pytest.fail(f"say in {Path(__file__).name} how {port} adapter {id!r} is set up")
            adapter, options, secret = makers[id](self)
            self.server.client(port, "add", adapter, name, *options, input=secret.encode())
            self.added.add(name)
        return name

    def run(self, storage: str, compute: str, *, code: int = 0) -> Result:
        chosen = ("--storage", storage, "--compute", compute, "--json")
        return self.server.client("run", EXAMPLES / "hello", *chosen, code=code)

    def executions(self) -> list[str]:
        listed = self.server.client("executions", "list", "--limit", "1000", "--json").json
        return [one["id"] for one in listed]


Setup = tuple[str, Sequence[str | Path], str]
"""The adapter, its options, and the secret that one of them reads."""


def _local(lab: Lab) -> Setup:
    return "local", ("--folder", lab.folder / "data"), ""


def _s3(lab: Lab) -> Setup:
    seaweed: Seaweed = lab.request.getfixturevalue("seaweed")
    values = seaweed.settings(seaweed.new_bucket())
    options = (
        "--endpoint-url", values["endpoint_url"], "--bucket", values["bucket"],
        "--access-key-id", values["access_key_id"], "--secret-access-key", "-",
    )  # fmt: skip
    return "s3", options, values["secret_access_key"]


def _webgme(lab: Lab) -> Setup:
    server = lab.stack.enter_context(server_running(lab.folder / "blobs"))
    return "webgme", ("--url", server.url), ""


def _original(lab: Lab) -> Setup:
    return "webgme", ("--url", lab.request.getfixturevalue("engine").url), ""


def _sciserver(lab: Lab) -> Setup:
    if lab.site is None:
        lab.site = lab.stack.enter_context(running(lab.folder / "sciserver"))
        lab.site.users.add_user("alice", "wonderland")
    account = ("--site", lab.site.url, "--username", "alice", "--password", "-")
    return "sciserver", account, "wonderland"


STORAGES: dict[str, Callable[[Lab], Setup]] = {
    "local": _local,
    "memory": lambda _: ("memory", (), ""),
    "s3": _s3,
    "sciserver": _sciserver,
    "webgme": _webgme,
    ORIGINAL: _original,
}
COMPUTES: dict[str, Callable[[Lab], Setup]] = {
    "memory": lambda _: ("memory", (), ""),
    "sciserver": _sciserver,
    "server": lambda _: ("server", ("--python", sys.executable), ""),
    "worker": lambda _: ("worker", (), ""),
}


NO_WAY = {
    *((storage, "memory") for storage in ("memory", "sciserver", "webgme", ORIGINAL)),
    *((storage, "sciserver") for storage in ("local", "memory", "webgme", ORIGINAL)),
}
"""Storages whose data our server must pass on, with a compute whose jobs call no server but a public
one."""


@pytest.fixture(scope="module")
def lab(
    request: pytest.FixtureRequest,
    warm_shell: WarmShell,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("pairs")
    (folder / "here").mkdir()
    shell = Shell(folder / "home", folder / "here", warm_shell)
    with ExitStack() as stack:
        server = stack.enter_context(serving(shell))
        stack.enter_context(working(shell, server.url))
        yield Lab(server, folder, request, stack)
    nothing_left(shell.home)


@pytest.mark.parametrize("compute", installed("compute"))
@pytest.mark.parametrize("storage", [*installed("storage"), ORIGINAL])
def test_every_pair_runs_hello_or_is_refused(lab: Lab, storage: str, compute: str) -> None:
    stored, computed = lab.add("storage", storage), lab.add("compute", compute)
    if (storage, compute) in NO_WAY:
        before = lab.executions()

        told = lab.run(stored, computed, code=2).err

        assert repr(stored) in told
        assert repr(computed) in told
        assert "hint: choose another storage, or start the server with --public-url" in told
        assert before == lab.executions(), "it is refused before anything begins"
        return

    ran = lab.run(stored, computed).json

    assert "succeeded" == ran["status"]
    assert {stored} == {one["storage"] for one in ran["artifacts"]}
