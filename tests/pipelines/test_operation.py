"""The interface of an operation, from its text."""

from __future__ import annotations

from textwrap import dedent

import pytest

from deepforge.pipelines.finding import Findings
from deepforge.pipelines.operation import OperationInterface, Port, read_operation
from deepforge.pipelines.source import parse


def read(text: str) -> tuple[OperationInterface | None, list[str]]:
    findings = Findings("operations/x.py")
    source = parse("operations/x.py", dedent(text).encode(), findings)
    assert source is not None
    operation = read_operation(source, findings)
    return operation, [f"{one.line}: {one.message}" for one in findings.all()]


def operation_of(text: str) -> OperationInterface:
    operation, findings = read(text)
    assert operation is not None, findings
    assert not findings
    return operation


def complaint(text: str) -> str:
    operation, findings = read(text)
    assert operation is None
    assert len(findings) == 1, findings
    return findings[0]


def test_everything_is_read_from_the_text() -> None:
    operation = operation_of(
        '''
        # /// script
        # dependencies = ["numpy"]
        # ///
        """About the file."""
        import numpy as np

        @register(f"{__name__}")
        class Train:
            """About the class."""

            def __init__(self, size: int, names=("a", 'b'), *, text="it's", none=None, big=1 << 3):
                self.model = None

            @np.wraps
            def execute(self, images: np.ndarray, *, labels: "np.ndarray | None" = None) -> tuple:
                def inner():
                    return 1, 2, 3
                self.model = [x async for x in y] if (z := 3) else f"{images!r:>{labels}}"
                return self.model, inner(), labels
        '''
    )

    assert (operation.name, operation.module, operation.line) == ("Train", "operations.x", 9)
    assert operation.docstring == "About the class."
    assert [(one.name, one.type, one.default, one.required) for one in operation.attributes] == [
        ("size", "int", None, True),
        ("names", "tuple", "('a', 'b')", False),
        ("text", "str", '"it\'s"', False),
        ("none", None, "None", False),
        ("big", None, None, False),
    ]
    assert [one.keyword_only for one in operation.attributes] == [False, False, True, True, True]
    assert operation.inputs == (Port("images", False), Port("labels", True, keyword_only=True))
    assert operation.outputs == ("model", "result", "labels")
    assert not operation.single_value
    assert operation.requirements.dependencies == ("numpy",)


@pytest.mark.parametrize(
    ("default", "text", "kind"),
    [
        ("1", "1", "int"),
        ("-1", "-1", "int"),
        ("0x10", "16", "int"),
        ("1_000", "1000", "int"),
        ("1e-3", "0.001", "float"),
        ("2j", "2j", "complex"),
        ("True", "True", "bool"),
        ("'a' \"b\"", "'ab'", "str"),
        ("b'\\0'", "b'\\x00'", "bytes"),
        ("[1, [2]]", "[1, [2]]", "list"),
        ("(1,)", "(1,)", "tuple"),
        ("{'b': 1, 2: 'a'}", "{'b': 1, 2: 'a'}", "dict"),
        ("{3, 1, 2}", "{1, 2, 3}", "set"),
        ("set()", "set()", "set"),
        ("None", "None", None),
        ("1e999", None, None),
        ("print", None, None),
        ("f'{1}'", None, None),
        ("{[]: 1}", None, None),
    ],
)
def test_defaults_are_kept_as_literal_text(
    default: str, text: str | None, kind: str | None
) -> None:
    operation = operation_of(
        f"class A:\n def __init__(self, a={default}): pass\n def execute(self): pass"
    )

    [attribute] = operation.attributes
    assert (attribute.default, attribute.type, attribute.required) == (text, kind, False)


def test_the_smallest_operation() -> None:
    operation = operation_of("class A:\n    def execute(self): ...")

    assert (operation.attributes, operation.inputs, operation.outputs) == ((), (), ())
    assert operation.variadic is None
    assert operation.docstring == ""


def test_parts_are_one_variadic_port() -> None:
    operation = operation_of("class A:\n    def execute(self, *parts, weight=None): return parts")

    assert operation.variadic == "parts"
    assert operation.inputs == (Port("weight", True, keyword_only=True),)
    assert operation.single_value


@pytest.mark.parametrize("decorator", ["staticmethod", "classmethod"])
def test_execute_may_be_bound_otherwise(decorator: str) -> None:
    arguments = "a, b" if decorator == "staticmethod" else "cls, a, b"
    operation = operation_of(f"class A:\n @{decorator}\n def execute({arguments}): return a")

    assert [port.name for port in operation.inputs] == ["a", "b"]


