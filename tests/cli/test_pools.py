"""`deepforge pools`: an administrator shares workers, and a member runs a pipeline on them."""

from __future__ import annotations

import subprocess

from cli.reachable import PASSWORD, serving, with_token
from journeys.parts import nothing_left, wait_until
from seaweed import free_ports
from shell import EXAMPLES, Shell


def test_a_member_runs_a_pipeline_on_the_workers_of_a_pool(shell: Shell) -> None:
    """The whole way, from a worker of its own process to somebody who is shut out again."""
    for name in ("ada", "bob", "joe"):
        shell("users", "add", name, input=PASSWORD)
    (port,) = free_ports(1)
    where = ("--port", str(port), "--public-url", f"http://127.0.0.1:{port}")
    with serving(shell, *where) as anybody:
        ada, bob, joe = [
            with_token(anybody, anybody("login", name, input=PASSWORD).out.strip())
            for name in ("ada", "bob", "joe")
        ]
        assert "deepforge tokens create WORKER --pool lab" in (
            ada("pools", "add", "lab", "--member", "bob").err
        )
        token = ada("tokens", "create", "box", "--pool", "lab").out.strip()
        assert "worker" in ada("tokens", "list", "--pool", "lab").out
        for user in (bob, joe):
            user("compute", "add", "worker", "shared", "--pool", "lab")
        refused = joe("run", EXAMPLES / "hello", "--compute", "shared", code=2).err
        assert "joe is not a member of a pool 'lab'" in refused
        assert "deepforge pools members lab --add joe" in refused

        started = bob("run", EXAMPLES / "hello", "--compute", "shared", "--detach", "--json").json
        wait_until(lambda: bob("workers", "queue", "--pool", "lab", "--json").json)
        assert "no worker is connected" in bob("workers", "queue", "--pool", "lab").out
        assert "1 jobs wait" in ada("pools", "remove", "lab", code=5).err
        worker = with_token(anybody, token)
        url = anybody.environment["DEEPFORGE_URL"]
        command = worker.command("worker", "--url", url, "--folder", shell.folder / "box")
        with (shell.folder / "worker.log").open("wb") as log:
            process = subprocess.Popen(command, env=worker.environ(), stderr=log)
        with process:
            try:
                bob("executions", "logs", "-f", started["execution"])
                shown = bob("executions", "show", started["execution"], "--json").json
                (listed,) = bob("workers", "list", "--json").json
            finally:
                process.terminate()
                process.wait(30)

        assert "succeeded" == shown["status"]
        assert "lab" == listed["pool"]
        assert "lab" in bob("workers", "show", listed["id"], "--pool", "lab").out
        assert [] == joe("workers", "list", "--json").json
        assert "its members" in bob("pools", "list").out
        assert "its members" in bob("pools", "show", "lab").out
        assert "administrators" in bob("pools", "members", "lab", "--everyone", code=3).err
        assert "--add USER" in ada("pools", "members", "lab", code=2).err
        changed = ada("pools", "members", "lab", "--remove", "bob", "--add", "joe", "--json").json
        assert ["joe"] == changed["members"]
        assert "joe" in ada("pools", "members", "lab", "--no-everyone").out
        bob("run", EXAMPLES / "hello", "--compute", "shared", code=2)

        assert "revoked" in ada("pools", "remove", "lab").err
        assert [] == ada("pools", "list", "--json").json
    nothing_left(shell.home)
