"""Types as annotations say them."""

from __future__ import annotations

from typing import Any

import pytest

from deepforge.pipelines.annotation import fits, from_json, from_text


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (1, "int"),
        (1, "float"),
        (1.5, "float"),
        (1, "complex"),
        ("a", "str"),
        (b"a", "bytes"),
        (True, "bool"),
        (None, "None"),
        (None, "int | None"),
        (None, "Optional[int]"),
        ("a", "typing.Union[int, str]"),
        ("a", "'int | str'"),
        ([1], "list"),
        ([1], "list[int]"),
        ((1, "a"), "tuple[int, str]"),
        ((1, 2, 3), "tuple[int, ...]"),
        ((), "tuple[()]"),
        ([1], "Sequence[int]"),
        ((1,), "collections.abc.Sequence[int]"),
        ({1: "a"}, "dict[int, str]"),
        ({1}, "set[int]"),
        ({1}, "frozenset[int]"),
        ("sgd", "Literal['adam', 'sgd']"),
        (3, "Annotated[int, 'a size']"),
        (3, "Any"),
        (3, "object"),
        (3, "np.ndarray"),
        (3, "not a type at all"),
        ([[1], [2]], "list[list[int]]"),
    ],
)
def test_values_of_the_type_fit(value: Any, annotation: str) -> None:
    assert fits(value, annotation)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        ("1", "int"),
        (1.0, "int"),
        (True, "int"),
        (True, "float"),
        (1, "bool"),
        (1, "str"),
        ("a", "bytes"),
        (None, "int"),
        (0, "None"),
        ("a", "int | None"),
        ("a", "Optional[int]"),
        ([1, "a"], "list[int]"),
        ((1,), "list[int]"),
        ([1], "tuple[int, ...]"),
        ((1, 2, 3), "tuple[int, str]"),
        ((1,), "tuple[()]"),
        ({"a": 1}, "dict[int, int]"),
        ({1: "a"}, "Mapping[int, int]"),
        ("x", "Literal['adam', 'sgd']"),
        (1, "Literal[True]"),
        ([["a"]], "list[list[int]]"),
    ],
)
def test_values_of_another_type_do_not(value: Any, annotation: str) -> None:
    assert not fits(value, annotation)


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("128", "int", 128),
        (" -3 ", "int", -3),
        ("1e-3", "float", 0.001),
        ("1", "float", 1.0),
        ("1+2j", "complex", 1 + 2j),
        ("true", "bool", True),
        ("False", "bool", False),
        ("no", "bool", False),
        ("None", "int | None", None),
        ("None", "str | None", None),
        ("3", "int | None", 3),
        ("3", "int | str", 3),
        ("x", "int | str", "x"),
        ("3", "str | int", 3),
        ("3", "str", "3"),
        ("'quoted'", "str", "'quoted'"),
        ("", "str", ""),
        ("128", None, "128"),
        ("a\nb\0'\"\\ü🎈", None, "a\nb\0'\"\\ü🎈"),
        ("sgd", "Literal['adam', 'sgd']", "sgd"),
        ("2", "Literal[1, 2]", 2),
        ("3, 4", "tuple[int, ...]", (3, 4)),
        ("[3, 4]", "tuple", (3, 4)),
        ("(3, 4)", "list[float]", [3.0, 4.0]),
        ("{1: 'a'}", "dict[int, str]", {1: "a"}),
        ("[1]", "set[int]", {1}),
        ("b'x'", "bytes", b"x"),
        ("[1, 2]", "Any", [1, 2]),
        ("plain", "Any", "plain"),
        ("plain", "Path", "plain"),
        ("3", "Annotated[int, 'a size']", 3),
    ],
)
def test_texts_become_values_of_the_type(text: str, annotation: str | None, value: Any) -> None:
    made = from_text(text, annotation)

    assert (made, type(made)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "annotation"),
    [
        ("x", "int"),
        ("1.5", "int"),
        ("1e3", "int"),
        ("", "int"),
        ("9" * 5000, "int"),
        ("true", "int"),
        ("maybe", "bool"),
        ("2", "bool"),
        ("x", "float"),
        ("x", "Literal['adam', 'sgd']"),
        ("x", "list[int]"),
        ("['a']", "list[int]"),
        ("3", "list[int]"),
        ("x", "bytes"),
        ("x", "int | None"),
        ("x", "None"),
        ("[[1]]", "set"),
        ("[" * 5000, "list"),
    ],
)
def test_texts_of_another_type_are_refused(text: str, annotation: str) -> None:
    with pytest.raises(ValueError):
        from_text(text, annotation)


@pytest.mark.parametrize(
    ("value", "annotation", "made"),
    [
        (1, "float", 1.0),
        (3.0, "int", 3),
        (None, "int | None", None),
        ([1, 2], "tuple[int, ...]", (1, 2)),
        ([1, "a"], "tuple[int, str]", (1, "a")),
        ([[1, 2]], "list[tuple[int, int]]", [(1, 2)]),
        ([1, 1], "set[int]", {1}),
        ({"1": [2]}, "dict[int, tuple[int]]", {1: (2,)}),
        ({"a": None}, "dict[str, int | None]", {"a": None}),
        ([1, 2.5, None], None, [1, 2.5, None]),
        (1, "int | float", 1),
        (1, "float | int", 1),
    ],
)
def test_json_is_brought_into_the_type(value: Any, annotation: str | None, made: Any) -> None:
    found = from_json(value, annotation)

    assert repr(found) == repr(made)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (True, "int"),
        (3.5, "int"),
        (1 << 2000, "float"),
        (None, "int"),
        ([1], "int"),
        ({"x": 1}, "dict[int, int]"),
        ({"[1]": 1}, "dict[list[int], int]"),
        ([["a"]], "set[list[str]]"),
        (1, "str"),
    ],
)
def test_json_of_another_type_is_refused(value: Any, annotation: str) -> None:
    with pytest.raises(ValueError):
        from_json(value, annotation)


def test_a_monstrous_annotation_judges_nothing() -> None:
    assert fits("x", "|".join(["int"] * 50_000))
    assert from_text("x", "|".join(["int"] * 50_000)) == "x"
