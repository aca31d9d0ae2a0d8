"""What happens between a fork and an exit code, with a stand-in for the runner.

Each test forks from a fresh interpreter, as the supervisor does, never from pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deepforge.compute.environment import clean_environment
from deepforge.compute.server import processes
from deepforge.compute.server.folder import JobFolder, Process

_PARENT = """
import os, random, signal, sys, time
from pathlib import Path
from deepforge.compute.server.launch import FirstProcess, News, Start
secret = open(sys.argv[1] + "/supervisor-only", "w")
def runner(arguments, handed, settings, helper, client):
{runner}
def start():
    process = FirstProcess(runner, News())
    words = ["python", "runner.pyz", "job.json", "ü"]
    process.start(Start("key", sys.argv[1], words, {{"A": "1"}}, True))
    process.dismiss()
    return process.pid
code = os.waitstatus_to_exitcode(os.waitpid(start(), 0)[1])
print(code, flush=True)
{then}
"""


def fork_and_run(job: JobFolder, runner: str, *, then: str = "") -> tuple[int, str]:
    """Run the body of a runner in a job's first process; return its exit code and its log."""
    body = "\n".join("    " + line for line in runner.splitlines())
    done = subprocess.run(
        [sys.executable, "-c", _PARENT.format(runner=body, then=then), str(job.root)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    log = job.log.read_text() if job.log.exists() else ""
    return int(done.stdout.splitlines()[0]), log


@pytest.fixture
def job(tmp_path: Path) -> JobFolder:
    job = JobFolder(tmp_path / "job")
    job.root.mkdir()
    job.begin_record({})
    return job


@pytest.mark.parametrize(
    ("runner", "code", "said"),
    [
        ("return 0", 0, ""),
        ("return 130", 130, ""),
        ("sys.exit(75)", 75, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit('told why')", 1, ""),
        ("raise ValueError('broken')", 1, "ValueError: broken"),
        ("os.kill(os.getpid(), 9)", -9, ""),
        ("os._exit(3)", 3, ""),
    ],
)
def test_every_way_to_end_gives_its_code(job: JobFolder, runner: str, code: int, said: str) -> None:
    found, log = fork_and_run(job, runner)
    assert found == code
    assert said in log


def test_the_code_is_recorded_as_the_last_act(job: JobFolder) -> None:
    fork_and_run(job, "return 7")
    recorded = job.read()
    assert recorded is not None
    assert recorded.exit == {"code": 7}
    assert recorded.process is not None
    assert processes.look(recorded.process.pid) is None


def test_the_runner_finds_itself_as_if_it_were_started_fresh(job: JobFolder) -> None:
    runner = """
import json
print(json.dumps([arguments, sys.argv, settings["A"], os.getcwd(), os.read(0, 10).decode()]))
print(os.getsid(0) == os.getpgid(0) == os.getpid())
print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, signal.pthread_sigmask(0, ()))
print(sorted(int(n) for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")))
print("\\u00fc\\udc80", file=sys.stderr)
return 0
"""
    code, log = fork_and_run(job, runner)
    assert code == 0
    lines = log.splitlines()
    words = '["job.json", "\\u00fc"]'
    assert lines[0] == (f'[{words}, ["runner.pyz", {words[1:]}, "1", "{job.root}", ""]')
    assert lines[1:3] == ["True", "True set()"]
    assert lines[3] == "[0, 1, 2, 3, 4, 5]"  # three of its own, closed in every child
    assert lines[4] == "ü\\udc80"


def test_two_forks_draw_different_random_numbers(job: JobFolder, tmp_path: Path) -> None:
    other = JobFolder(tmp_path / "other")
    other.root.mkdir()
    other.begin_record({})
    again = f"sys.argv[1] = {str(other.root)!r}; os.waitpid(start(), 0)"
    fork_and_run(job, "print(random.random()); return 0", then=again)
    numbers = [float(one.log.read_text()) for one in (job, other)]
    assert numbers[0] != numbers[1]


def test_what_the_runner_leaves_behind_is_ended_before_the_code_is_recorded(
    job: JobFolder,
) -> None:
    runner = """
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork(): os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(os.getpid(), flush=True)
        time.sleep(600)
time.sleep(0.3)
return 0
"""
    code, log = fork_and_run(job, runner)
    assert code == 0
    pids = [int(line) for line in log.split()]
    assert len(pids) == 3
    assert [processes.look(pid) for pid in pids] == [None] * 3


def test_a_job_that_has_a_process_is_not_run_again(job: JobFolder) -> None:
    assert job.claim(Process(os.getpid(), 1, "boot"), 0.0)
    code, log = fork_and_run(job, "print('ran'); return 0")
    assert code != 0
    assert log == ""


@pytest.mark.parametrize("end", ["process.dismiss()", "pass"])
def test_a_process_without_a_job_ends_with_the_supervisor(job: JobFolder, end: str) -> None:
    script = (
        "from deepforge.compute.server.launch import FirstProcess, News\n"
        "process = FirstProcess(lambda *given: 0, News())\n"
        "print(process.pid)\n" + end
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    pid = int(done.stdout)
    for _ in range(1000):
        if processes.look(pid) is None:
            break
        os.sched_yield()
        subprocess.run(["sleep", "0.01"], check=True)
    assert processes.look(pid) is None


def test_only_what_every_program_needs_is_in_the_clean_environment() -> None:
    environ = {
        "PATH": "/bin", "HOME": "/home/ada", "AWS_SECRET_ACCESS_KEY": "s", "DEEPFORGE_TOKEN": "t",
        "PYTHONPATH": "/x", "LD_PRELOAD": "/y.so", "SSL_CERT_FILE": "/certs.pem",
    }  # fmt: skip
    assert clean_environment(environ) == {
        "PATH": "/bin",
        "HOME": "/home/ada",
        "SSL_CERT_FILE": "/certs.pem",
    }
    assert clean_environment({}) == {"PATH": os.defpath}
