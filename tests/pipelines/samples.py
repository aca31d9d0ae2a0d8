"""Small projects as text, and what reading them says."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

from hypothesis import strategies as st

from deepforge.errors import InvalidProject
from deepforge.pipelines.graph import Graph
from deepforge.pipelines.project import read_pipeline

OPERATIONS = {
    "load": """
        class Load:
            def execute(self):
                return images, labels
        """,
    "train": """
        class Train:
            def __init__(self, network=None, hidden: int = 64, name="net", *, rate: float = 0.1):
                self.network = network

            def execute(self, images, labels):
                return model, history
        """,
    "score": """
        class Score:
            def execute(self, model, images, labels=None):
                return accuracy
        """,
    "plot": """
        class Plot:
            def execute(self, model):
                print(model)
        """,
    "join": """
        class Join:
            def __init__(self, separator):
                pass

            def execute(self, *parts, weight=None):
                return joined
        """,
}
RESOURCES = {"vgg": "def vgg(depth: int = 3, wide=False):\n    return None\n"}
IMPORTS = (
    "from operations.load import Load; from operations.train import Train; "
    "from operations.score import Score; from operations.plot import Plot; "
    "from operations.join import Join; from resources.vgg import vgg\n"
)
"""All of them on the first line of a pipeline file, so that the function begins on the second."""

_KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
_NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.complex_numbers(
    allow_nan=False, allow_infinity=False
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    _KEYS | _NUMBERS | st.sets(_KEYS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(_KEYS | st.tuples(_KEYS, _KEYS), inner, max_size=3)
    ),
    max_leaves=8,
)
"""Any value that literal text can hold."""


def project(**files: str) -> dict[str, bytes]:
    """A project with the sample operations; a keyword `pipelines__digits` adds that file."""
    texts = {f"operations/{name}.py": text for name, text in OPERATIONS.items()}
    texts |= {f"resources/{name}.py": text for name, text in RESOURCES.items()}
    texts |= {name.replace("__", "/") + ".py": text for name, text in files.items()}
    return {path: dedent(text).encode() for path, text in texts.items()}


def pipeline(body: str, parameters: str = "") -> dict[str, bytes]:
    """A project whose only pipeline has this body; its first statement is on line 3."""
    lines = "".join(f"    {line}\n" for line in dedent(body).strip("\n").splitlines())
    return project(pipelines__main=f"{IMPORTS}def main({parameters}):\n{lines}")


def graph_of(body: str, parameters: str = "") -> Graph:
    return read_pipeline(pipeline(body, parameters))


def complaints(files: dict[str, bytes], name: str | None = None) -> list[str]:
    """Read a pipeline that must be refused, and return its findings as `file:line: message`."""
    try:
        read_pipeline(files, name)
    except InvalidProject as error:
        return ["{file}:{line}: {message}".format(**one) for one in error.findings]
    return []


def complaint(body: str, parameters: str = "") -> str:
    """Return the one finding of a body, as `line: message`."""
    found = complaints(pipeline(body, parameters))
    assert len(found) == 1, found
    return found[0].removeprefix("pipelines/main.py:")
