"""An operation is called as its author expects, however its process is started."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from deepforge.runner import call
from deepforge.runner.protocol import Argument, Input
from runner.far_side import FarSide, digest

ECHO = """
    class Op:
        def __init__(self, **attributes):
            self.attributes = attributes

        def execute(self, **inputs):
            return self.attributes, inputs
"""


def test_attributes_come_by_keyword_as_the_python_values_they_were_written_as(
    far: FarSide,
) -> None:
    values = {
        "number": 3,
        "ratio": 1e-4,
        "text": 'it\'s "quoted",\n../ \\ and 🎈',
        "nothing": None,
        "shape": (1, (2, 3)),
        "labels": {1: "one", (2,): b"\x00\xff"},
        "few": {1, 2},
        "none_at_all": set(),
    }
    arguments = [Argument(name, literal=repr(value)) for name, value in values.items()]

    ended = far.run_op(ECHO, arguments=arguments, outputs=["attributes", "inputs"])

    assert ended.code == 0, ended.stderr
    assert values == ended.output("attributes")
    assert {} == ended.output("inputs")


def test_an_attribute_may_be_long(far: FarSide) -> None:
    """Longer than what a pipe takes, or one argument of a command."""
    text = "é'\n" * 200_000
    op = """
        class Op:
            def __init__(self, text):
                self.text = text
            def execute(self):
                return self.text
    """
    ended = far.run_op(op, arguments=[Argument("text", literal=repr(text))])

    assert text == ended.output()


def test_inputs_come_by_keyword_and_unconnected_ones_are_none(far: FarSide) -> None:
    inputs = [far.given("images", [1, 2.5, "x"]), far.given("größe", 4), Input("mask")]

    ended = far.run_op(ECHO, inputs=inputs, outputs=["attributes", "inputs"])

    assert {"images": [1, 2.5, "x"], "größe": 4, "mask": None} == ended.output("inputs")


def test_variadic_parts_come_in_order_behind_the_others(far: FarSide) -> None:
    op = """
        class Op:
            def execute(self, first, /, second, *parts, last):
                return [first, second, *parts, last]
    """
    inputs = [
        far.given("b", "part 1", position=1),
        far.given("a", "part 0", position=0),
        far.given("second", 2),
        far.given("last", "end"),
        far.given("first", 1),
    ]

    ended = far.run_op(op, inputs=inputs)

    assert [1, 2, "part 0", "part 1", "end"] == ended.output()


def test_a_single_output_takes_the_whole_value_and_no_output_takes_none(far: FarSide) -> None:
    op = "class Op:\n    def execute(self): return (1, 2)\n"

    whole = far.run_op(op)
    assert (1, 2) == whole.output()
    assert "builtins.tuple" == whole.result.outputs[0].type

    far.again()
    none = far.run_op(op, outputs=[])
    assert 0 == none.code
    assert [] == none.result.outputs


def test_resources_are_called_and_passed_as_attributes(far: FarSide) -> None:
    files = {
        "operations/op.py": """
            class Op:
                def __init__(self, model):
                    self.model = model
                def execute(self):
                    return self.model
        """,
        "resources/net.py": "def net(layers=1):\n    return ['layer'] * layers\n",
    }
    model = Argument(
        "model", resource_module="resources.net", resource_name="net", arguments={"layers": "2"}
    )

    ended = far.run_op(files, arguments=[model])

    assert ["layer", "layer"] == ended.output()


def test_registered_types_are_written_and_read_by_the_project(far: FarSide) -> None:
    """A base class is registered, the value's own class is derived from it."""
    files = {
        "serializers.py": """
            from deepforge.serialization import register
            from utils.shapes import Shape
            def dump(shape, file):
                with open(file.name, "w") as named:
                    named.write(shape.name)
            def load(file):
                return Shape(file.read().decode())
            register(Shape, dump, load)
        """,
        "utils/shapes.py": """
            class Shape:
                def __init__(self, name):
                    self.name = name
                    self.lock = __import__("threading").Lock()
            class Round(Shape):
                pass
        """,
        "operations/op.py": """
            from utils.shapes import Round
            class Op:
                def execute(self, before=None):
                    return Round((before.name if before else "") + "circle")
        """,
    }
    first = far.run_op(files)
    (written,) = first.result.outputs
    assert ("utils.shapes.Round", "registered") == (written.type, written.format)

    far.again()
    data = (far.store / "outputs/result").read_bytes()
    assert b"circle" == data
    far.put("before", data)
    before = Input(
        "before",
        grant=far.granted("before", "GET"),
        size_bytes=len(data),
        digest=digest(data),
        type=written.type,
        format=written.format,
    )
    second = far.run_op(files, inputs=[before])

    assert 0 == second.code, second.stderr
    assert b"circlecircle" == (far.store / "outputs/result").read_bytes()


