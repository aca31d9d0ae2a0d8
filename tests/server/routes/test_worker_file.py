"""The worker program and how to install it."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from deepforge.server.routes.worker_file import install_line


async def test_the_program_can_be_had_and_runs(wire: httpx.AsyncClient, tmp_path: Path) -> None:
    reply = await wire.get(wire.base_url.join("/worker.pyz"))
    path = tmp_path / "worker.pyz"
    path.write_bytes(reply.content)
    command = [sys.executable, "-I", "-S", str(path), "--help"]
    told = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)

    assert 200 == reply.status_code
    assert 'attachment; filename="worker.pyz"' == reply.headers["content-disposition"]
    assert 0 == told.returncode
    assert "--service" in told.stdout


async def test_it_is_sent_once(wire: httpx.AsyncClient) -> None:
    url = wire.base_url.join("/worker.pyz")
    tag = (await wire.get(url)).headers["etag"]
    again = await wire.get(url, headers={"If-None-Match": tag})

    assert (304, b"") == (again.status_code, again.content)


async def test_the_line_names_the_server_as_it_was_called(wire: httpx.AsyncClient) -> None:
    reply = await wire.get(wire.base_url.join("/worker"))

    url = str(wire.base_url.join("/")).rstrip("/")
    assert install_line(url) in reply.text.splitlines()
    assert reply.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("url", ["https://forge.example.org", "http://a/$(touch x)'; touch y"])
def test_the_line_is_words_for_a_shell_and_holds_no_token(url: str) -> None:
    words = shlex.split(install_line(url))

    assert ["curl", "-fsSLO", f"{url}/worker.pyz", "&&", "python3", "worker.pyz"] == words[:6]
    assert ["--url", url, "--token", "-"] == words[6:]
