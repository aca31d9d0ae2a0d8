"""The worker with a server of ours: jobs, limits, ends, restarts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from base64 import b64encode
from pathlib import Path

import pytest

from runner.far_side import Ended, FarSide, lives, until
from worker.fake_server import FakeServer
from worker.programs import Workers, handed

QUICK = "class Op:\n    def execute(self): return 1\n"
ENVIRONMENT = """
import os
class Op:
    def execute(self):
        return dict(os.environ)
"""
WAITS = """
import os, subprocess, sys, time
class Op:
    def execute(self):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open({place!r} + ".part", "w") as file:
            file.write("%d %d" % (os.getpid(), child.pid))
        os.rename({place!r} + ".part", {place!r})
        while not os.path.exists({go!r}):
            time.sleep(0.01)
        child.kill()
        child.wait()
        return "went on"
"""


class Waiting:
    """A job that says which processes it has, and waits for a file."""

    def __init__(self, root: Path, far: FarSide) -> None:
        self.far = far
        self.place, self.go = root / f"{far.root.name}-pids", root / f"{far.root.name}-go"
        self.job = far.job(WAITS.format(place=str(self.place), go=str(self.go)))

    @property
    def pids(self) -> list[int]:
        until(self.place.exists)
        return [int(one) for one in self.place.read_text().split()]

    @property
    def ended(self) -> Ended:
        return Ended(0, "", "", self.far.store, self.far.folder)


def output_of(far: FarSide) -> object:
    return Ended(0, "", "", far.store, far.folder).output()


def test_a_job_runs_and_leaves_nothing_here(
    workers: Workers, server: FakeServer, far: FarSide
) -> None:
    worker = workers(server)
    server.offer("aa", handed(far.job(QUICK)))
    until(lambda: server.status("aa"))

    (update,) = server.updates["aa"]
    assert "SUCCESS" == update["status"]
    assert 0 == update["exitCode"]
    assert 1 == output_of(far)
    until(lambda: not worker.job_folders)
    assert not [one for one in server.requests if "/rest/blob/" in one.path]
    assert 0 == worker.end()


def test_a_failure_is_told_with_its_exit_code(
    workers: Workers, server: FakeServer, far: FarSide
) -> None:
    workers(server)
    server.offer("aa", handed(far.job("class Op:\n    def execute(self): raise KeyError(1)\n")))
    until(lambda: server.status("aa"))

    (update,) = server.updates["aa"]
    assert ("FAILED_TO_EXECUTE", 1) == (update["status"], update["exitCode"])
    assert "normal" == update["deepforge"]["reason"]


def test_the_question_tells_what_there_is(workers: Workers, server: FakeServer) -> None:
    workers(
        server, "--jobs", "3", "--cpus", "4", "--memory", "8G", "--gpus", "2",
        "--label", "gpu", "--label", "lab", "--name", "the box",
    )  # fmt: skip
    until(lambda: len(server.polls) > 1)

    question = server.polls[0]
    assert (3, ["gpu", "lab"], []) == (
        question["availableProcesses"],
        question["labels"],
        question["runningJobs"],
    )
    ours = question["deepforge"]
    assert ("the box", 4, 8 * 1024**3, 2) == (
        ours["name"],
        ours["cpus"],
        ours["memoryBytes"],
        ours["gpus"],
    )
    assert {"cpus": 4, "memoryBytes": 8 * 1024**3, "gpus": 2} == ours["free"]
    assert ours["instance"] == server.polls[1]["deepforge"]["instance"]
    assert "prefer" not in server.requests[0].headers  # the first answer shows that it is connected
    assert "wait=25" == server.requests[1].headers["prefer"]


def test_jobs_run_side_by_side_and_no_more_than_fit(
    workers: Workers, server: FakeServer, tmp_path: Path
) -> None:
    jobs = [Waiting(tmp_path, FarSide(tmp_path / f"far{number}")) for number in range(3)]
    workers(server, "--jobs", "2", "--cpus", "2")
    for number, one in enumerate(jobs):
        server.offer(f"job{number}", handed(one.job))
    assert jobs[0].pids
    assert jobs[1].pids

    until(lambda: server.polls[-1]["availableProcesses"] == 0)
    assert not jobs[2].place.exists()
    assert ["job2"] == list(server.waiting)
    jobs[0].go.touch()
    assert jobs[2].pids
    for one in jobs:
        one.go.touch()
    until(lambda: [server.status(f"job{number}") for number in range(3)] == ["SUCCESS"] * 3)


def test_gpus_are_given_out_one_by_one(
    workers: Workers, server: FakeServer, tmp_path: Path
) -> None:
    far = [FarSide(tmp_path / f"far{number}") for number in range(3)]
    workers(server, "--jobs", "4", "--gpus", "3")
    for number, (one, gpus) in enumerate(zip(far, (0, 1, 2), strict=True)):
        server.offer(f"job{number}", handed(one.job(ENVIRONMENT), resources={"gpus": gpus}))
    until(lambda: all(server.status(f"job{number}") for number in range(3)))

    seen = [output_of(one) for one in far]
    assert [0, 1, 2] == [
        len([card for card in one["CUDA_VISIBLE_DEVICES"].split(",") if card])  # type: ignore[index]
        for one in seen
    ]


def test_a_job_that_can_never_fit_is_refused_with_the_reason(
    workers: Workers, server: FakeServer, far: FarSide
) -> None:
    workers(server, "--cpus", "2")
    server.offer("aa", handed(far.job(QUICK), resources={"cpus": 64}))
    until(lambda: server.status("aa"))

    (update,) = server.updates["aa"]
    assert "FAILED_TO_EXECUTE" == update["status"]
    assert "64 processors" in update["deepforge"]["message"]


def test_the_token_reaches_no_job(workers: Workers, server: FakeServer, far: FarSide) -> None:
    server.token = "df_secret_of_the_worker"
    workers.environment = {"AWS_SECRET_ACCESS_KEY": "mine", "LD_LIBRARY_PATH": "/opt/cuda"}
    worker = workers(server, token=server.token)
    server.offer("aa", handed(far.job(ENVIRONMENT)))
    until(lambda: server.status("aa"))

    seen = output_of(far)
    assert isinstance(seen, dict)
    assert "/opt/cuda" == seen["LD_LIBRARY_PATH"]
    assert "AWS_SECRET_ACCESS_KEY" not in seen
    assert server.token not in json.dumps(seen)
    assert (
        server.token
        not in subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout
    )
    assert server.token not in worker.said


def test_a_cancelled_job_ends_with_all_its_processes(
    workers: Workers, server: FakeServer, far: FarSide, tmp_path: Path
) -> None:
    waiting = Waiting(tmp_path, far)
    workers(server)
    server.offer("aa", handed(waiting.job))
    pids = waiting.pids
    server.cancel("aa")
    until(lambda: server.status("aa"))

    assert "CANCELED" == server.status("aa")
    assert not any(lives(pid) for pid in pids)
    assert "cancelled" == waiting.ended.result.status


def test_a_job_that_runs_too_long_is_ended(
    workers: Workers, server: FakeServer, far: FarSide, tmp_path: Path
) -> None:
    waiting = Waiting(tmp_path, far)
    workers(server)
    server.offer("aa", handed(waiting.job, resources={"walltimeS": 0.5}))
    until(lambda: server.status("aa"))

    (update,) = server.updates["aa"]
    assert ("FAILED_TO_EXECUTE", "walltime") == (update["status"], update["deepforge"]["reason"])
    assert not any(lives(pid) for pid in waiting.pids)


def test_told_to_end_it_finishes_its_jobs_and_takes_no_new_ones(
    workers: Workers, server: FakeServer, far: FarSide, tmp_path: Path
) -> None:
    waiting = Waiting(tmp_path, far)
    worker = workers(server)
    server.offer("aa", handed(waiting.job))
    assert waiting.pids
    worker.process.send_signal(signal.SIGTERM)
    until(lambda: server.polls[-1]["deepforge"]["draining"])
    server.offer("bb", handed(waiting.job))
    waiting.go.touch()

    assert 0 == worker.process.wait(20)
    assert "SUCCESS" == server.status("aa")
    assert ["bb"] == list(server.waiting)


def test_told_twice_it_gives_its_jobs_back(
    workers: Workers, server: FakeServer, far: FarSide, tmp_path: Path
) -> None:
    waiting = Waiting(tmp_path, far)
    worker = workers(server)
    server.offer("aa", handed(waiting.job))
    pids = waiting.pids
    worker.process.send_signal(signal.SIGTERM)
    until(lambda: "told to end" in worker.said)

    assert 0 == worker.end()
    assert "CREATED" == server.status("aa")
    assert not any(lives(pid) for pid in pids)
    assert not worker.job_folders


def test_killed_it_finds_its_jobs_again(
    workers: Workers, server: FakeServer, far: FarSide, tmp_path: Path
) -> None:
    waiting = Waiting(tmp_path, far)
    first = workers(server)
    server.offer("aa", handed(waiting.job))
    pids = waiting.pids
    first.kill()
    second = workers(server)
    until(lambda: "found 1 jobs again" in second.said)
    until(
        lambda: (
            server.polls[-1]["deepforge"]["instance"] != server.polls[0]["deepforge"]["instance"]
        )
    )

    assert all(lives(pid) for pid in pids)
    assert ["aa"] == server.polls[-1]["runningJobs"]
    assert server.polls[0]["clientId"] == server.polls[-1]["clientId"]
    assert os.cpu_count() == 1 + server.polls[-1]["availableProcesses"]
    waiting.go.touch()
    until(lambda: server.status("aa"))
    assert ("SUCCESS", "went on") == (server.status("aa"), waiting.ended.output())


def test_what_ended_while_no_worker_was_there_is_told_by_the_next(
    workers: Workers, server: FakeServer, far: FarSide, tmp_path: Path
) -> None:
    waiting = Waiting(tmp_path, far)
    first = workers(server)
    server.offer("aa", handed(waiting.job))
    assert waiting.pids
    keeper = first.keeper("aa")
    first.kill()
    waiting.go.touch()
    until(lambda: not lives(keeper))
    workers(server)
    until(lambda: server.status("aa"))

    (update,) = server.updates["aa"]
    assert ("SUCCESS", 0) == (update["status"], update["exitCode"])


def test_what_a_reboot_ended_is_told(
    workers: Workers, server: FakeServer, far: FarSide, tmp_path: Path
) -> None:
    waiting = Waiting(tmp_path, far)
    first = workers(server)
    server.offer("aa", handed(waiting.job))
    assert waiting.pids
    keeper = first.keeper("aa")
    first.kill()
    os.kill(keeper, signal.SIGKILL)
    until(lambda: not any(lives(pid) for pid in (keeper, waiting.pids[0])))
    workers(server)
    until(lambda: server.status("aa"))

    (update,) = server.updates["aa"]
    assert ("FAILED_TO_EXECUTE", "node_failure") == (
        update["status"],
        update["deepforge"]["reason"],
    )


def test_two_workers_in_one_folder_are_refused(workers: Workers, server: FakeServer) -> None:
    first = workers(server)
    until(lambda: "connected" in first.said)
    second = workers(server)

    assert 3 == second.process.wait(20)
    assert "another worker works in" in second.said
    assert "--folder" in second.said


def test_a_server_that_is_gone_for_longer_than_a_job_gets_everything_later(
    workers: Workers, far: FarSide, tmp_path: Path
) -> None:
    waiting = Waiting(tmp_path, far)
    with FakeServer() as before:
        worker = workers(before)
        before.offer("aa", handed(waiting.job))
        assert waiting.pids
    waiting.go.touch()
    until(lambda: (worker.folder / "jobs" / "aa" / "exit.json").exists())
    with FakeServer(port=before.port, info=before.info) as after:
        until(lambda: after.status("aa"))

    assert "SUCCESS" == after.status("aa")
    assert 1 == len(after.updates["aa"])


def test_a_web_page_with_200_is_no_answer(
    workers: Workers, server: FakeServer, far: FarSide
) -> None:
    server.always = (200, b"<html>Back soon</html>", "text/html")
    worker = workers(server)
    until(lambda: "no connection" in worker.said)
    server.always = None
    server.offer("aa", handed(far.job(QUICK)))

    until(lambda: server.status("aa") == "SUCCESS")
    assert "does a proxy or a login page stand before it?" in worker.said


def test_a_wrong_token_ends_it_with_the_next_step(workers: Workers, server: FakeServer) -> None:
    server.token = "right"
    worker = workers(server, token="wrong")

    assert 3 == worker.process.wait(20)
    assert "does not accept the access token" in worker.said


def test_a_token_revoked_while_a_job_runs_loses_nothing(
    workers: Workers, server: FakeServer, far: FarSide, tmp_path: Path
) -> None:
    """The job goes on; its end is told when somebody has put a new token into the file."""
    waiting = Waiting(tmp_path, far)
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("first")
    server.token = "first"
    worker = workers(server, "--token-file", str(token))
    server.offer("aa", handed(waiting.job))
    assert waiting.pids
    server.token = "second"
    waiting.go.touch()
    until(lambda: "does not accept the token" in worker.said)
    assert worker.process.poll() is None
    token.write_text("second")

    until(lambda: server.status("aa") == "SUCCESS", within_s=30)


def test_a_job_that_the_server_takes_away_counts_no_more(
    workers: Workers, server: FakeServer, far: FarSide, tmp_path: Path
) -> None:
    waiting = Waiting(tmp_path, far)
    worker = workers(server)
    server.offer("aa", handed(waiting.job))
    pids = waiting.pids
    server.faults["/rest/executor/update/aa"].append((409, b"{}", "application/json"))
    server.cancel("aa")
    until(lambda: not worker.job_folders)

    assert not server.updates["aa"]
    assert not any(lives(pid) for pid in pids)


def test_a_runner_of_another_version_is_fetched_once(
    workers: Workers, server: FakeServer, tmp_path: Path
) -> None:
    """The worker's own is made older for that: another file beside it makes another digest."""
    far = [FarSide(tmp_path / f"far{number}") for number in range(2)]
    other = workers.root / "other.pyz"
    _with_other_runner(workers.pyz, other)
    workers.pyz = other
    workers(server)
    for number, one in enumerate(far):
        server.offer(f"job{number}", handed(one.job(QUICK)))
        until(lambda: server.status(f"job{number}") == "SUCCESS")  # noqa: B023 - at once

    fetched = [one for one in server.requests if one.path.startswith("/rest/executor/runner/")]
    assert [f"/rest/executor/runner/{server.runner}"] == [one.path for one in fetched]


