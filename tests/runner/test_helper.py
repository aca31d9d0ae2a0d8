"""The warm helper as the runner sees it: real processes, an operation of a few lines."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deepforge.runner import call
from deepforge.runner.helper import Helper, HelperGone, make_helper
from deepforge.runner.protocol import ENV_CACHE, ENV_PYTHON, ENV_START
from deepforge.runner.support import support_folder

PRINTS = "print('here')\nclass Op:\n    def execute(self): return b'done'\n"


@pytest.fixture
def support(tmp_path: Path) -> str:
    return support_folder(str(tmp_path / "runner"))


@pytest.fixture
def helper(support: str) -> Iterator[Helper]:
    helper = Helper(sys.executable, support)
    yield helper
    helper.end()


def order(folder: Path, source: str) -> bytes:
    for name in ("code", "work"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "code" / "op.py").write_text(source)
    spec: dict[str, Any] = {
        "path": str(folder / "spec"), "report": str(folder / "report"), "work": str(folder / "work"),
        "code": str(folder / "code"), "module": "op", "name": "Op", "file": "op.py",
        "arguments": [], "inputs": [], "outputs": [("result", str(folder / "output"))],
    }  # fmt: skip
    return call.order(spec)


def ended(helper: Helper, pid: int) -> tuple[int, int]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        select.select([helper.news], [], [], 1)
        found = helper.ended(pid)
        if found is not None:
            return found
    raise AssertionError("it has not ended")


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_operations_follow_each_other_in_processes_of_their_own(
    helper: Helper, tmp_path: Path
) -> None:
    pids = set()
    for _ in range(3):
        pid = helper.operate(order(tmp_path, PRINTS))
        status, peak_bytes = ended(helper, pid)

        assert 0 == status
        assert peak_bytes > 1_000_000
        assert b"here\n" == os.read(helper.log, 100)
        assert b'"failure":null' in os.read(helper.report, 1000)
        assert b"done" == (tmp_path / "output").read_bytes()
        assert helper.is_clean
        pids.add(pid)
    assert len(pids) == 3


def test_what_was_said_late_is_not_the_next_ones(helper: Helper, tmp_path: Path) -> None:
    ended(helper, helper.operate(order(tmp_path, PRINTS)))
    ended(helper, helper.operate(order(tmp_path, PRINTS.replace("here", "again"))))

    assert b"again\n" == os.read(helper.log, 100)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_fork_that_was_killed_while_it_waited_is_replaced(helper: Helper, tmp_path: Path) -> None:
    wait_for(lambda: len(children(helper.pid)) == 1)
    (waiting,) = children(helper.pid)
    os.kill(waiting, signal.SIGKILL)
    wait_for(lambda: gone(waiting))

    pid = helper.operate(order(tmp_path, PRINTS))

    assert pid != waiting
    assert 0 == ended(helper, pid)[0]


def test_after_an_operation_was_killed_nothing_follows(helper: Helper, tmp_path: Path) -> None:
    """It may have left half of its order in the pipe that all forks read."""
    pid = helper.operate(order(tmp_path, "import time\ntime.sleep(60)\n"))
    assert not helper.is_clean
    os.kill(pid, signal.SIGKILL)

    assert signal.SIGKILL == os.WTERMSIG(ended(helper, pid)[0])
    assert not helper.is_clean


def test_a_helper_that_was_killed_is_told(helper: Helper, tmp_path: Path) -> None:
    pid = helper.operate(order(tmp_path, "import time\ntime.sleep(60)\n"))
    os.kill(helper.pid, signal.SIGKILL)

    assert signal.SIGKILL == os.WTERMSIG(ended(helper, pid)[0])
    assert not helper.is_clean
    with pytest.raises(HelperGone, match="not there"):
        helper.operate(order(tmp_path, PRINTS))
    os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_nothing_of_it_outlives_its_runner(support: str) -> None:
    helper = Helper(sys.executable, support)
    wait_for(lambda: len(children(helper.pid)) == 1)
    (waiting,) = children(helper.pid)

    helper.end()

    wait_for(lambda: gone(helper.pid) and gone(waiting))


def test_an_interpreter_that_cannot_start_says_why(support: str, tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no libpython >&2\nexit 1\n")
    broken.chmod(0o755)
    helper = Helper(str(broken), support)

    with pytest.raises(HelperGone, match="no libpython"):
        helper.operate(b"")

    helper.end()
    with pytest.raises(OSError, match="No such file"):
        Helper(str(tmp_path / "missing"), support)


def test_a_machine_says_whether_it_wants_one_and_of_which_interpreter(tmp_path: Path) -> None:
    assert make_helper({}, str(tmp_path)) is None

    settings = {ENV_START: "fork", ENV_PYTHON: sys.executable, ENV_CACHE: str(tmp_path / "cache")}
    helper = make_helper(settings, str(tmp_path))

    assert helper is not None
    assert sys.executable == helper.python
    assert (tmp_path / "cache" / "runner").is_dir()
    helper.end()
