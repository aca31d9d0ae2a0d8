"""Every command of the guide works as it is written there, one after the other, on a fresh account."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deepforge.testing.sciserver import SciServer, running
from journeys.parts import Server, nothing_left, serving
from journeys.sciserver_lab import JOBS_AT_ONCE, PASSWORD, USER, QuickShell
from shell import EXAMPLES, Shell, write_project

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "sciserver.md"
PLATES = {
    "operations/count.py": """\
class Count:
    def execute(self, data):
        size = len(data)
        return size
""",
    "pipelines/plates.py": """\
from operations.count import Count


def plates(data=None):
    size = Count().execute(data)
    return size
""",
}
BROWSER = """
import sys, urllib.parse, urllib.request
form = urllib.parse.urlencode({"username": "alice", "password": "wonderland"}).encode()
urllib.request.urlopen(sys.argv[1], data=form, timeout=20).close()
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SciServer]:
    with running(tmp_path / "site", tick_s=0.02) as site:
        site.users.add_user(USER, PASSWORD)
        for domain in site.state.domains:
            domain.jobs_per_user = JOBS_AT_ONCE
        folder = site.state.data_volumes["sdss"].folder / "dr16"
        folder.mkdir()
        (folder / "plates.csv").write_text("plate,ra\n1,2\n")
        yield site


@pytest.fixture
def server(shell: Shell, site: SciServer, tmp_path: Path) -> Iterator[Server]:
    quick = QuickShell(shell.home, shell.folder, shell.warm)
    script = tmp_path / "browser.py"
    script.write_text(BROWSER)
    browser = {"BROWSER": f"{sys.executable} {script} %s &"}
    write_project(shell.folder, PLATES, name="plates")
    (shell.folder / ".gitignore").write_text("/examples\n")
    (shell.folder / "examples").symlink_to(EXAMPLES)
    with serving(quick) as running_server:
        client = running_server.client
        running_server.client = replace(client, environment={**client.environment, **browser})
        yield running_server
    nothing_left(shell.home)


def commands() -> list[list[str]]:
    blocks = re.findall(r"```console\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line[2:]) for line in lines if line.startswith("$ deepforge ")]


def test_every_command_of_the_guide_works(server: Server, site: SciServer) -> None:
    """But for the site, which is the public one there, and the Python that this machine has."""
    told = {}

    for _, *words in commands():
        here = ["--site", site.url] if words[1] == "add" else []
        here += ["--python", sys.executable] if words[:2] == ["compute", "add"] else []
        asks = "--password" in words or words[1] == "secret"
        input = b"wonderland\n" if asks else b""
        done = server.client(*words, *here, input=input, timeout_s=60)
        told[" ".join(words[:2])] = done.out + done.err

    assert len(told) > 8, "it found the commands"
    assert "plates succeeded" in told["run ."]
    assert "sky" in told["sciserver status"]
    assert "linked as alice" in told["sciserver link"]
    assert "password of sky is replaced" in told["storage secret"]