def test_a_clock_that_is_wrong_decides_nothing(
    workers: Workers, server: FakeServer, far: FarSide, tmp_path: Path
) -> None:
    """An hour ahead, as far as Python can see."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import time\nreal = time.time\ntime.time = lambda: real() + 3600\n"
    )
    workers.environment = {"PYTHONPATH": str(site)}
    worker = workers(server)
    server.offer("aa", handed(far.job(QUICK)))

    until(lambda: server.status("aa") == "SUCCESS")
    assert 0 == worker.end()


def test_a_question_that_waits_is_overtaken_when_there_is_room_again(
    workers: Workers, server: FakeServer, far: FarSide
) -> None:
    """Else the server would learn it with the next question, up to 25 seconds later."""
    workers(server, "--jobs", "1")
    server.offer("aa", handed(far.job(QUICK)))

    def is_free() -> bool:
        if not server.updates["aa"]:
            return False
        last = server.polls[-1]
        return (1, []) == (last["availableProcesses"], last["runningJobs"])

    until(is_free, within_s=10)


def _with_other_runner(pyz: Path, target: Path) -> None:
    import zipfile

    with zipfile.ZipFile(pyz) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data + b" " if name.endswith("worker/runner.pyz") else data)


def test_a_starter_that_is_killed_is_replaced_and_ends_no_job(
    workers: Workers, server: FakeServer, tmp_path: Path
) -> None:
    first, second = (Waiting(tmp_path, FarSide(tmp_path / f"far{n}")) for n in range(2))
    worker = workers(server, "--jobs", "2")
    server.offer("aa", handed(first.job))
    assert first.pids
    task = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children")
    for starter in task.read_text().split():
        os.kill(int(starter), signal.SIGKILL)
    server.offer("bb", handed(second.job))
    assert second.pids
    for one in (first, second):
        one.go.touch()

    until(lambda: server.status("aa") and server.status("bb"))
    assert ("SUCCESS", "SUCCESS") == (server.status("aa"), server.status("bb"))


def test_a_job_whose_output_is_refused_is_lost_and_ends(
    workers: Workers, server: FakeServer, tmp_path: Path
) -> None:
    """The server has given it to another worker meanwhile."""
    place = tmp_path / "pid"
    script = f"""
