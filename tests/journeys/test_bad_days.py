"""Bad input and bad days, as the user meets them: each ends in a clear error that says what to do."""

from __future__ import annotations

import json
import pickle
import re
import resource
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from journeys.parts import nothing_left, processes_of, serving, states, view_of, wait_until
from shell import Shell, WarmShell, write_project

FIRST = "class First:\n    def execute(self):\n        one = 1\n        return one\n"

TAKE = (
    "class Take:\n    def __init__(self, count: int = 1):\n        self.count = count\n\n"
    "    def execute(self, part):\n        taken = part\n        return taken\n"
)


def project(folder: Path, pipeline: str, **operations: str) -> Path:
    """A project with the pipeline `trial`, the operations First and Take, and these."""
    texts = {"first": FIRST, "take": TAKE, **operations}
    files = {f"operations/{name}.py": text for name, text in texts.items()}
    imports = "".join(
        f"from operations.{name} import {name.title().replace('_', '')}\n" for name in texts
    )
    return write_project(folder, {**files, "pipelines/trial.py": imports + pipeline})


# ── what is refused before anything runs ──────────────────────────────────────────────────────────


def test_a_pipeline_that_breaks_rules_is_refused_with_all_its_findings(shell: Shell) -> None:
    """A cycle, an unknown operation, a missing input, an unsupported statement, a name twice."""
    project(
        shell.folder,
        "\n\ndef trial():\n"
        "    one = Take().execute(two)\n"
        "    two = Take().execute(one)\n"
        "    three = Tkae().execute(one)\n"
        "    four = Take().execute()\n"
        "    for five in four:\n        pass\n"
        "    return one, one\n",
    )
    result = shell("run", ".", code=2)
    found = dict(
        line.strip().removeprefix("pipelines/trial.py:").split(": ", 1)
        for line in result.err.splitlines()
        if line.strip().startswith("pipelines/trial.py:")
    )

    assert set(found) == {"6", "8", "9", "10", "12"}, result.err
    assert "two" in found["6"]
    assert "Take" in found["8"]  # it says what was probably meant
    assert "part" in found["9"]
    assert "for" in found["10"]
    assert "one" in found["12"]
    assert shell("executions", "list", "--json").json == []


def test_a_pipeline_that_calls_itself_is_refused(shell: Shell) -> None:
    project(
        shell.folder,
        "from pipelines.other import other\n\n\ndef trial():\n    one = other()\n    return one\n",
    )
    (shell.folder / "pipelines/other.py").write_text(
        "from pipelines.trial import trial\n\n\ndef other():\n    one = trial()\n    return one\n"
    )
    error = shell("run", ".:trial", code=2).err

    assert "pipelines/" in error
    assert "trial" in error
    assert "itself" in error or "cycle" in error or "circle" in error


def test_a_syntax_error_is_told_with_its_line(shell: Shell) -> None:
    project(shell.folder, "\n\ndef trial():\n    one = First().execute(\n    return one\n")

    assert "pipelines/trial.py:" in shell("run", ".", code=2).err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "count=many"], ["count", "many", "int"]),
        (["--input", "given=photos@3"], ["given", "photos"]),
        (["--input", "given=../../etc/passwd"], ["given", ".."]),
        (["--storage", "lab"], ["lab", "local"]),
    ],
)
def test_a_choice_that_cannot_be_is_refused(
    shell: Shell, options: list[str], words: list[str]
) -> None:
    project(
        shell.folder,
        "\n\ndef trial(count: int = 1, given=None):\n"
        "    one = Take(count=count).execute(given)\n    return one\n",
    )
    result = shell("run", ".", *options, "--json", code=2 if "lab" not in words else 4)

    assert all(word in result.err for word in words), result.err
    assert result.json["error"]["message"]


# ── operations that misbehave ─────────────────────────────────────────────────────────────────────

