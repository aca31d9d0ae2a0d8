"""Pipelines within pipelines."""

from __future__ import annotations

import pytest

from deepforge.pipelines.check import LARGEST_GRAPH
from deepforge.pipelines.graph import (
    Input,
    LiteralText,
    Nothing,
    OutputOf,
    ParameterInput,
    ParameterValue,
    Result,
)
from deepforge.pipelines.project import read_pipeline
from deepforge.pipelines.read import DEEPEST_NESTING
from pipelines.samples import IMPORTS, complaints, project

INNER = f"""{IMPORTS}
def fit(images, labels=None, hidden: int = 8, depth=None, unused=1):
    model, history = Train(vgg(depth=depth), hidden=hidden).execute(images, labels)
    Plot().execute(model)
    return history, model
"""


def outer(body: str, parameters: str = "") -> dict[str, bytes]:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    header = f"{IMPORTS.strip()}; from pipelines.fit import fit\n"
    return project(
        pipelines__fit=INNER, pipelines__main=f"{header}def main({parameters}):\n{lines}"
    )


def test_a_nested_pipeline_is_flattened_under_the_name_of_its_call() -> None:
    files = outer(
        "a, b = Load().execute()\n"
        "h, m = fit(a, b, hidden=size, depth=2)\n"
        "_, _ = fit(p)\n"
        "fit(None, b, unused=a)\n"
        "s = Score().execute(m, h)\n"
        "return m, s",
        "size: int = 4, p=None",
    )

    graph = read_pipeline(files, "main")

    assert [node.name for node in graph.nodes] == [
        "a", "h/model", "h/Plot", "fit/model", "fit/Plot", "fit_2/model", "fit_2/Plot", "s",
    ]  # fmt: skip
    first, second, third = (graph.nodes[place] for place in (1, 3, 5))
    assert first.inputs == (
        Input("images", OutputOf("a", "images")),
        Input("labels", OutputOf("a", "labels")),
    )
    assert first.arguments["hidden"] == ParameterValue("size")
    assert first.arguments["network"].arguments == {"depth": LiteralText("2")}  # type: ignore[union-attr]
    assert (first.file, first.line) == ("pipelines/fit.py", 4)
    assert second.inputs == (Input("images", ParameterInput("p")), Input("labels", Nothing()))
    assert second.arguments["hidden"] == LiteralText("8")
    assert third.inputs[0] == Input("images", Nothing())
    assert graph.results == (
        Result("m", OutputOf("h/model", "model")),
        Result("s", OutputOf("s", "accuracy")),
    )
    assert graph.nodes[-1].inputs == (
        Input("model", OutputOf("h/model", "model")),
        Input("images", OutputOf("h/model", "history")),
    )
    assert [(one.name, one.role) for one in graph.parameters] == [
        ("size", "attribute"),
        ("p", "input"),
    ]


def test_nesting_goes_deeper() -> None:
    text = (
        "from pipelines.main import main\ndef top(q=None):\n    deep = main(q)\n    return deep\n"
    )
    files = outer("h, m = fit(p)\nreturn m", "p") | {"pipelines/top.py": text.encode()}

    graph = read_pipeline(files, "top")

    assert [node.name for node in graph.nodes] == ["deep/h/model", "deep/h/Plot"]
    assert graph.nodes[0].inputs[0].source == ParameterInput("q")
    assert graph.results == (Result("deep", OutputOf("deep/h/model", "model")),)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("fit()", "3: `fit` is missing the parameter `images`"),
        ("fit(None, images=None)", "3: `fit` is given `images` twice"),
        ("fit(None, size=3)", "3: `fit` has no parameter `size`"),
        ("fit(1, 2, 3, 4, 5, 6)", "3: `fit` is given 6 parameters by position and takes 5"),
        ("fit('text')", "3: `images` of `fit` takes an artifact, not 'text'"),
        ("fit(None, hidden='x')", "3: `hidden` of `fit` takes int, not 'x'"),
        ("fit(None, depth=vgg())", "3: a call is passed: it is not a Python literal"),
        ("fit(Load().execute())", "3: a call is passed: it is not a Python literal"),
        (
            "a, b = Load().execute()\nfit(a, hidden=b)",
            "4: `hidden` of `fit` takes a value, and `b` is an output",
        ),
        (
            "a, b, c = fit(None)",
            "3: 3 targets for the outputs of `fit`, which gives 2 (history, model)",
        ),
        (
            "fit(None, hidden=p)\nPlot().execute(p)",
            "4: the parameter `p` is used as an input here and as an attribute on line 3",
        ),
        ("fit().execute()", "3: the pipeline `fit` is used as an operation"),
    ],
)  # fmt: skip
def test_calls_of_pipelines_are_checked_too(body: str, message: str) -> None:
    assert f"pipelines/main.py:{message}" in complaints(outer(body, "p=None"), "main")


def test_a_finding_in_a_nested_pipeline_is_told_once_and_where_it_is() -> None:
    files = outer("h, m = fit(None)\nfit(m)") | {"pipelines/fit.py": b"def fit(a): print()\n"}

    assert complaints(files, "main") == [
        "pipelines/fit.py:1: `print` is Python's own, and not part of a pipeline"
    ]


def test_recursion_is_the_one_cycle_that_names_cannot_show() -> None:
    def calls(other: str, own: str) -> str:
        return f"from pipelines.{other} import {other}\ndef {own}():\n    {other}()\n"

    files = project(
        pipelines__a=calls("b", "a"), pipelines__b=calls("c", "b"), pipelines__c=calls("a", "c")
    )

    message = "pipelines call each other in a circle: "
    assert complaints(files, "a") == [f"pipelines/c.py:1: {message}a -> b -> c -> a"]
    assert complaints(files, "b") == [f"pipelines/a.py:1: {message}b -> c -> a -> b"]


def test_a_chain_of_pipelines_may_be_deep_but_not_endless() -> None:
    length = DEEPEST_NESTING + 1
    files = {
        f"pipelines/p{n}.py": (
            f"from pipelines.p{n + 1} import p{n + 1}\ndef p{n}():\n    p{n + 1}()\n"
        ).encode()
        for n in range(length)
    }
    files[f"pipelines/p{length}.py"] = f"def p{length}(): pass\n".encode()

    assert complaints(files, "p0") == [
        f"pipelines/p{DEEPEST_NESTING - 1}.py:1: pipelines are nested deeper than {DEEPEST_NESTING}"
    ]
    assert complaints(files, "p5") == []


@pytest.mark.parametrize("leaf", ["Plot().execute(None)", "pass"])
def test_doubling_is_stopped_before_it_fills_the_memory(leaf: str) -> None:
    """Thirty small files can ask for a thousand million operations."""
    files = project(pipelines__p30=f"from operations.plot import Plot\ndef p30():\n    {leaf}\n")
    for n in range(30):
        text = f"from pipelines.p{n + 1} import p{n + 1}\ndef p{n}():\n" + f"    p{n + 1}()\n" * 2
        files[f"pipelines/p{n}.py"] = text.encode()

    found = complaints(files, "p0")

    assert f"pipelines/p16.py:4: the pipeline has more than {LARGEST_GRAPH} operations" in found
