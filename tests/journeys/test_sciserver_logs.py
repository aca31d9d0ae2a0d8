"""What jobs inside SciServer print is seen while they run, though they cannot call our server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from journeys.parts import view_of, wait_until
from journeys.sciserver_lab import USER, Lab, lab
from shell import write_project

__all__ = ["lab"]

LINES = 20_000
"""So that the log is longer than a message, and than one piece of a download."""

TALK = """\
import os
import sys
import time


class Talk:
    def __init__(self, gate: str):
        self.gate = gate

    def execute(self):
        out = sys.stdout.buffer
        out.write(b"begun \\xff\\x00\\n10%\\r20%\\r")
        out.flush()
        while not os.path.exists(self.gate):
            time.sleep(0.02)
        out.write(b"100%\\n")
        for number in range(LINES):
            out.write(b"line %d of many that it prints\\r\\n" % number)
        out.flush()
        while not os.path.exists(self.gate + "-2"):
            time.sleep(0.02)
        print("done", end="")
        number = 1
        return number
""".replace("LINES", str(LINES))
PIPELINE = """\
from operations.talk import Talk


def talking(gate: str):
    number = Talk(gate=gate).execute()
    return number
"""
LAST_LINE = f"line {LINES - 1} of many that it prints\n"


@dataclass
class Heard:
    """What one reader of the events was told of the log of the only job."""

    text: str = ""
    kinds: list[str] = field(default_factory=list)

    def tell(self, kind: str, data: dict[str, Any]) -> None:
        self.kinds.append(kind)
        if kind == "log":
            self.text += data["text"]

    def wait_for(self, end: str) -> None:
        wait_until(lambda: self.text.endswith(end))


@dataclass
class Talking:
    """An execution whose job prints, waits, prints much, waits, and ends."""

    lab: Lab
    gate: Path
    execution: str

    def go_on(self) -> None:
        self.gate.touch()

    def end(self) -> dict[str, Any]:
        self.gate.touch()
        self.gate.with_name("gate-2").touch()
        return wait_until(lambda: (view := self.view())["status"] != "running" and view)  # type: ignore[no-any-return]

    def view(self) -> dict[str, Any]:
        return view_of(self.lab.server.client, self.execution)

    def log(self) -> bytes:
        return self.lab.server.client("executions", "logs", self.execution).data

    def requests(self) -> int:
        """How often SciServer was asked for what a job prints."""
        return sum("output.txt" in one.path for one in self.lab.site.requests)

    @contextmanager
    def heard(self) -> Iterator[Heard]:
        """Follow the events within the block, and to their end."""
        heard = Heard()
        thread = threading.Thread(target=self._listen, args=[heard.tell])
        thread.start()
        yield heard
        thread.join(timeout=60)
        assert heard.kinds[-1] == "end"

    def _listen(self, tell: Callable[[str, dict[str, Any]], None]) -> None:
        url = f"{self.lab.server.url}/api/v1/executions/{self.execution}/events"
        with httpx.stream("GET", url, timeout=60) as answer:
            kind = ""
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    tell(kind, json.loads(value))


@pytest.fixture
def talking(lab: Lab, tmp_path: Path) -> Iterator[Talking]:
    """One whose job has begun, and printed its first words."""
    project = write_project(
        tmp_path / "talk", {"operations/talk.py": TALK, "pipelines/talking.py": PIPELINE}
    )
    before = len(lab.site.requests)
    begun = lab.server.client(
        "run", project, "--set", f"gate={tmp_path / 'gate'}", "--storage", "sky",
        "--compute", "sci", "--detach",
    ).out.strip()  # fmt: skip
    del lab.site.requests[:before]
    found = Talking(lab, tmp_path / "gate", begun)
    wait_until(lambda: output_of(found).count(b"20%"))
    wait_until(lambda: found.view()["jobs"][0]["status"] == "running")
    yield found
    lab.site.faults.clear()
    found.end()


def output_of(one: Talking) -> bytes:
    """What the container has printed, as it lies in the volume."""
    volume = one.lab.site.state.volume("Temporary", USER, "scratch")
    assert volume is not None
    paths = volume.folder.glob(f"deepforge/{one.execution}*/output.txt")
    return b"".join(path.read_bytes() for path in paths)


def test_lines_are_seen_while_the_job_runs_and_are_the_log_in_the_end(talking: Talking) -> None:
    with talking.heard() as first, talking.heard() as second:
        for one in (first, second):
            one.wait_for("begun \ufffd\0\n20%")
        assert talking.view()["jobs"][0]["status"] == "running"
        talking.go_on()
        for one in (first, second):
            one.wait_for(LAST_LINE)
        assert talking.log().endswith(LAST_LINE.encode())
        assert talking.view()["jobs"][0]["status"] == "running"
        view = talking.end()

    assert view["status"] == "succeeded"
    stored = talking.log()
    assert stored.startswith(b"begun \xff\x00\n20%\r100%\nline 0 ")
    assert stored.endswith(LAST_LINE.encode() + b"done")
    assert stored.count(b"\n") == LINES + 2
    assert first.text == second.text == stored.decode(errors="replace")


def test_who_asks_once_sees_what_there_is(talking: Talking) -> None:
    assert talking.log() == b"begun \xff\x00\n20%"


def test_nothing_is_asked_for_what_nobody_watches(talking: Talking) -> None:
    with httpx.stream(
        "GET",
        f"{talking.lab.server.url}/api/v1/executions/{talking.execution}/events?logs=false",
        timeout=60,
    ) as answer:
        talking.go_on()
        wait_until(lambda: output_of(talking).count(b"many") == LINES)
        talking.end()
        for _ in answer.iter_lines():
            pass
    assert talking.log().endswith(b"done")

    assert talking.requests() == 0


@pytest.mark.parametrize("fault", [("status", 0), ("truncate", 20)])
def test_a_service_that_fails_for_a_while_delays_what_is_seen(
    talking: Talking, fault: tuple[Any, int]
) -> None:
    kind, after_bytes = fault
    talking.lab.site.faults.add(kind, path="output.txt", times=3, after_bytes=after_bytes)
    with talking.heard() as heard:
        heard.wait_for("begun \ufffd\0\n20%")
        assert not talking.lab.site.faults.waiting
        talking.go_on()
        heard.wait_for(LAST_LINE)
        talking.end()

    assert heard.text == talking.log().decode(errors="replace")


def test_what_a_job_printed_that_the_site_ended_is_kept_whole(lab: Lab, tmp_path: Path) -> None:
    project = write_project(
        tmp_path / "talk", {"operations/talk.py": TALK, "pipelines/talking.py": PIPELINE}
    )
    (tmp_path / "gate").touch()
    lab.site.faults.add("job_timeout", after_s=3.0)

    told = lab.server.client(
        "run", project, "--set", f"gate={tmp_path / 'gate'}", "--storage", "sky",
        "--compute", "sci", "--json", code=1,
    )  # fmt: skip

    assert "time limit" in told.err
    kept = lab.server.client("executions", "logs", told.json["execution"]).data
    assert kept.startswith(b"begun \xff\x00\n")
    assert kept.endswith(LAST_LINE.encode())
    assert kept.count(b"\n") == LINES + 2
