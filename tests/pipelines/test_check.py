"""Whether calls fit what they call."""

from __future__ import annotations

import pytest

from deepforge.pipelines.graph import (
    Input,
    LiteralText,
    Nothing,
    OutputOf,
    ParameterInput,
    ParameterValue,
    ResourceCall,
)
from pipelines.samples import complaint, complaints, graph_of, pipeline, project


def test_attributes_are_known_by_name_and_by_position() -> None:
    graph = graph_of(
        "a, b = Load().execute()\nm, _ = Train(vgg(5, wide=True), 32, rate=1).execute(a, labels=b)"
    )

    node = graph.nodes[1]
    depth = {"depth": LiteralText("5"), "wide": LiteralText("True")}
    assert list(node.arguments.items()) == [
        ("network", ResourceCall("resources.vgg", "vgg", "resources/vgg.py", depth)),
        ("hidden", LiteralText("32")),
        ("rate", LiteralText("1")),
    ]
    assert node.inputs == (
        Input("images", OutputOf("a", "images")),
        Input("labels", OutputOf("a", "labels")),
    )
    assert (node.name, node.line, node.file) == ("m", 4, "pipelines/main.py")


def test_inputs_are_in_the_order_of_execute_and_an_omitted_default_stays_out() -> None:
    graph = graph_of("a, b = Load().execute()\ns = Score().execute(images=b, model=None)")

    assert graph.nodes[1].inputs == (
        Input("model", Nothing()),
        Input("images", OutputOf("a", "labels")),
    )


def test_parts_of_a_variadic_port_keep_their_place() -> None:
    graph = graph_of("a, b = Load().execute()\nj = Join('-').execute(b, None, a, weight=b)")

    assert graph.nodes[1].inputs == (
        Input("weight", OutputOf("a", "labels")),
        Input("parts", OutputOf("a", "labels"), 0),
        Input("parts", Nothing(), 1),
        Input("parts", OutputOf("a", "images"), 2),
    )


@pytest.mark.parametrize("parts", [0, 1, 300])
def test_a_variadic_port_takes_any_number(parts: int) -> None:
    names = ", ".join(["a"] * parts)
    graph = graph_of(f"a, b = Load().execute()\nj = Join('-').execute({names})")

    assert len(graph.nodes[1].inputs) == parts


def test_parameters_are_inputs_or_attributes_by_their_use() -> None:
    graph = graph_of(
        "m, h = Train(vgg(depth=depth), hidden=hidden).execute(images, images)",
        "images, labels=None, hidden: int = 3, depth=None",
    )

    assert [(one.name, one.role, one.required) for one in graph.parameters] == [
        ("images", "input", True),
        ("labels", "unused", False),
        ("hidden", "attribute", False),
        ("depth", "attribute", False),
    ]
    assert graph.nodes[0].arguments["hidden"] == ParameterValue("hidden")
    assert graph.nodes[0].inputs[0].source == ParameterInput("images")


