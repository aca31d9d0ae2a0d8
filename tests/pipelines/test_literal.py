"""Values as literal text."""

from __future__ import annotations

import ast
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given

from deepforge.pipelines.literal import literal_text, read_literal, spell
from pipelines.samples import VALUES


@given(VALUES)
def test_what_is_spelled_reads_back_as_the_same_value(value: Any) -> None:
    text = spell(value)

    assert ast.literal_eval(text) == value
    assert type(ast.literal_eval(text)) is type(value)
    assert spell(read_literal(text)) == text


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, complex(0, math.inf), [1, (math.nan,)], {1: math.inf}]
)
def test_nan_and_infinity_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="NaN and infinity"):
        spell(value)


@pytest.mark.parametrize(
    "value", [..., object(), range(3), bytearray(b"x"), 1 << 20_000], ids=range(5)
)
def test_what_no_literal_can_be_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"literal|digits"):
        spell(value)


def test_nesting_has_an_end() -> None:
    value: list[Any] = []
    for _ in range(5000):
        value = [value]

    with pytest.raises(ValueError, match="nested too deeply"):
        spell(value)
    with pytest.raises(ValueError, match="not a Python literal"):
        read_literal("-" * 5000 + "1")


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("0x10", "16"),
        ("-  1", "-1"),
        ("'a' 'b'", "'ab'"),
        ("set()", "set()"),
        ("{'b', 'a'}", "{'a', 'b'}"),
        ("1 + 2j", "(1+2j)"),
        ("  (1,)  ", "(1,)"),
    ],
)
def test_equal_values_have_one_text(text: str, spelled: str) -> None:
    assert spell(read_literal(text)) == spelled


@pytest.mark.parametrize(
    "text", ["a", "f()", "1 + 1", "f'{1}'", "[x for x in y]", "a.b", "{**{}}", "[*[]]", "1e999"]
)
def test_expressions_are_not_literals(text: str) -> None:
    with pytest.raises(ValueError, match=r"literal|infinity"):
        literal_text(ast.parse(text, mode="eval").body)


def test_sets_are_spelled_alike_in_every_process() -> None:
    code = "from deepforge.pipelines.literal import spell; print(spell({'a', 'b', 'c', 1, b'x'}))"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in (1, 2, 3)
    }

    assert seen == {b"{'a', 'b', 'c', 1, b'x'}\n"}
