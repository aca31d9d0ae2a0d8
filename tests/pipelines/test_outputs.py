"""The names of what `execute` returns."""

from __future__ import annotations

import ast
from textwrap import indent

import pytest

from deepforge.pipelines.finding import Findings
from deepforge.pipelines.outputs import read_outputs


def outputs(body: str) -> tuple[tuple[str, ...] | None, list[str]]:
    [function] = ast.parse("def execute(self):\n" + indent(body, "    ")).body
    assert isinstance(function, ast.FunctionDef)
    findings = Findings("x.py")
    return read_outputs(function, findings), [
        f"{one.line}: {one.message}" for one in findings.all()
    ]


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("pass", ()),
        ("return", ()),
        ("return None", ()),
        ("if a: return\nreturn None", ()),
        ("return ()", ()),
        ("raise ValueError", ()),
        ("return model", ("model",)),
        ("return self.model", ("model",)),
        ("return other.model", ("result",)),
        ("return f(x)", ("result",)),
        ("return [a, b]", ("result",)),
        ("return a, b", ("a", "b")),
        ("return (a,)", ("a",)),
        ("return f(), a, g(), h()", ("result", "a", "result_1", "result_2")),
        ("return f(), result", ("result_1", "result")),
        ("return (x := 3), 4", ("x", "result")),
        ("if a: return 1, b\nreturn c, 2", ("c", "b")),
        ("if a: return b, 1\nreturn c, d", ("b", "d")),
        ("if a: return b, 1\nreturn 2, b", ("b", "result")),
        ("if a: return None, None\nreturn b, c", ("b", "c")),
        ("return (a, b) if x else (c, d) if y else (e, f)", ("a", "b")),
        ("return a if x else b", ("result",)),
        ("if x: return\nreturn a", ("a",)),
        ("if x: return None\nreturn a", ("a",)),
        ("for x in y:\n  with z:\n    try: return a, b\n    finally: pass", ("a", "b")),
        ("def inner(): return 1, 2, 3\nreturn a", ("a",)),
        ("def inner(): yield 1\nreturn a", ("a",)),
        ("class Inner:\n  def method(self): return 1, 2\nreturn a", ("a",)),
        ("f = lambda: (yield)\nreturn a", ("a",)),
    ],
)  # fmt: skip
def test_outputs_are_named_after_what_is_returned(body: str, names: tuple[str, ...]) -> None:
    assert outputs(body) == (names, [])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return a, a", "2: two outputs of one name: `a`"),
        ("return a, *b", "2: a starred value hides how many outputs there are"),
        ("if x: return a, b\nreturn a", "3: `execute` returns 1 value here and 2 values on line 2"),
        ("if x: return\nreturn a, b", "2: `execute` returns nothing here and 2 values on line 3"),
        ("return (a, b) if x else c", "2: `execute` returns 1 value here and 2 values on line 2"),
        ("yield a", "2: `execute` is a generator (it has `yield`)"),
        ("x = yield", "2: `execute` is a generator (it has `yield`)"),
        ("yield from a", "2: `execute` is a generator (it has `yield`)"),
    ],
)
def test_outputs_that_cannot_be_told_are_a_finding(body: str, message: str) -> None:
    assert outputs(body) == (None, [message])
