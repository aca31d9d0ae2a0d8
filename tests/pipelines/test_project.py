"""The way in: which pipeline, which defaults, and that nothing is ever run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from deepforge.errors import InvalidProject, InvalidRequest
from deepforge.pipelines.finding import MOST_FINDINGS
from deepforge.pipelines.project import list_pipelines, read_pipeline, read_project
from pipelines.samples import IMPORTS, complaints, pipeline, project

EMPTY = "def {0}():\n    pass\n"
SEVERAL = project(pipelines__one=EMPTY.format("one"), pipelines__two=EMPTY.format("two"))


def test_the_only_pipeline_is_the_default() -> None:
    assert read_pipeline(pipeline("Load().execute()")).name == "main"


def test_one_of_several_must_be_named() -> None:
    with pytest.raises(InvalidRequest, match="several pipelines: one, two") as raised:
        read_pipeline(SEVERAL)

    assert raised.value.part == "pipeline"
    assert read_pipeline(SEVERAL, "two").name == "two"


def test_deepforge_toml_may_name_the_default() -> None:
    files = SEVERAL | {"deepforge.toml": b"[defaults]\npipeline = 'two'\nstorage = 'lab'\n"}

    text = read_project(files)

    assert text.pipeline().name == "two"
    assert text.pipeline("one").name == "one"
    assert (text.name, text.defaults.storage, text.defaults.compute) == (None, "lab", None)


@pytest.mark.parametrize("name", ["tow", "", "../one", "one.py", "pipelines.one"])
def test_a_pipeline_that_is_not_there(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"no pipeline|several") as raised:
        read_pipeline(SEVERAL, name)

    assert raised.value.hint is not None


def test_a_project_without_pipelines() -> None:
    with pytest.raises(InvalidRequest, match="the project has no pipelines"):
        read_pipeline({"README.md": b"hello"})


def test_pipelines_are_listed_without_being_read() -> None:
    files = {
        "pipelines/b.py": b"not python",
        "pipelines/a.py": b"",
        "pipelines/vision/prepare.py": b"",
        "pipelines/__init__.py": b"",
        "pipelines/_draft.py": b"",
        "pipelines/notes.txt": b"",
        "other/pipelines/c.py": b"",
        "pipelines.py": b"",
    }

    assert list_pipelines(files) == ("a", "b", "vision.prepare")
    assert read_project(files).pipelines == ("a", "b", "vision.prepare")


def test_a_pipeline_in_a_folder_has_a_dotted_name() -> None:
    files = project(pipelines__vision__prepare=EMPTY.format("prepare"))

    assert read_pipeline(files, "vision.prepare").name == "vision.prepare"


def test_default_artifacts_stand_at_their_parameters() -> None:
    toml = b"[pipelines.main.inputs]\nmodel = 'best-model@2'\n"
    files = pipeline("Plot().execute(model)", "model") | {"deepforge.toml": toml}

    [parameter] = read_pipeline(files).parameters

    assert (parameter.artifact, parameter.required) == ("best-model@2", False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("modle", "the pipeline `main` has no parameter `modle`"),
        ("size", "the parameter `size` of `main` does not take an artifact"),
    ],
)
def test_default_artifacts_must_be_of_inputs(name: str, message: str) -> None:
    toml = f"# {name}\n[pipelines.main.inputs]\n{name} = 'x'\n"
    files = pipeline("Plot().execute(model)\nJoin(size).execute()", "model, size=3")
    files["deepforge.toml"] = toml.encode()

    assert complaints(files) == [f"deepforge.toml:3: {message}"]
    assert [str(one) for one in read_project(files).findings()] == [f"deepforge.toml:3: {message}"]


def test_findings_of_other_pipelines_do_not_stop_this_one() -> None:
    files = SEVERAL | {"pipelines/two.py": b"x = 3", "operations/broken.py": b"("}

    text = read_project(files)

    assert text.pipeline("one").name == "one"
    assert [str(one) for one in text.findings()] == [
        "operations/broken.py:1: this is not Python: '(' was never closed",
        "pipelines/two.py:1: an assignment does not belong in a pipeline file",
        "pipelines/two.py:1: the file has no function `two`",
    ]
    with pytest.raises(InvalidProject):
        text.pipeline("two")


def test_a_broken_deepforge_toml_stops_every_pipeline() -> None:
    assert complaints(SEVERAL | {"deepforge.toml": b"x = 1"}, "one") == [
        "deepforge.toml:1: the file has no setting `x`"
    ]


def test_everything_of_a_project_can_be_listed() -> None:
    text = read_project(
        project() | {"operations/helper/deep.py": b"class A:\n def execute(self): pass"}
    )

    assert [one.module for one in text.operations()] == [
        "operations.helper.deep", "operations.join", "operations.load", "operations.plot",
        "operations.score", "operations.train",
    ]  # fmt: skip
    assert [(one.module, one.name) for one in text.resources()] == [("resources.vgg", "vgg")]
    assert text.findings() == ()


@pytest.mark.parametrize(
    "hostile",
    [
        "raise SystemExit(3)",
        "import os; os._exit(3)",
        "while True: pass",
        "open('{path}', 'w').write('I ran')",
        "__import__('pathlib').Path('{path}').touch()",
    ],
)
def test_nothing_of_the_project_is_ever_run(hostile: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    line = hostile.replace("{path}", str(trace))
    guard = f"if __name__ == '__main__':\n    {line}\n"
    files = pipeline("a, b = Load().execute()\nTrain(vgg()).execute(a, b)")
    files["pipelines/main.py"] += guard.encode()
    for path in ("operations/load.py", "operations/train.py", "resources/vgg.py"):
        files[path] = f"{line}\n".encode() + files[path]

    assert len(read_pipeline(files).nodes) == 2

    files["pipelines/main.py"] = f"{line}\n{IMPORTS}def main(a=({line!r})): pass\n".encode()
    assert complaints(files)
    assert not trace.exists()


@pytest.mark.parametrize(
    "text",
    [
        "def main():\n" + "    x()\n" * 20_000,
        "def main():\n" + "".join(f"    a{n} = b{n}()\n" for n in range(10_000)),
        "def main(" + ", ".join(f"a{n}" for n in range(20_000)) + "):\n    pass\n",
        "def main():\n    " + ", ".join(["a"] * 50_000) + " = x()\n",
        "def main():\n    return " + ", ".join(["a"] * 50_000) + "\n",
        "import a\n" * 30_000,
        "# /// script\n" * 70_000,
        "def main():\n    f(" + "[" * 90 + "]" * 90 + ")\n",
        "def main(a: " + "list[" * 90 + "int" + "]" * 90 + " = 3): pass\n",
    ],
    ids=range(9),
)
def test_monsters_are_refused_quickly(text: str) -> None:
    """They take a second; what grows with the square of the text would take minutes."""
    files = {"pipelines/main.py": text.encode(), "operations/main.py": text.encode()}
    begun = time.perf_counter()

    found = complaints(files)
    read_project(files).findings()

    assert time.perf_counter() - begun < 15
    assert len(found) <= MOST_FINDINGS


def test_a_hundred_operations_are_read_in_milliseconds() -> None:
    lines = "".join(f"a{n} = Score().execute(a{n - 1}, a0)\n" for n in range(1, 100))
    files = pipeline(f"a0 = Score().execute(None, None)\n{lines}return a99")

    def seconds() -> float:
        begun = time.perf_counter()
        assert len(read_pipeline(files).nodes) == 100
        return time.perf_counter() - begun

    assert min(seconds() for _ in range(10)) < 0.05
