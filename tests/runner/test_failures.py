"""Bad days of an operation: each ends in a clear failure that says what to do, and nothing hangs."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from pathlib import Path

import pytest

from deepforge.runner.protocol import Argument, Input, Limits, read_result
from runner.far_side import FarSide, digest, lives, pickled, until

MIB = 1024 * 1024


def test_an_exception_shows_the_users_own_lines_and_no_others(far: FarSide) -> None:
    files = {
        "operations/op.py": """
            from utils.deep import divide

            class Op:
                def execute(self):
                    try:
                        return divide(1, 0)
                    except ZeroDivisionError as error:
                        raise ValueError("bad data") from error
        """,
        "utils/deep.py": "def divide(a, b):\n    return a / b\n",
    }
    ended = far.run_op(files)

    failure = ended.failure
    assert (1, "exception", "builtins.ValueError") == (ended.code, failure.kind, failure.type)
    assert "ValueError: bad data" == failure.message
    assert ("operations/op.py", 9) == (failure.file, failure.line)
    assert failure.traceback is not None
    lines = [line for line in failure.traceback.splitlines() if "^" not in line and "~" not in line]
    assert lines == [
        "Traceback (most recent call last):",
        '  File "operations/op.py", line 7, in execute',
        "    return divide(1, 0)",
        '  File "utils/deep.py", line 2, in divide',
        "    return a / b",
        "ZeroDivisionError: division by zero",
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        "Traceback (most recent call last):",
        '  File "operations/op.py", line 9, in execute',
        '    raise ValueError("bad data") from error',
        "ValueError: bad data",
    ]
    assert failure.traceback.encode() == ended.log
    assert not failure.transient


def test_a_message_may_be_long_and_hold_half_characters(far: FarSide) -> None:
    op = "class Op:\n    def execute(self): raise ValueError('\\udcff' + 'x' * 1_000_000)\n"

    failure = far.run_op(op).failure

    assert failure.message.startswith("ValueError: \\udcffxxx")
    assert "characters left out" in failure.message
    assert 100_000 < len(failure.message) < 300_000


def test_nobody_listening_to_the_runner_changes_nothing(far: FarSide) -> None:
    process = far.start(far.job("class Op:\n    def execute(self): print(1); 1 / 0\n"))
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    process.wait(timeout=60)

    assert 1 == process.returncode
    assert "exception" == read_result((far.store / "result.json").read_bytes()).failure.kind  # type: ignore[union-attr]


def test_wrong_attributes_are_told_without_our_own_frames(far: FarSide) -> None:
    op = "class Op:\n    def __init__(self, size): pass\n    def execute(self): pass\n"

    failure = far.run_op(op, arguments=[Argument("hidden", literal="3")]).failure

    assert "exception" == failure.kind
    assert "hidden" in failure.message
    assert "deepforge" not in (failure.traceback or "")


@pytest.mark.parametrize(
    ("files", "message", "file", "line"),
    [
        ({"operations/op.py": "x = 1\nclass Op\n"}, "SyntaxError", "operations/op.py", 2),
        ({"operations/op.py": "\nimport not_installed\n"}, "not_installed", "operations/op.py", 2),
        ({"operations/op.py": "class Other: pass\n"}, "operations/op.py has no Op", None, None),
        ({"operations/op.py": "\n\n1 / 0\n"}, "ZeroDivisionError", "operations/op.py", 3),
        ({"operations/op.py": "", "serializers.py": "1 / 0"}, "ZeroDivision", "serializers.py", 1),
        ({"elsewhere.py": ""}, "No module named 'operations'", None, None),
    ],
)
def test_code_that_cannot_be_imported(
    far: FarSide, files: dict[str, str], message: str, file: str | None, line: int | None
) -> None:
    failure = far.run_op(files).failure

    assert "import" == failure.kind
    assert message in failure.message
    if file is not None:
        assert (file, line) == (failure.file, failure.line)
    assert str(far.cache) not in failure.message + (failure.traceback or "")
    assert "deepforge" not in (failure.traceback or "")
    if message == "not_installed":
        assert "requirements.txt" in (failure.hint or "")


@pytest.mark.parametrize(
    ("way", "kind", "code", "said"),
    [
        ("os._exit(3)", "exit", 3, "exit code 3"),
        ("os._exit(0)", "exit", 0, "exit code 0"),
        ("sys.exit(4)", "exit", 4, "sys.exit(4)"),
        ("sys.exit()", "exit", 0, "sys.exit(None)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal", -9, "SIGKILL"),
        ("os.abort()", "signal", -6, "SIGABRT"),
        ("os.closerange(1, 100); 1 / 0", "exception", None, "ZeroDivisionError"),
    ],
)
def test_a_process_that_ends_by_itself(
    far: FarSide, way: str, kind: str, code: int | None, said: str
) -> None:
    op = f"""
        import os, signal, sys
        class Op:
            def execute(self):
                print("last words", flush=True)
                {way}
    """
    ended = far.run_op(op)

    assert (1, kind, code) == (ended.code, ended.failure.kind, ended.failure.exit_code)
    assert said in ended.failure.message
    assert ended.log.startswith(b"last words\n")
    if code == -9:
        assert "memory" in (ended.failure.hint or "")
    if code == -6:
        assert b'operations/op.py", line 6 in execute' in ended.log


def test_too_few_and_too_many_outputs_are_counted(far: FarSide) -> None:
    for returned, said in (("(1,)", "1 value"), ("1, 2, 3", "3 values"), ("None", "None")):
        far.again()
        op = f"class Op:\n    def execute(self): return {returned}\n"

        failure = far.run_op(op, outputs=["model", "history"]).failure

        assert "outputs" == failure.kind
        assert (
            f"Op.execute returned {said}, but 2 outputs are declared: model, history."
            == failure.message
        )


def test_what_cannot_be_stored_names_its_type_and_the_cure(far: FarSide) -> None:
    op = """
        import threading
        class Op:
            def execute(self):
                return threading.Lock()
    """
    failure = far.run_op(op).failure

    assert "serialization" == failure.kind
    assert "_thread.lock" in failure.message
    assert "serializers.py" in (failure.hint or "")
    assert not (far.store / "outputs").exists()


def test_an_error_of_a_registered_function_shows_where(far: FarSide) -> None:
    files = {
        "serializers.py": """
            from deepforge.serialization import register
            def dump(value, file):
                raise RuntimeError("cannot write this")
            register(frozenset, dump, None)
        """,
        "operations/op.py": "class Op:\n    def execute(self): return frozenset()\n",
    }
    failure = far.run_op(files).failure

    assert ("serialization", "serializers.py", 4) == (failure.kind, failure.file, failure.line)
    assert "deepforge" not in (failure.traceback or "")


def test_an_input_whose_type_is_not_registered_here(far: FarSide) -> None:
    far.put("net", b"weights")
    net = Input(
        "net",
        grant=far.granted("net", "GET"),
        size_bytes=7,
        digest=digest(b"weights"),
        type="models.Net",
        format="registered",
    )

    failure = far.run_op("class Op:\n    def execute(self, net): pass\n", inputs=[net]).failure

    assert "input" == failure.kind
    assert "Input net cannot be loaded" in failure.message
    assert "models.Net" in failure.message
    assert "register(Net, dump, load)" in (failure.hint or "")


def test_an_input_that_cannot_be_unpickled(far: FarSide) -> None:
    data = pickled(Path)[:-5]
    far.put("net", data)
    net = Input("net", None, far.granted("net", "GET"), len(data), digest(data), "x.Y", "pickle")

    failure = far.run_op("class Op:\n    def execute(self, net): pass\n", inputs=[net]).failure

    assert "input" == failure.kind
    assert "Input net cannot be loaded: A value of type x.Y cannot be read" in failure.message


@pytest.mark.parametrize("changed", [b"altered", b"short", b""])
def test_an_input_that_is_not_what_was_stored_is_never_loaded(far: FarSide, changed: bytes) -> None:
    given = far.given("net", "what was stored")
    far.put("inputs/net", changed)

    ended = far.run_op("class Op:\n    def execute(self, net): pass\n", inputs=[given])

    assert "corrupt" == ended.failure.kind
    assert "inputs/net" in ended.failure.message
    assert digest(changed) in ended.failure.message
    assert not ended.failure.transient


def test_200_000_lines_arrive_whole_and_in_order(far: FarSide) -> None:
    op = """
        import os, sys
        class Op:
            def execute(self):
                for number in range(100_000):
                    print("line", number)
                    print("line", number, file=sys.stderr)
                return open("/proc/%d/status" % os.getppid()).read()
    """
    ended = far.run_op(op, limits=Limits(log_bytes=8 * MIB))

    assert 0 == ended.code, ended.stderr
    expected = b"".join(b"line %d\nline %d\n" % (n, n) for n in range(100_000))
    assert expected == ended.log
    log = ended.result.log
    assert log is not None
    assert (200_000, len(expected), 0) == (log.lines, log.size_bytes, log.dropped_bytes)
    assert digest(expected) == log.digest
    peak_kib = int(ended.output().partition("VmHWM:")[2].split()[0])
    assert peak_kib < 60 * 1024


def test_a_log_beyond_its_limit_is_counted(far: FarSide) -> None:
    op = """
        class Op:
            def execute(self):
                for _ in range(1000):
                    print("x" * 99)
    """
    ended = far.run_op(op, limits=Limits(log_bytes=10_000))

    kept, _, said = ended.log.partition(b"[deepforge]")
    assert (b"x" * 99 + b"\n") * 100 == kept
    assert b"90000 more bytes were printed" in said
    assert ended.result.log is not None
    assert 90_000 == ended.result.log.dropped_bytes


def test_bytes_that_are_not_utf8_survive(far: FarSide) -> None:
    op = r"""
        import os, sys
        class Op:
            def execute(self):
                os.write(1, b"\xff\xfe raw \x00\n")
                print("Grüße \udcff 🎈")
                sys.stderr.buffer.write(b"\x80\n")
    """
    far.environment["LC_ALL"] = "C"

    ended = far.run_op(op)

    assert 0 == ended.code, ended.stderr
    assert b"\xff\xfe raw \x00\nGr\xc3\xbc\xc3\x9fe \\udcff \xf0\x9f\x8e\x88\n\x80\n" == ended.log


def test_a_progress_bar_leaves_its_last_state(far: FarSide) -> None:
    op = """
        import sys
        class Op:
            def execute(self):
                for percent in range(101):
                    print("\\r%d%%" % percent, end="", file=sys.stderr, flush=True)
                print(file=sys.stderr)
                print("done")
    """
    ended = far.run_op(op)

    assert ended.log.splitlines()[-2:] == [b"100%", b"done"] or ended.log.endswith(
        b"\r100%\ndone\n"
    )
    assert len(ended.log) < 100


def test_children_left_behind_are_stopped_and_it_is_said(far: FarSide) -> None:
    """One in the same group, one that made itself a daemon and ignores SIGTERM."""
    op = """
        import os, signal, subprocess, sys, time
        class Op:
            def execute(self):
                one = subprocess.Popen(["sleep", "300"])
                reader, writer = os.pipe()
                if os.fork() == 0:
                    os.setsid()
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    if os.fork() == 0:
                        os.write(writer, b"%d" % os.getpid())
                        time.sleep(300)
                    os._exit(0)
                os.wait()
                return one.pid, int(os.read(reader, 100))
    """
    began = time.monotonic()
    ended = far.run_op(op)

    assert 0 == ended.code, ended.stderr
    assert not any(lives(pid) for pid in ended.output())
    assert b"left 2 processes behind" in ended.log
    assert b"sleep" in ended.log
    assert time.monotonic() - began < 15


def test_the_time_limit_ends_even_what_ignores_being_asked(far: FarSide) -> None:
    op = """
        import os, signal, subprocess, time
        class Op:
            def execute(self):
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                print(os.getpid(), subprocess.Popen(["sleep", "300"]).pid, flush=True)
                while True:
                    time.sleep(0.01)
    """
    ended = far.run_op(op, limits=Limits(time_s=0.6))

    assert (1, "time_limit") == (ended.code, ended.failure.kind)
    assert "0.6 s" in ended.failure.message
    assert not any(lives(int(pid)) for pid in ended.log.split(b"\n")[0].split())


def test_a_cancel_ends_every_descendant(far: FarSide) -> None:
    op = """
        import os, subprocess, time
        class Op:
            def execute(self):
                subprocess.Popen(["sleep", "300"])
                if os.fork() == 0:
                    os.setsid()
                    if os.fork() == 0:
                        time.sleep(300)
                    os._exit(0)
                time.sleep(0.1)
                open("began", "w").write(str(os.getpid()))
                time.sleep(300)
    """
    process = far.start(far.job(op))
    began = far.folder / "work/began"
    until(lambda: began.exists() and began.read_text())
    pid = int(began.read_text())
    assert lives(pid)
    process.send_signal(signal.SIGTERM)
    ended = far.ended(process)

    assert (130, "cancelled") == (ended.code, ended.result.status)
    assert ended.result.failure is None
    assert not lives(pid)
    assert not [path for path in Path("/proc").glob("[0-9]*") if _works_in(path, far.folder)]


def _works_in(process: Path, folder: Path) -> bool:
    try:
        return (process / "cwd").readlink().is_relative_to(folder)
    except OSError:
        return False


def test_an_operation_does_not_outlive_its_runner(far: FarSide) -> None:
    op = """
        import os, time
        class Op:
            def execute(self):
                open("pids", "w").write("%d %d" % (os.getpid(), os.getppid()))
                time.sleep(300)
    """
    process = far.start(far.job(op))
    pids = far.folder / "work/pids"
    until(lambda: pids.exists() and pids.read_text())
    operation, runner = (int(pid) for pid in pids.read_text().split())
    os.kill(runner, signal.SIGKILL)
    far.ended(process)

    until(lambda: not lives(operation))


def test_a_thread_that_never_ends_does_not_hold_up_a_finished_operation(tmp_path: Path) -> None:
    far = FarSide(tmp_path, "fork", settings=("deepforge.runner.supervise.LINGER_S=0.3",))
    op = """
        import threading, time
        class Op:
            def execute(self):
                threading.Thread(target=time.sleep, args=(300,)).start()
                return "there"
    """
    ended = far.run_op(op)

    assert "there" == ended.output()
    assert b"its process did not end" in ended.log


def test_a_full_disk_of_the_machine(far: FarSide) -> None:
    """No file may be larger than 1 MiB, as a process that has no quota left sees it."""
    op = "class Op:\n    def execute(self): return b'x' * 2_000_000\n"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, before[1]))
    try:
        ended = far.run_op(op)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert (1, "storage_full") == (ended.code, ended.failure.kind)
    assert "room" in ended.failure.message
    assert not list(far.folder.glob("output-*"))


def test_names_that_are_hard_to_spell(tmp_path: Path) -> None:
    far = FarSide(tmp_path / 'it\'s a "place"\n with ../ 🎈 and %s', "fresh")

    ended = far.run_op(
        "class Op:\n    def execute(self, größe): return größe\n",
        inputs=[far.given("größe", "x")],
        outputs=["größe"],
    )

    assert 0 == ended.code, ended.stderr
    assert "x" == ended.output("größe")


def test_an_interpreter_that_is_not_there(make_far: object, tmp_path: Path) -> None:
    far = FarSide(tmp_path, "fresh")
    far.environment["DEEPFORGE_RUNNER_PYTHON"] = "/nowhere/python3"

    ended = far.run_op("class Op: pass")

    assert "runner" == ended.failure.kind
    assert "/nowhere/python3" in ended.failure.message


def test_endless_recursion_and_unshowable_exceptions_are_still_told(far: FarSide) -> None:
    op = """
        class Odd(Exception):
            def __str__(self):
                raise RuntimeError("no")
        class Op:
            def __init__(self, deep):
                self.deep = deep
            def execute(self):
                if self.deep:
                    return self.execute()
                raise Odd()
    """
    deep = far.run_op(op, arguments=[Argument("deep", literal="True")]).failure
    far.again()
    odd = far.run_op(op, arguments=[Argument("deep", literal="False")]).failure

    assert "RecursionError" in deep.message
    assert "Odd" in odd.message
    assert "operations.op.Odd" == odd.type


def test_a_job_file_that_is_none(far: FarSide) -> None:
    process = far.start(far.job(""))
    far.ended(process)
    far.again()
    (far.folder / "job.json").write_text("{}")
    import subprocess

    found = subprocess.run(
        [sys.executable, str(far.pyz)], cwd=far.folder, capture_output=True, text=True
    )

    assert 1 == found.returncode
    assert "protocol" in found.stderr
    assert "Traceback" not in found.stderr
