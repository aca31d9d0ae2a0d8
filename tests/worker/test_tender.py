"""Jobs of the executor framework, from a server that knows nothing of our dialect."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from runner.far_side import FarSide, lives, until
from worker.fake_server import FakeServer, zipped
from worker.programs import Workers, handed

ALL: dict[str, Any] = {"name": "all", "resultPatterns": []}


def job(script: str, *artifacts: Mapping[str, Any], **config: Any) -> dict[str, bytes]:
    """The files of a job that runs a script of Python."""
    told = {
        "cmd": sys.executable,
        "args": ["main.py"],
        "resultArtifacts": list(artifacts),
        **config,
    }
    return {"executor_config.json": json.dumps(told).encode(), "main.py": script.encode()}


def test_a_job_runs_and_its_results_are_stored(workers: Workers, original: FakeServer) -> None:
    worker = workers(original, "--jobs", "2")
    script = """
import os, sys
os.makedirs("sub/deep")
open("sub/deep/b.txt", "w").write("b")
open("result.txt", "w").write(open("data/in.txt").read() + os.environ["ORIGIN_URL"])
open("empty.bin", "w")
print("printed")
print("complained", file=sys.stderr)
"""
    files = job(
        script,
        {"name": "results", "resultPatterns": ["result.txt", "sub/**", "*.bin"]},
        {"name": "stdout", "resultPatterns": ["job_stdout.txt", "job_stderr.txt"]},
        ALL,
        outputInterval=50,
    )
    original.offer_files("aa", {**files, "data/in.txt": b"from "})
    until(lambda: original.status("aa"))

    (update,) = original.updates["aa"]
    assert "SUCCESS" == update["status"]
    assert ["guest"] == update["userId"]  # the whole of what the server knew comes back
    assert update["startTime"] <= update["finishTime"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", update["finishTime"])
    assert {
        "result.txt": f"from {original.url}".encode(),
        "sub/deep/b.txt": b"b",
        "empty.bin": b"",
    } == original.artifact("aa", "results")
    assert {"job_stdout.txt": b"printed\n", "job_stderr.txt": b"complained\n"} == (
        original.artifact("aa", "stdout")
    )
    everything = original.artifact("aa", "all")
    assert {"executor_config.json", "main.py", "data/in.txt"} < set(everything)
    joint = original.blobs[update["resultSuperSetHash"]]
    assert set(everything) == set(joint["content"])
    assert "printed\n" == original.text("aa")
    until(lambda: not worker.job_folders)


def test_a_plain_zip_is_a_job_too(workers: Workers, original: FakeServer) -> None:
    workers(original)
    original.offer_zip("aa", zipped(job("print(1)", ALL)))
    until(lambda: original.status("aa"))

    assert "SUCCESS" == original.status("aa")
    assert not original.output["aa"]  # neither an interval nor a size was asked for


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("raise SystemExit(3)", "FAILED_TO_EXECUTE"),
        ("raise SystemExit(130)", "CANCELED"),
        ("import os; os.kill(os.getpid(), 9)", "FAILED_TO_EXECUTE"),
    ],
)
def test_the_exit_code_is_the_status(
    workers: Workers, original: FakeServer, script: str, status: str
) -> None:
    workers(original)
    original.offer_files("aa", job(f"open('left.txt', 'w').close()\n{script}", ALL))
    until(lambda: original.status("aa"))

    assert status == original.status("aa")
    assert "left.txt" in original.artifact("aa", "all")


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ({"a.txt": b""}, "FAILED_EXECUTOR_CONFIG"),
        ({"executor_config.json": b"{"}, "FAILED_EXECUTOR_CONFIG"),
        ({"executor_config.json": b'{"cmd": "true"}'}, "FAILED_EXECUTOR_CONFIG"),
        ({"executor_config.json": b'{"cmd": [], "resultArtifacts": []}'}, "FAILED_EXECUTOR_CONFIG"),
        (
            {"executor_config.json": b'{"cmd": "no-such-program", "resultArtifacts": []}'},
            "FAILED_TO_EXECUTE",
        ),
        ({"../evil.txt": b"", **job("")}, "FAILED_UNZIP"),
        ({"/tmp/evil.txt": b"", **job("")}, "FAILED_UNZIP"),
    ],
)
def test_a_job_that_cannot_be_run_says_why(
    workers: Workers, original: FakeServer, files: dict[str, bytes], status: str
) -> None:
    worker = workers(original)
    original.offer_zip("aa", zipped(files))
    until(lambda: original.status("aa"))

    assert [status] == [one["status"] for one in original.updates["aa"]]
    until(lambda: f"job aa: {status}" in worker.said)
    assert worker.process.poll() is None


def test_links_in_a_zip_are_refused(workers: Workers, original: FakeServer) -> None:
    import zipfile

    def make_link(entry: zipfile.ZipInfo) -> None:
        if entry.filename == "link":
            entry.external_attr = 0o120777 << 16

    workers(original)
    original.offer_zip("aa", zipped({"link": b"/etc/passwd", **job("", ALL)}, make_link))
    until(lambda: original.status("aa"))

    assert "FAILED_UNZIP" == original.status("aa")


def test_a_source_that_is_not_what_was_stored_is_refused(
    workers: Workers, original: FakeServer
) -> None:
    workers(original)
    original.offer_files("aa", {**job("print(1)", ALL), "data.txt": b"good"})
    entry = original.blobs["aa"]["content"]["data.txt"]
    original.contents[entry["content"]] = b"evil"
    until(lambda: original.status("aa"))

    assert "FAILED_UNZIP" == original.status("aa")


def test_a_missing_source_is_told(workers: Workers, original: FakeServer) -> None:
    workers(original)
    original.offer("aa", {})
    until(lambda: original.status("aa"))

    assert "FAILED_TO_GET_SOURCE_METADATA" == original.status("aa")


def test_a_web_page_instead_of_the_source_is_asked_for_again(
    workers: Workers, original: FakeServer
) -> None:
    page = (200, b"<html>Log in</html>", "text/html")
    for path in ("info/aa", "update/aa", "output/aa"):
        original.faults[f"/rest/executor/{path}"].append(page)
    for path in ("metadata/aa", "view/aa/", "createFile/main.py", "createMetadata/"):
        original.faults[f"/rest/blob/{path}"].append(page)
    workers(original)
    original.offer_files("aa", job("print('once')", ALL, outputInterval=50))
    until(lambda: original.status("aa"))

    assert "SUCCESS" == original.status("aa")
    assert "once\n" == original.text("aa")


def test_a_redirect_is_not_followed(workers: Workers, original: FakeServer) -> None:
    original.faults["/rest/blob/view/aa/"].append((302, b"", "text/html"))
    workers(original)
    original.offer_files("aa", job("print(1)", ALL))
    until(lambda: original.status("aa"))

    assert "SUCCESS" == original.status("aa")
    assert not [one for one in original.requests if "login" in one.path]


def test_ten_megabytes_of_output_arrive_whole(workers: Workers, original: FakeServer) -> None:
    """In pieces that the original takes: up to 100 KB as JSON, cut between characters."""
    workers(original)
    script = """
