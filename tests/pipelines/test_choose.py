"""What a launch may choose."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from deepforge.errors import InvalidRequest
from deepforge.pipelines.choose import choose
from deepforge.pipelines.graph import (
    Graph,
    LiteralText,
    Nothing,
    ParameterInput,
    ResourceCall,
)
from pipelines.samples import graph_of

BODY = """
m, h = Train(vgg(depth=depth), hidden, name).execute(images, labels)
j = Join(shape).execute(m)
return j
"""
PARAMETERS = (
    "images, labels=None, depth: int = 3, hidden: int = 64, name='net', "
    "shape: tuple[int, ...] = (1, 2)"
)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_of(BODY, PARAMETERS)


def test_defaults_hold_where_nothing_is_chosen(graph: Graph) -> None:
    chosen = choose(graph, {}, {"images": "digits@3"})

    assert chosen.values == {"depth": "3", "hidden": "64", "name": "'net'", "shape": "(1, 2)"}
    assert chosen.artifacts == {"images": "digits@3", "labels": None}
    node = chosen.graph.nodes[0]
    assert node.arguments == {
        "network": ResourceCall(
            "resources.vgg", "vgg", "resources/vgg.py", {"depth": LiteralText("3")}
        ),
        "hidden": LiteralText("64"),
        "name": LiteralText("'net'"),
    }
    assert [one.source for one in node.inputs] == [ParameterInput("images"), Nothing()]


def test_texts_are_converted_by_the_type_of_the_parameter(graph: Graph) -> None:
    values = {"depth": "5", "hidden": "128", "name": 'it\'s "64"\n', "shape": "3, 4"}

    chosen = choose(graph, values, {"images": "a"})

    assert chosen.values == {
        "depth": "5",
        "hidden": "128",
        "name": "'it\\'s \"64\"\\n'",
        "shape": "(3, 4)",
    }
    assert chosen.graph.nodes[1].arguments == {"separator": LiteralText("(3, 4)")}


def test_json_values_are_taken_as_they_are(graph: Graph) -> None:
    chosen = choose(graph, {"hidden": 128, "shape": [3, 4], "depth": 2.0}, {"images": "a"})

    assert (chosen.values["hidden"], chosen.values["shape"]) == ("128", "(3, 4)")
    assert chosen.values["depth"] == "2"


def test_choosing_changes_nothing_of_the_graph_itself(graph: Graph) -> None:
    before = replace(graph)

    choose(graph, {"hidden": "1"}, {"images": "a"})

    assert graph == before


def test_default_artifacts_are_taken_and_can_be_overridden(graph: Graph) -> None:
    parameters = tuple(
        replace(one, artifact="ours") if one.name == "images" else one for one in graph.parameters
    )
    graph = replace(graph, parameters=parameters)

    assert choose(graph, {}).artifacts["images"] == "ours"
    assert choose(graph, {}, {"images": "mine"}).artifacts["images"] == "mine"


@pytest.mark.parametrize(
    ("values", "inputs", "message"),
    [
        ({"hidden": "x"}, {}, "hidden takes int, not 'x'"),
        ({"hidden": "1.5"}, {}, "hidden takes int, not '1.5'"),
        ({"hidden": None}, {}, "hidden takes int, not None"),
        ({"hidden": True}, {}, "hidden takes int, not True"),
        ({"shape": "x"}, {}, "shape takes tuple[int, ...], not 'x'"),
        ({"name": 3}, {}, "name takes str, not 3"),
        ({"hiden": "3"}, {}, "the pipeline main has no parameter 'hiden'"),
        ({}, {"imges": "x"}, "the pipeline main has no parameter 'imges'"),
        ({"labels": "x"}, {}, "labels takes an artifact, not a value"),
        ({}, {"hidden": "x"}, "hidden takes a value, not an artifact"),
        ({}, {"labels": " "}, "labels is given an empty artifact name"),
        ({"hidden": "x" * 500}, {}, "hidden takes int, not '" + "x" * 78 + "…"),
        ({"hidden": "x", "depth": "y"}, {}, "depth takes int, not 'y'; hidden takes int, not 'x'"),
    ],
)
def test_what_does_not_fit_is_refused(
    graph: Graph, values: dict[str, Any], inputs: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        choose(graph, values, {"images": "a", **inputs})

    assert raised.value.message == message


def test_what_is_missing_is_named(graph: Graph) -> None:
    with pytest.raises(InvalidRequest) as raised:
        choose(graph_of("Join(size).execute(model)", "model, size"), {})

    assert raised.value.message == (
        "missing input: model takes an artifact; missing value: size (text)"
    )
    assert (raised.value.part, "choose an artifact" in (raised.value.hint or "")) == ("model", True)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", math.nan, math.inf])
def test_nan_and_infinity_are_refused(value: Any) -> None:
    graph = graph_of("m, h = Train(rate=rate).execute(None, None)", "rate: float = 0.5")

    with pytest.raises(InvalidRequest, match="NaN and infinity cannot be attributes"):
        choose(graph, {"rate": value})


def test_none_can_be_chosen_where_it_is_the_default() -> None:
    graph = graph_of("Join(size).execute()", "size: int = None")

    assert choose(graph, {"size": "None"}).values == {"size": "None"}
    assert choose(graph, {"size": 3}).values == {"size": "3"}


def test_a_parameter_without_any_type_is_text() -> None:
    graph = graph_of("Join(size).execute()", "size")

    assert choose(graph, {"size": "128"}).values == {"size": "'128'"}


def test_the_operation_s_own_annotation_is_the_last_judge() -> None:
    graph = graph_of("m, h = Train(hidden=size).execute(None, None)", "size=None")

    with pytest.raises(
        InvalidRequest, match=r"size is '128', and Train\.hidden takes int"
    ) as raised:
        choose(graph, {"size": "128"})
    with pytest.raises(InvalidRequest, match=r"size is None, and Train\.hidden takes int"):
        choose(graph, {})

    assert raised.value.hint == "annotate the parameter: `size: int`"


def test_an_unused_parameter_needs_nothing() -> None:
    graph = graph_of("Load().execute()", "later")

    assert choose(graph, {}).values == {}


def test_a_pipeline_without_operations_cannot_be_launched() -> None:
    with pytest.raises(InvalidRequest, match="the pipeline main has no operations"):
        choose(graph_of("pass"), {})
