"""Whatever the text: a graph or findings, never anything else."""

from __future__ import annotations

import ast
import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepforge.errors import InvalidProject, InvalidRequest
from deepforge.pipelines.choose import choose
from deepforge.pipelines.project import read_pipeline, read_project
from pipelines.samples import IMPORTS, OPERATIONS, project

PIPELINE = f"""{IMPORTS}
def main(images, hidden: int = 64, *, name='net'):
    _, labels = Load().execute()
    model, history = Train(vgg(depth=3, wide=True), hidden, name=name).execute(images, labels)
    Plot().execute(model=model)
    accuracy = Score().execute(model, images, None)
    joined = Join(",").execute(model, None, history, weight=accuracy)
    return model, joined


if __name__ == "__main__":
    print(main(None))
"""
PLACES = ["pipelines/main.py", "operations/load.py", "deepforge.toml"]
PIECES = [
    *"()[]{},.:=*@\\'\"#\n\t -+~_\0é", "    ", "\n    ", "->", ":=", "**", "None", "True", "1e999", "0x",
    "self", "hidden", "model", "Load", "Train()", ".execute(", "return ", "yield ", "await ", "async ",
    "lambda: ", "if ", "else ",
    "for x in ", "import ", "from . import *\n", "class X: ", "def f(a, /, *b): ",
    "@x\n", "f'{a!r:>{b}}'", "b'x'", "(a := 3)", "[*a]", "{**a}", "x: int = ", "del ", "global x\n",
    "# /// script\n", "# ///\n", "match x:\n case 1: ", "not ", "pipelines.main", "operations",
]  # fmt: skip


@st.composite
def spoiled(draw: st.DrawFn, text: str) -> bytes:
    """Cut pieces out of a text, and put others in."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from([0, 0, 1, 3, 10, 40])))
        text = text[:start] + draw(st.sampled_from(PIECES)) * draw(st.integers(0, 2)) + text[end:]
    return text.encode()


def read_all(files: dict[str, bytes]) -> None:
    """Read in every way there is; anything but our own errors escapes."""
    text = read_project(files)
    found = text.findings()
    assert list(found) == sorted(found, key=lambda one: (one.file, one.line, one.message))
    assert all(one.line >= 1 and one.message for one in found)
    for name in text.pipelines:
        try:
            graph = read_pipeline(files, name)
        except InvalidProject:
            assert found
        else:
            with contextlib.suppress(InvalidRequest):
                choose(graph, {}, {})


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(spoiled(PIPELINE))
def test_a_spoiled_pipeline(data: bytes) -> None:
    read_all(project() | {"pipelines/main.py": data})


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from(sorted(OPERATIONS)), st.data())
def test_a_spoiled_operation(name: str, data: st.DataObject) -> None:
    files = project() | {"pipelines/main.py": PIPELINE.encode()}
    path = f"operations/{name}.py"
    read_all(files | {path: data.draw(spoiled(files[path].decode()))})


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from(PLACES),
)
def test_bytes_of_any_kind(data: bytes, path: str) -> None:
    read_all(project() | {"pipelines/main.py": PIPELINE.encode(), path: data})


def test_the_unspoiled_text_is_fine() -> None:
    assert len(read_pipeline(project() | {"pipelines/main.py": PIPELINE.encode()}).nodes) == 5


@pytest.mark.parametrize(
    "module",
    ["argparse", "ast", "asyncio/tasks", "dataclasses", "datetime", "decimal", "enum", "inspect",
     "subprocess", "typing", "unittest/mock", "this", "__future__"],
)  # fmt: skip
def test_real_python_of_every_kind(module: str) -> None:
    data = (Path(ast.__file__).parent / f"{module}.py").read_bytes()
    name = module.replace("/", "_").strip("_")

    read_all({f"{folder}/{name}.py": data for folder in ("operations", "pipelines", "resources")})