def test_the_process_is_clean(far: FarSide) -> None:
    """Nothing of ours in the environment, byte code is kept, input is empty, nothing is open."""
    op = """
        import os, sys
        class Op:
            def execute(self):
                import utils.place
                return {
                    "ours": [name for name in os.environ if name.startswith("DEEPFORGE")],
                    "bytecode": sys.dont_write_bytecode,
                    "backend": os.environ["MPLBACKEND"],
                    "cwd": os.getcwd(),
                    "files": os.listdir(),
                    "stdin": sys.stdin.read(),
                    "first": sys.path[0] == os.path.dirname(os.path.dirname(utils.place.__file__)),
                    "leads": os.getsid(0) == os.getpid() == os.getpgrp(),
                    "open": [n for n in range(5, 64) if self.is_open(n)],
                    "main": vars(sys.modules["__main__"]).get("__file__"),
                    "argv": sys.argv,
                    "threads": len(os.listdir("/proc/self/task")),
                }
            def is_open(self, number):
                try:
                    return os.readlink("/proc/self/fd/%d" % number) != "/dev/null"
                except OSError:
                    return False
    """
    far.environment |= {"PYTHONDONTWRITEBYTECODE": "1", "DEEPFORGE_SECRET_KEY": "hush"}

    ended = far.run_op({"operations/op.py": op, "utils/place.py": ""})

    assert 0 == ended.code, ended.stderr
    assert ended.output() == {
        "ours": [],
        "bytecode": False,
        "backend": "Agg",
        "cwd": str(far.folder / "work"),
        "files": [],
        "stdin": "",
        "first": True,
        "leads": True,
        "open": [],
        "main": None,
        "argv": ["operations/op.py"],
        "threads": 1,
    }
    assert list(far.cache.glob("code/*/operations/__pycache__/op.*.pyc"))


def test_folders_of_the_project_win_over_installed_packages_of_the_same_name(
    far: FarSide, tmp_path: Path
) -> None:
    installed = tmp_path / "site"
    (installed / "utils").mkdir(parents=True)
    (installed / "utils" / "__init__.py").write_text("")
    far.environment["PYTHONPATH"] = str(installed)
    files = {
        "operations/op.py": "import utils.mine\nclass Op:\n    def execute(self): return 1\n",
        "utils/mine.py": "",
    }

    ended = far.run_op(files)

    assert 0 == ended.code, ended.stderr


def test_exit_functions_and_threads_end_as_in_any_interpreter(far: FarSide) -> None:
    op = """
        import atexit, threading, time
        def late():
            time.sleep(0.1)
            print("thread done")
        class Op:
            def execute(self):
                atexit.register(print, "goodbye")
                threading.Thread(target=late).start()
                return 1
    """
    ended = far.run_op(op)

    assert 0 == ended.code
    assert b"thread done\ngoodbye\n" == ended.log


def test_multiprocessing_works_within_an_operation(far: FarSide) -> None:
    op = """
        import multiprocessing
        def square(x):
            return x * x
        class Op:
            def execute(self):
                found = []
                for way in ("fork", "spawn"):
                    with multiprocessing.get_context(way).Pool(2) as pool:
                        found.append(pool.map(square, [1, 2, 3]))
                return found
    """
    ended = far.run_op(op)

    assert 0 == ended.code, ended.stderr
    assert [[1, 4, 9], [1, 4, 9]] == ended.output()


def test_a_job_without_a_cache_runs_too(far: FarSide) -> None:
    far.environment["DEEPFORGE_RUNNER_CACHE"] = ""

    ended = far.run_op("class Op:\n    def execute(self): return 'here'\n")

    assert "here" == ended.output()
    assert not far.cache.exists()


def test_arrays_are_stored_without_pickle(far: FarSide) -> None:
    pytest.importorskip("numpy")
    op = """
        import numpy
        class Op:
            def execute(self, given):
                return given * 2, numpy.array([object()] * 0 + [None, "x"], dtype=object)
    """
    import numpy

    ended = far.run_op(
        op, inputs=[far.given("given", numpy.arange(6.0).reshape(2, 3))], outputs=["twice", "mixed"]
    )

    assert 0 == ended.code, ended.stderr
    assert ["npy", "pickle"] == [one.format for one in ended.result.outputs]
    assert [[0, 2, 4], [6, 8, 10]] == ended.output("twice").tolist()


def test_what_is_written_to_low_descriptors_is_no_report(far: FarSide) -> None:
    op = """
        import os
        class Op:
            def execute(self):
                for number in range(3, 20):
                    try:
                        os.write(number, b"{}\\n")
                    except OSError:
                        pass
                return "done"
    """
    ended = far.run_op(op)

    assert 0 == ended.code, ended.stderr
    assert "done" == ended.output()


def test_forks_do_not_draw_the_same_numbers(tmp_path: Path) -> None:
    drawn = []
    for name in "ab":
        far = FarSide(tmp_path / name, "fork")
        ended = far.run_op(
            "import random\nclass Op:\n    def execute(self): return random.random()\n"
        )
        assert 0 == ended.code, ended.stderr
        drawn.append(ended.output())

    assert drawn[0] != drawn[1]


def test_an_operation_that_kills_who_started_it_is_told_so(tmp_path: Path) -> None:
    far = FarSide(tmp_path, "fork")
    op = """
        import os, signal, time
        class Op:
            def execute(self):
                os.kill(os.getppid(), signal.SIGKILL)
                time.sleep(60)
    """
    ended = far.run_op(op)

    assert ended.result.failure is not None
    assert "signal" == ended.result.failure.kind
    assert "the process that had started it" in (ended.result.failure.hint or "")


def test_the_result_says_where_it_ran_and_how_long(far: FarSide) -> None:
    ended = far.run_op("class Op:\n    def execute(self): return 1\n")

    result = ended.result
    assert {"fetch", "run", "store"} == set(result.seconds)
    assert platform.python_version() == result.environment["python"]
    assert result.started_at is not None
    assert result.ended_at is not None
    assert result.started_at < result.ended_at
    assert "" == ended.stderr


def test_reports_are_json_though_the_library_is_not_imported_for_them() -> None:
    odd = '"quoted" \\ back, \n\r\t\0\x1f\x7f, é, \u2028, 🎈'
    report = {"outputs": [(odd, "module.Class", "npy")], "failure": None, odd: {"code": -9}}

    assert json.loads(call._json(report)) == json.loads(json.dumps(report))
    half = call._json("half: \udc80").encode("utf-8", "backslashreplace")
    assert json.loads(half) == "half: \udc80"