import sys
for number in range(10_000):
    sys.stdout.buffer.write(("%06d " % number + "é\\0😀" * 142 + "\\n").encode())
"""
    original.offer_files("aa", job(script, outputInterval=20))
    until(lambda: original.status("aa"), within_s=60)

    expected = "".join(f"{number:06d} " + "é\0😀" * 142 + "\n" for number in range(10_000))
    assert expected == original.text("aa")
    bodies = [one.body for one in original.requests if one.path == "/rest/executor/output/aa"]
    assert max(map(len, bodies)) < 100_000


def test_output_that_was_sent_is_not_sent_again(workers: Workers, original: FakeServer) -> None:
    go = workers.root / "go"
    script = f"""
import os, time
print("first", flush=True)
while not os.path.exists({str(go)!r}):
    time.sleep(0.01)
print("second")
"""
    first = workers(original)
    original.offer_files("aa", job(script, outputInterval=20))
    sent = first.folder / "jobs" / "aa" / "sent"
    until(lambda: sent.exists() and original.text("aa") == "first\n")  # else it is sent again
    first.kill()
    workers(original)
    go.touch()
    until(lambda: original.status("aa"))

    assert {0: "first\n", 1: "second\n"} == original.output["aa"]


def test_a_rerun_goes_on_numbering(workers: Workers, original: FakeServer) -> None:
    workers(original)
    files = job("print('again')", outputInterval=20)
    original.offer_files("aa", {})
    original.waiting.clear()
    original.offer_files("bb", files)
    original.info["bb"]["outputNumber"] = 3
    until(lambda: original.status("bb"))

    assert {4: "again\n"} == original.output["bb"]


def test_cancel_interrupts_and_then_ends_the_whole_group(
    workers: Workers, original: FakeServer
) -> None:
    place = workers.root / "pids"
    script = f"""
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open({str(place)!r}, "w").write("%d %d." % (os.getpid(), child.pid))
time.sleep(600)
"""
    workers(original)
    original.offer_files("aa", job(script, ALL))
    until(lambda: place.exists() and place.read_text().endswith("."))
    original.cancel("aa")
    until(lambda: original.status("aa"))

    assert "CANCELED" == original.status("aa")
    assert not any(lives(int(pid)) for pid in place.read_text()[:-1].split())
    assert b"KeyboardInterrupt" in original.artifact("aa", "all")["job_stderr.txt"]


def test_a_label_job_runs_once_and_gives_the_label(workers: Workers, original: FakeServer) -> None:
    original.offer_files("aa", job("print('set up')"))
    original.waiting.clear()
    original.label_jobs = {"ready": "aa"}
    workers(original)
    until(lambda: original.polls and original.polls[-1]["labels"] == ["ready"])

    assert ["SUCCESS"] == [one["status"] for one in original.updates["aa"]]


def test_our_server_may_have_such_jobs_too(workers: Workers, server: FakeServer) -> None:
    workers(server)
    server.offer_files("aa", job("print(1)", ALL))
    until(lambda: server.status("aa"))

    assert "SUCCESS" == server.status("aa")
    assert b"1\n" == server.artifact("aa", "all")["job_stdout.txt"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 80 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small disk here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_with_a_full_disk_no_job_is_taken_and_the_running_one_ends_well(
    workers: Workers, server: FakeServer, small_disk: Path, tmp_path: Path
) -> None:
    far = FarSide(tmp_path / "other")
    go = tmp_path / "go"
    op = f"""
import os, time
class Op:
    def execute(self):
        while not os.path.exists({str(go)!r}):
            time.sleep(0.01)
        return 1
"""
    worker = workers(server, folder=small_disk / "worker")
    server.offer("aa", handed(far.job(op)))
    until(lambda: (worker.folder / "jobs" / "aa" / "keeper.json").exists())
    _fill(small_disk / "fill")
    go.touch()
    until(lambda: server.status("aa"))
    assert server.status("aa") in ("SUCCESS", "FAILED_TO_EXECUTE")
    until(lambda: "is full" in worker.said)
    until(lambda: server.polls[-1]["availableProcesses"] == 0)
    (small_disk / "fill").unlink()

    until(lambda: server.polls[-1]["availableProcesses"] > 0)
    assert worker.process.poll() is None


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 1_000_000)
        with contextlib.suppress(OSError):
            while file.write(b"x"):
                pass