import os, time
print("printed", flush=True)
open({str(place)!r}, "w").write(f"{{os.getpid()}}.")
time.sleep(600)
"""
    server.faults["/rest/executor/output/aa"].append((409, b"{}", "application/json"))
    worker = workers(server)
    server.offer("aa", {"files": {"run.py": script}, "command": ["{python}", "run.py"]})
    until(lambda: place.exists() and place.read_text().endswith("."))
    until(lambda: not worker.job_folders)

    assert not lives(int(place.read_text()[:-1]))
    assert not server.updates["aa"]


def test_a_job_may_be_any_command_with_any_files(workers: Workers, server: FakeServer) -> None:
    workers(server)
    script = "import sys; sys.stdout.buffer.write(open('a/b.bin', 'rb').read()); sys.exit(7)"
    files = {"run.py": script, "a/b.bin": {"base64": b64encode(b"\xff\0text").decode()}}
    server.offer("aa", {"files": files, "command": ["{python}", "run.py"]})
    until(lambda: server.status("aa"))

    assert 7 == server.updates["aa"][0]["exitCode"]
    assert b"\xff\0text" == server.text("aa").encode("utf-8", "surrogateescape")


def test_files_that_would_leave_the_folder_are_refused(
    workers: Workers, server: FakeServer
) -> None:
    worker = workers(server)
    server.offer("aa", {"files": {"../evil": "x"}, "command": ["true"]})
    until(lambda: server.status("aa"))

    assert "FAILED_TO_EXECUTE" == server.status("aa")
    assert not list(worker.folder.glob("**/evil"))


def test_a_hand_out_that_makes_no_sense_ends_only_that_job(
    workers: Workers, server: FakeServer, far: FarSide
) -> None:
    workers(server)
    server.offer("aa", {"files": {"job.json": 5}})
    server.offer("bb", handed(far.job(QUICK)))
    until(lambda: server.status("aa") and server.status("bb"))

    assert ("FAILED_TO_EXECUTE", "SUCCESS") == (server.status("aa"), server.status("bb"))


def test_it_needs_no_rights_of_root(workers: Workers, server: FakeServer) -> None:
    """The worker hides its memory, and must still see its own processes."""
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0 or setpriv is None:
        pytest.skip("only root can become somebody else")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        pyz = folder / "worker.pyz"
        pyz.write_bytes(workers.pyz.read_bytes())
        python = "/usr/bin/python3"
        if not Path(python).exists():
            pytest.skip("there is no interpreter that everybody may use")
        command = [setpriv, "--reuid", "65534", "--regid", "65534", "--clear-groups", python]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, str(pyz), "--url", server.url, "--folder", str(folder / "w")],
                env={"PATH": "/usr/bin:/bin"},
                stderr=log,
            )
        script = "import os; print(os.getuid())"
        server.offer("aa", {"files": {}, "command": ["{python}", "-c", script]})
        until(lambda: server.status("aa"))
        process.terminate()

        assert 0 == process.wait(20), (folder / "log").read_text()
        assert "SUCCESS" == server.status("aa"), server.text("aa")
        assert "65534\n" == server.text("aa")