BAD = {
    "raises": "        numbers = {'a': 1}\n        one = numbers['b']\n        return one\n",
    "exits": "        import os\n        os._exit(3)\n        one = 1\n        return one\n",
    "killed": "        import os\n        os.kill(os.getpid(), 9)\n        one = 1\n"
    "        return one\n",
    "unpicklable": "        import threading\n        one = threading.Lock()\n        return one\n",
    "odd_error": "        raise OSError(2, 'no such thing', b'\\xff\\xfe'.decode('utf-8', "
    "'surrogateescape'))\n        one = 1\n        return one\n",
}


def operation(name: str, body: str, *, head: str = "", inputs: str = "") -> str:
    title = name.title().replace("_", "")
    return f"{head}class {title}:\n    def execute(self{inputs}):\n{body}"


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory, warm_shell: WarmShell) -> Iterator[BadRun]:
    """One execution in which nearly every operation misbehaves in its own way."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "here").mkdir()
    shell = Shell(folder / "home", folder / "here", warm_shell)
    operations = {name: operation(name, body) for name, body in BAD.items()}
    operations["too_few"] = (
        operation("too_few", "        a, b = 1, 2\n        return a, b\n")
        + "\n\nTooFew.execute = lambda self: (1,)\n"
    )
    operations["endless"] = operation(
        "endless",
        "        import subprocess, time\n"
        "        subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "        while True:\n            time.sleep(1)\n        one = 1\n        return one\n",
        head='# /// script\n# [tool.deepforge.resources]\n# time = "1s"\n# ///\n',
    )
    operations["leaves"] = operation(
        "leaves",
        "        import os, subprocess, time\n"
        "        subprocess.Popen(['sleep', '601'], start_new_session=True)\n"
        "        if os.fork() == 0:\n            if os.fork() == 0:\n"
        "                os.setsid()\n                time.sleep(602)\n            os._exit(0)\n"
        "        one = 1\n        return one\n",
    )
    operations["prints"] = operation(
        "prints",
        "        for number in range(200_000):\n            print('line', number)\n"
        "        one = 1\n        return one\n",
    )
    operations["bytes"] = operation(
        "bytes",
        "        import sys\n        sys.stdout.buffer.write(b'caf\\xe9 \\xff\\x00\\x1b[31m\\n')\n"
        "        one = 1\n        return one\n",
    )
    names = [*operations, "first"]
    calls = "".join(
        f"    {name}{', _' if name == 'too_few' else ''} = "
        f"{name.title().replace('_', '')}().execute()\n"
        for name in names
    )
    project(
        shell.folder,
        f"\n\ndef trial():\n{calls}    needs = Take().execute(raises)\n"
        f"    more = Take().execute(needs)\n    return {', '.join(names)}, more\n",
        **operations,
    )
    run = shell("run", ".", "--json", code=1, timeout_s=120)
    yield BadRun(shell, run.err, run.json, view_of(shell, run.json["execution"]))
    nothing_left(shell.home)


class BadRun:
    def __init__(
        self, shell: Shell, said: str, result: Mapping[str, Any], view: Mapping[str, Any]
    ) -> None:
        self.shell = shell
        self.said = said
        self.result = result
        self.jobs = {job["name"]: job for job in view["jobs"]}

    def failure(self, name: str) -> Mapping[str, Any]:
        job = self.jobs[name]
        assert job["status"] == "failed", (name, job)
        assert job["attempts"] == 1, "what an operation does wrong is not tried again"
        failure: Mapping[str, Any] = job["failure"]
        return failure

    def log(self, name: str) -> bytes:
        execution: str = self.result["execution"]
        return self.shell("executions", "logs", execution, name).data


def test_what_went_wrong_is_told_for_each_operation(bad: BadRun) -> None:
    assert bad.result["status"] == "failed"
    for name in (*BAD, "too_few", "endless"):
        assert bad.failure(name)["message"] in bad.said, name
    assert "executions rerun" in bad.said


def test_an_exception_shows_the_users_own_line(bad: BadRun) -> None:
    failure = bad.failure("raises")

    assert (failure["file"], failure["line"]) == ("operations/raises.py", 4)
    assert "KeyError: 'b'" in failure["traceback"]
    assert "one = numbers['b']" in failure["traceback"]
    assert "deepforge" not in failure["traceback"]
    assert "operations/raises.py:4" in bad.said


def test_a_process_that_ends_by_itself_is_told_apart_from_one_that_is_killed(bad: BadRun) -> None:
    exits, killed = bad.failure("exits"), bad.failure("killed")

    assert (exits["kind"], exits["exit_code"]) == ("exit", 3)
    assert (killed["kind"], killed["exit_code"]) == ("signal", -9)
    assert "memory" in killed["hint"]


def test_wrong_outputs_are_told_with_their_names(bad: BadRun) -> None:
    assert bad.failure("too_few")["kind"] == "outputs"
    unpicklable = bad.failure("unpicklable")
    assert unpicklable["kind"] == "serialization"
    assert "_thread.lock" in unpicklable["message"]
    assert "serializers.py" in unpicklable["hint"]


def test_an_error_that_no_text_can_hold_is_told(bad: BadRun) -> None:
    assert "no such thing" in bad.failure("odd_error")["message"]


def test_an_operation_without_an_end_is_stopped_at_its_limit(bad: BadRun) -> None:
    failure = bad.failure("endless")

    assert failure["kind"] == "time_limit"
    assert "1 s" in failure["message"]


def test_nothing_that_an_operation_left_behind_is_alive(bad: BadRun) -> None:
    assert bad.jobs["leaves"]["status"] == "succeeded"
    assert b"processes behind" in bad.log("leaves")
    for text in processes_of(bad.shell.home).values():
        assert "sleep" not in text


def test_200_000_lines_are_all_there_in_order(bad: BadRun) -> None:
    assert bad.log("prints") == b"".join(b"line %d\n" % number for number in range(200_000))


def test_bytes_that_are_no_text_are_kept_and_do_no_harm(bad: BadRun) -> None:
    assert bad.log("bytes") == b"caf\xe9 \xff\x00\x1b[31m\n"
    shown = [line for line in bad.said.splitlines() if line.startswith("bytes |")]
    assert len(shown) == 1
    assert "\x1b" not in shown[0]


def test_what_needs_a_failed_operation_is_skipped_and_all_else_finishes(bad: BadRun) -> None:
    found = {name: job["status"] for name, job in bad.jobs.items()}

    assert (found["needs"], found["more"]) == ("skipped", "skipped")
    assert found["first"] == "succeeded"
    assert "needs: skipped, because raises did not succeed" in bad.said
    succeeded = {name for name, status in found.items() if status == "succeeded"}
    assert {one["name"] for one in bad.result["artifacts"]} == succeeded


def test_a_rerun_runs_only_what_is_left(shell: Shell) -> None:
    count, gate = shell.folder / "count", shell.folder / "gate"
    flaky = operation(
        "flaky",
        f"        with open({str(count)!r}, 'a') as file:\n            file.write('f')\n"
        f"        one = open({str(gate)!r}).read()\n        return one\n",
        inputs=", part",
    )
    counted = operation(
        "counted",
        f"        with open({str(count)!r}, 'a') as file:\n            file.write('c')\n"
        "        one = 1\n        return one\n",
    )
    folder = project(
        shell.folder / "project",
        "\n\ndef trial():\n    before = Counted().execute()\n    aside = Counted().execute()\n"
        "    flaky = Flaky().execute(before)\n    behind = Take().execute(flaky)\n"
        "    return behind, aside\n",
        flaky=flaky,
        counted=counted,
    )
    failed = shell("run", folder, "--json", code=1)
    gate.write_text("open")
    again = shell("executions", "rerun", failed.json["execution"], "--json")

    assert states({"jobs": failed.json["jobs"]}) == {
        "before": "succeeded",
        "aside": "succeeded",
        "flaky": "failed",
        "behind": "skipped",
    }
    assert re.search(r"rerun \w{20}", failed.err)
    assert again.json["status"] == "succeeded"
    assert {job["name"]: job["cached"] for job in again.json["jobs"]} == {
        "before": True,
        "aside": True,
        "flaky": False,
        "behind": False,
    }
    assert sorted(count.read_text()) == ["c", "c", "f", "f"]


def test_a_cancel_ends_every_descendant(shell: Shell) -> None:
    stubborn = operation(
        "stubborn",
        "        import os, signal, subprocess, sys, time\n"
        "        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "        signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "        subprocess.Popen([sys.executable, '-c', 'import signal, time; "
        "signal.signal(15, signal.SIG_IGN); time.sleep(600)'], start_new_session=True)\n"
        "        print('ready', flush=True)\n        while True:\n            time.sleep(1)\n"
        "        one = 1\n        return one\n",
    )
    folder = project(
        shell.folder / "project",
        "\n\ndef trial():\n    one = Stubborn().execute()\n    two = Take().execute(one)\n"
        "    return two\n",
        stubborn=stubborn,
    )
    with serving(shell) as server:
        execution = server.client("run", folder, "--detach").out.strip()
        wait_until(lambda: b"ready" in server.client("executions", "logs", execution, "one").data)
        ended = server.client("executions", "cancel", execution, "--json")
        alive = [text for text in processes_of(shell.home).values() if "-c import signal" in text]

    assert ended.json["status"] == "cancelled"
    assert {job["status"] for job in ended.json["jobs"]} == {"cancelled"}
    assert alive == []


# ── storage that misbehaves ───────────────────────────────────────────────────────────────────────


def test_a_full_disk_says_what_to_free(shell: Shell) -> None:
    """Nothing that this command and its children write may grow beyond 8 MiB."""
    large = operation("large", "        one = bytes(20 * 2**20)\n        return one\n")
    folder = project(
        shell.folder / "project",
        "\n\ndef trial():\n    one = Large().execute()\n    two = First().execute()\n"
        "    return one, two\n",
        large=large,
    )
    limit = 8 * 2**20

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    with subprocess.Popen(
        shell.command("run", folder, "--json"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=shell.environ(),
        preexec_fn=limited,
    ) as run:
        output, error = run.communicate(timeout=60)
    result = json.loads(output.splitlines()[-1])
    failure = {job["name"]: job for job in view_of(shell, result["execution"])["jobs"]}["one"][
        "failure"
    ]

    assert run.returncode == 1, error
    assert states(result) == {"one": "failed", "two": "succeeded"}
    assert failure["kind"] == "storage_full", failure
    assert failure["hint"]
    assert failure["hint"] in error.decode()
    kept = [path for path in (shell.home / "storage").rglob("*") if path.is_file()]
    assert all(path.stat().st_size < limit for path in kept)


def test_data_that_were_changed_behind_our_back_are_never_used(shell: Shell) -> None:
    """One artifact is altered in its storage, one cut short, one removed."""
    for name in ("altered", "cut", "gone", "fine"):
        (shell.folder / name).write_bytes(pickle.dumps(name * 100))
        shell("artifacts", "put", shell.folder / name, "--name", name)
    objects = {
        path.read_bytes(): path for path in (shell.home / "storage").rglob("*") if path.is_file()
    }
    place = {
        name: objects[(shell.folder / name).read_bytes()] for name in ("altered", "cut", "gone")
    }
    for path in place.values():
        path.chmod(0o600)
    data = bytearray(place["altered"].read_bytes())
    data[50] ^= 1
    place["altered"].write_bytes(data)
    place["cut"].write_bytes(place["cut"].read_bytes()[:-7])
    place["gone"].unlink()
    folder = project(
        shell.folder / "project",
        "\n\ndef trial(altered=None, cut=None, gone=None, fine=None):\n"
        "    one = Take().execute(altered)\n    two = Take().execute(cut)\n"
        "    three = Take().execute(gone)\n    four = Take().execute(fine)\n"
        "    return one, two, three, four\n",
    )
    inputs = [f"--input={name}={name}" for name in ("altered", "cut", "gone", "fine")]
    result = shell("run", folder, *inputs, "--json", code=1)
    jobs = {job["name"]: job for job in view_of(shell, result.json["execution"])["jobs"]}

    assert states(result.json) == {
        "one": "failed",
        "two": "failed",
        "three": "failed",
        "four": "succeeded",
    }
    for name in ("one", "two"):
        assert jobs[name]["failure"]["kind"] == "corrupt", jobs[name]
        assert "part" in jobs[name]["failure"]["message"]
    assert jobs["three"]["failure"]["hint"]
    for name in ("altered", "cut", "gone"):
        target = shell.folder / f"{name}.out"
        error = shell("artifacts", "get", name, target, code=4 if name == "gone" else 1).err
        assert ("no object" if name == "gone" else "not what was stored") in error
        assert not target.exists()


# ── names ─────────────────────────────────────────────────────────────────────────────────────────

FRIENDLY = ['it\'s "here"', "naïve 模型 🚀", "-rf", "$(id)", "100%", "a;b&c|d", "null"]
HOSTILE = ["../x", "..", "a/../../b", "a\nb", "a\\b", "", " a", "x" * 101, "a\x1b[31m", "a@1"]


def test_names_that_look_dangerous_are_only_names(shell: Shell) -> None:
    with serving(shell) as server:
        client = server.client
        (shell.folder / "data").write_bytes(b"some data")
        for name in FRIENDLY:
            client("artifacts", "put", "data", f"--name={name}")
            assert client("artifacts", "get", "--", name, "-").data == b"some data"
        listed = client("artifacts", "list", "--json").json
        for name in HOSTILE:
            error = client("artifacts", "put", "data", f"--name={name}", code=2).err
            assert "\x1b" not in error
        for name in ("a b", "../lab", "a/b", "naïve", "", "a\nb"):
            refused = client(
                "storage", "add", "local", f"--folder={shell.folder}", "--", name, code=2
            )
            assert "letters" in refused.err
    assert {one["name"] for one in listed} == set(FRIENDLY)
    assert not list(shell.folder.parent.glob("**/x"))


def test_a_home_and_a_project_with_strange_names_work(shell: Shell, tmp_path: Path) -> None:
    odd = tmp_path / 'it\'s a "home"\n of 🚀 $(touch x); `id` %41 {a}'
    here = odd / "here"
    here.mkdir(parents=True)
    shell = replace(shell, home=odd / "home", folder=here)
    reads = operation(
        "reads",
        "        from pathlib import Path\n"
        "        root = Path(__file__).parents[1]\n"
        "        one = sorted(path.read_text() for path in (root / 'data').iterdir())\n"
        "        return one\n",
    )
    folder = project(
        here / "proj: ect",
        "\n\ndef trial():\n    one = Reads().execute()\n    return one\n",
        reads=reads,
    )
    (folder / "data").mkdir()
    names = ["it's", 'say "hi"', "naïve 🚀", "a b  c", "$HOME", "%41", "two\nlines", "-rf"]
    for name in names:
        (folder / "data" / name).write_text(name)
    (folder / "deepforge.toml").write_text('name = "it\'s 🚀"\n')
    try:
        result = shell("run", folder, "--json")
        data = shell("artifacts", "get", "it's 🚀/one", "-").data
    finally:
        nothing_left(shell.home)

    assert result.json["status"] == "succeeded"
    assert pickle.loads(data) == sorted(names)
    (folder / "deepforge.toml").write_text('name = "../x"\n')
    assert "'../x'" in shell("run", folder, code=2).err
    (folder / "deepforge.toml").write_text('name = "trial"\n')
    (folder / "data" / "a\\b").write_text("x")
    assert "backslash" in shell("run", folder, code=2).err