def test_keyword_only_parameters_are_parameters() -> None:
    graph = graph_of("Plot().execute(model)", "*, model")

    assert [(one.name, one.role) for one in graph.parameters] == [("model", "input")]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("Train(hiden=3).execute(a, b)", "`Train` has no attribute `hiden`"),
        (
            "Train(None, 3, 'x', 0.5).execute(a, b)",
            "`Train` is given 4 attributes by position and takes 3",
        ),
        ("Train(None, network=None).execute(a, b)", "`Train` is given `network` twice"),
        ("Join().execute(a)", "`Join` is missing the attribute `separator`"),
        ("Train(hidden='x').execute(a, b)", "`hidden` of `Train` takes int, not 'x'"),
        ("Train(hidden=True).execute(a, b)", "`hidden` of `Train` takes int, not True"),
        ("Train(hidden=0.5).execute(a, b)", "`hidden` of `Train` takes int, not 0.5"),
        ("Train(hidden=None).execute(a, b)", "`hidden` of `Train` takes int, not None"),
        ("Train(rate='fast').execute(a, b)", "`rate` of `Train` takes float, not 'fast'"),
        ("Train(hidden=text).execute(a, b)", "`hidden` of `Train` takes int, not '64'"),
        ("Train(vgg(depth='x')).execute(a, b)", "`depth` of `vgg` takes int, not 'x'"),
        ("Train(vgg(deph=3)).execute(a, b)", "`vgg` has no argument `deph`"),
        ("Train(vgg(1, 2, 3)).execute(a, b)", "`vgg` is given 3 arguments by position and takes 2"),
        ("Train().execute(a)", "`Train.execute` is missing the input `labels`"),
        ("Train().execute()", "`Train.execute` is missing the inputs `images`, `labels`"),
        ("Train().execute(a, b, a)", "`Train.execute` is given 3 inputs by position and takes 2"),
        ("Train().execute(a, label=b, labels=b)", "`Train.execute` has no input `label`"),
        ("Train().execute(a, b, images=a)", "`Train.execute` is given `images` twice"),
        ("Join('-').execute(a, parts=b)", "`Join.execute` has no input `parts`"),
        (
            "m = Train().execute(a, b)",
            "1 targets for the outputs of `Train`, which gives 2 (model, history)",
        ),
        (
            "m, n, o = Train().execute(a, b)",
            "3 targets for the outputs of `Train`, which gives 2 (model, history)",
        ),
        (
            "m, n = Score().execute(a, b)",
            "2 targets for the outputs of `Score`, which gives 1 (accuracy)",
        ),
        ("m = Plot().execute(a)", "1 targets for the outputs of `Plot`, which gives none"),
    ],
)  # fmt: skip
def test_a_call_that_does_not_fit_is_a_finding(call: str, message: str) -> None:
    assert complaint(f"a, b = Load().execute()\n{call}", "text='64'") == f"4: {message}"


def test_a_number_may_stand_where_the_default_is_of_another_type() -> None:
    """Only an annotation binds: `alpha=1` does not forbid 0.5, nor `size='auto'` a number."""
    graph = graph_of("m, _ = Train(name=5).execute(None, None)")

    assert graph.nodes[0].arguments == {"name": LiteralText("5")}


@pytest.mark.parametrize(
    ("body", "parameters", "message"),
    [
        (
            "Plot().execute(p)\nJoin(p).execute()",
            "p=None",
            "4: the parameter `p` is used as an attribute here and as an input on line 3",
        ),
        ("Plot().execute(p)", "p=3", "2: `p` takes an artifact; its default cannot be 3"),
        (
            "Plot().execute(model=p)\nTrain(vgg(p)).execute(None, None)",
            "p=None",
            "4: the parameter `p` is used as an attribute here and as an input on line 3",
        ),
    ],
)
def test_a_parameter_has_one_role(body: str, parameters: str, message: str) -> None:
    assert complaint(body, parameters) == message


def test_identities_are_first_targets_or_numbered_class_names() -> None:
    graph = graph_of(
        """
        Load().execute()
        _, labels = Load().execute()
        Load().execute()
        _, _ = Load().execute()
        Plot().execute(labels)
        """
    )

    assert [node.name for node in graph.nodes] == ["Load", "labels", "Load_2", "Load_3", "Plot"]


@pytest.mark.parametrize("first", [True, False])
def test_two_steps_of_one_identity_are_refused(first: bool) -> None:
    bound, bare = "Plot_2 = Score().execute(None, None)", "Plot().execute(None)"
    lines = [bound, bare, bare] if first else [bare, bare, bound]

    message = complaint("\n".join(lines))

    assert "two steps are called `Plot_2`" in message


def test_the_name_of_the_class_counts_not_its_alias() -> None:
    text = "from operations.plot import Plot as Draw\ndef main():\n    Draw().execute(None)\n"
    graph_files = project(pipelines__main=text)

    assert complaints(graph_files) == []


def test_an_operation_that_cannot_be_read_is_complained_about_where_it_is() -> None:
    files = pipeline("a = Train(x=1).execute()\nScore().execute(a, a)")
    files["operations/train.py"] = b"class Train:\n    def execute(self):\n        yield 1\n"

    assert complaints(files) == ["operations/train.py:3: `execute` is a generator (it has `yield`)"]


def test_literals_keep_what_json_would_lose() -> None:
    values = "{1: (2, 3.5), 'k': {1, 2}, b'x': None, -1: +2, 1j: 'a' 'b', 'e': set()}"
    graph = graph_of(f"Train(name={values}).execute(None, None)")

    text = "{1: (2, 3.5), 'k': {1, 2}, b'x': None, -1: 2, 1j: 'ab', 'e': set()}"
    assert graph.nodes[0].arguments == {"name": LiteralText(text)}