def test_a_helper_class_before_the_operation_gives_it_no_arguments() -> None:
    operation = operation_of(
        """
        class Helper:
            def __init__(self, wrong): pass
        class Train:
            def __init__(self, right): pass
            def execute(self): pass
        """
    )

    assert [one.name for one in operation.attributes] == ["right"]


def test_the_last_of_two_definitions_counts() -> None:
    operation = operation_of(
        "class A:\n def execute(self, a): return a\n def execute(self, b): return b, b.c"
    )

    assert operation.outputs == ("b", "result")


def test_methods_are_inherited_within_the_file() -> None:
    operation = operation_of(
        """
        from abc import ABC
        class Base(ABC):
            def __init__(self, size=3): pass
            def execute(self, a): return b
        class _Other:
            def execute(self): pass
        class Train(Base):
            pass
        """
    )

    assert operation.name == "Train"
    assert [one.name for one in operation.attributes] == ["size"]
    assert operation.outputs == ("b",)


def test_a_class_of_another_file_may_be_the_base_of_one_that_says_all() -> None:
    text = "class A(torch.nn.Module):\n def __init__(self, a): pass\n def execute(self): pass"

    assert [one.name for one in operation_of(text).attributes] == ["a"]


def test_fields_of_a_dataclass_are_attributes() -> None:
    operation = operation_of(
        """
        import dataclasses
        from dataclasses import KW_ONLY, InitVar, dataclass, field
        from typing import ClassVar

        @dataclasses.dataclass
        class Base:
            size: int
            count: ClassVar[int] = 3
            text: "str" = "a"

        @dataclass(frozen=True)
        class Train(Base):
            size: float = 0.5
            seen: list[int] = field(default_factory=list)
            made: int = field(init=False, default=3)
            given: InitVar[int] = field(default=4)
            odd: dict[str, int] = field(default_factory=make)
            untyped = 3
            _: KW_ONLY
            late: int

            def execute(self): return self.made
        """
    )

    assert [
        (one.name, one.annotation, one.default, one.required, one.keyword_only)
        for one in operation.attributes
    ] == [
        ("size", "float", "0.5", False, False),
        ("text", "str", "'a'", False, False),
        ("seen", "list[int]", "[]", False, False),
        ("given", "int", "4", False, False),
        ("odd", "dict[str, int]", None, False, False),
        ("late", "int", None, True, True),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 3", "1: the file has no class with an `execute` method"),
        ("class A:\n execute = 3", "1: the file has no class with an `execute` method"),
        ("def execute(self): pass", "1: the file has no class with an `execute` method"),
        ("class A(Base): pass", "1: the file has no class with an `execute` method"),
        (
            "class A:\n def execute(self): pass\nclass B:\n def execute(self): pass",
            "3: a second operation, B, beside A: one operation a file",
        ),
        (
            "class A:\n async def execute(self): pass",
            "2: `execute` is `async`; it must be a plain method",
        ),
        (
            "class A:\n @property\n def execute(self): pass",
            "3: `execute` is a property; it must be a plain method",
        ),
        ("class A:\n def execute(): pass", "2: `execute` has no `self`"),
        ("class A:\n def execute(*all): pass", "2: `execute` has no `self`"),
        ("class A:\n def execute(self, a, /): pass", "2: `execute` takes `a` by position only"),
        (
            "class A:\n def execute(self, a, *b): pass",
            "2: `execute` takes `a` before `*b`; inputs are passed by name",
        ),
        (
            "class A:\n def __init__(self, a, /): pass\n def execute(self): pass",
            "2: `__init__` takes `a` by position only",
        ),
        (
            "class A:\n def __init__(): pass\n def execute(self): pass",
            "2: `__init__` has no `self`",
        ),
        (
            "class A(keras.Model):\n def execute(self): pass",
            "1: the constructor of A is that of `keras.Model`, outside this file",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_an_operation_is_a_finding(text: str, message: str) -> None:
    assert complaint(text) == message


def test_a_chain_of_bases_is_followed_only_so_far() -> None:
    """Following it to the end from each of thousands of classes would take minutes."""
    chain = "".join(f"class A{n + 1}(A{n}): pass\n" for n in range(5000))

    operation = operation_of(f"class A0:\n    def execute(self): pass\n{chain}")

    assert operation.name == "A99"
