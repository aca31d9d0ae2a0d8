"""A pipeline is plain Python: what Python does with its text is what the graph says.

Random pipelines are written as text. Python runs them with operations that record how they are
called; then the graph that was read from the same text is followed, node after node, as a runner would,
and must leave the same record.
"""

from __future__ import annotations

import ast
import builtins
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepforge.pipelines.choose import choose
from deepforge.pipelines.graph import LiteralText, OutputOf, ParameterInput, ResourceCall, Source
from deepforge.pipelines.literal import spell
from deepforge.pipelines.project import read_pipeline
from pipelines.samples import VALUES

OPERATIONS = {
    "operations/make.py": """
        from record import record
        class Make:
            def __init__(self, size=3, name="x", *, shape=()):
                self.given = (size, name, shape)
            def execute(self):
                first, second = record("Make", self.given, (), 2)
                return first, second
        """,
    "operations/mix.py": """
        from record import record
        class Mix:
            def __init__(self, model=None, rate: float = 0.5):
                self.given = (model, rate)
            def execute(self, left, right, third=None):
                if left is self:
                    return None, None, None
                one, two, _ = record("Mix", self.given, (left, right, third), 3)
                return one, two, record("inner", (), (), 1)
        """,
    "operations/join.py": """
        from record import record
        class Join:
            def execute(self, *parts, weight=None):
                joined = record("Join", (), (*parts, weight), 1)
                return joined
        """,
    "operations/show.py": """
        from record import record
        class Show:
            def __init__(self, title):
                self.title = title
            def execute(self, picture):
                record("Show", (self.title,), (picture,), 0)
        """,
    "resources/net.py": """
        def net(depth=2, *, wide=None):
            return ("net", depth, wide)
        """,
}
IMPORTS = """
from operations.make import Make
from operations.mix import Mix as Blend  # another name for it
from operations.join import (
    Join,
)
from operations.show import Show
from resources.net import net
"""


@dataclass(frozen=True)
class Signature:
    """What a caller must know of a generated pipeline."""

    name: str
    inputs: tuple[str, ...]
    attributes: tuple[str, ...]
    returns: tuple[str, ...]
    nodes: tuple[str, ...]


@dataclass
class Writer:
    """Writes one random pipeline, and keeps what it should be read as."""

    draw: st.DrawFn
    name: str
    known: Sequence[Signature]
    inputs: list[str] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def write(self) -> tuple[Signature, str]:
        for n in range(self.draw(st.integers(0, 2))):
            self.inputs.append(f"i{n}")
            self.call("Join", f"Join().execute(i{n})", 1, [""])
        for n in range(self.draw(st.integers(0, 2))):
            self.attributes[f"a{n}"] = repr(self.draw(VALUES))
            self.call("Show", f"Show(a{n}).execute(None)", 0, [""])
        for _ in range(self.draw(st.integers(1, 6))):
            self.statement()
        returns: list[str] = []
        if self.outputs:
            names = st.sampled_from(self.outputs)
            returns = self.draw(st.lists(names, unique=True, max_size=3))
        if returns:
            self.lines.append("return " + ", ".join(returns))
        parameters = [f"{one}=None" for one in self.inputs]
        parameters += [f"{one}={text}" for one, text in self.attributes.items()]
        imports = "".join(f"from pipelines.{one.name} import {one.name}\n" for one in self.known)
        header = f"def {self.name}({', '.join(parameters)}):\n"
        body = "".join(f"    {line}\n" for line in self.lines)
        signature = Signature(
            self.name,
            tuple(self.inputs),
            tuple(self.attributes),
            tuple(returns),
            tuple(self.nodes),
        )
        return signature, IMPORTS + imports + header + body

    def statement(self) -> None:
        choices = ["Make", "Blend", "Join", "Show", *[one.name for one in self.known] * 2]
        which = self.draw(st.sampled_from(choices))
        if which == "Make":
            attributes = self.attribute_list(["size", "name"], ["shape"])
            self.call("Make", f"Make({attributes}).execute()", 2, [""])
        elif which == "Blend":
            model = self.draw(st.sampled_from(["", "net(), ", "net(4, wide=(1,)), "]))
            rate = self.draw(st.sampled_from(["", "rate=1", "rate=0.25"]))
            inputs = self.draw(
                st.sampled_from(["{}, {}", "{}, right={}", "right={}, left={}", "{}, {}, third={}"])
            ).replace("{}", "%s")
            filled = inputs % tuple(self.source() for _ in range(inputs.count("%s")))
            self.call("Mix", f"Blend({model}{rate}).execute({filled})", 3, [""])
        elif which == "Join":
            parts = [self.source() for _ in range(self.draw(st.integers(0, 3)))]
            weight = [f"weight={self.source()}"] if self.draw(st.booleans()) else []
            self.call("Join", f"Join().execute({', '.join([*parts, *weight])})", 1, [""])
        elif which == "Show":
            self.call("Show", f"Show({self.value()}).execute({self.source()})", 0, [""])
        else:
            inner = next(one for one in self.known if one.name == which)
            given = [f"{one}={self.source()}" for one in inner.inputs if self.draw(st.booleans())]
            given += [
                f"{one}={self.value()}" for one in inner.attributes if self.draw(st.booleans())
            ]
            text = f"{which}({', '.join(given)})"
            self.call(which, text, len(inner.returns), [f"/{one}" for one in inner.nodes])

    def call(self, kind: str, text: str, outputs: int, nodes: list[str]) -> None:
        targets = []
        if outputs and self.draw(st.booleans()):
            for _ in range(outputs):
                targets.append(f"v{len(self.outputs)}" if self.draw(st.booleans()) else "_")
                self.outputs += [one for one in targets[-1:] if one != "_"]
            text = f"{', '.join(targets)} = {text}"
        identity = next((one for one in targets if one != "_"), "")
        if not identity:
            self.counts[kind] += 1
            identity = kind if self.counts[kind] == 1 else f"{kind}_{self.counts[kind]}"
        self.nodes += [identity + one for one in nodes]
        self.lines.append(self.draw(st.sampled_from(["", "# why\n    "])) + text)

    def attribute_list(self, positional: list[str], keywords: list[str]) -> str:
        count = self.draw(st.integers(0, len(positional)))
        given = [self.value() for _ in range(count)]
        for name in [*positional[count:], *keywords]:
            if self.draw(st.booleans()):
                given.append(f"{name}={self.value()}")
        return ", ".join(given)

    def value(self) -> str:
        if bool(self.attributes) and self.draw(st.booleans()):
            return self.draw(st.sampled_from(sorted(self.attributes)))
        return repr(self.draw(VALUES))

    def source(self) -> str:
        return self.draw(st.sampled_from([*self.inputs, *self.outputs, "None"]))


@st.composite
def programs(draw: st.DrawFn) -> tuple[dict[str, bytes], Signature]:
    known: list[Signature] = []
    texts = {}
    for name in ("deep", "inner", "main")[draw(st.sampled_from([0, 0, 1, 2])) :]:
        signature, text = Writer(draw, name, tuple(known)).write()
        known.append(signature)
        texts[f"pipelines/{name}"] = text
    files = {path: _dedented(text) for path, text in OPERATIONS.items()}
    files |= {f"{path}.py": text.encode() for path, text in texts.items()}
    return files, known[-1]


class Recorder:
    """Runs a project's text with real Python, and keeps what its operations were called with."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.record: list[Any] = []
        self._files = files
        self._modules: dict[str, ModuleType] = {"record": ModuleType("record")}
        self._modules["record"].__dict__["record"] = self._called

    def load(self, module: str) -> ModuleType:
        if module not in self._modules:
            made = self._modules[module] = ModuleType(module)
            made.__dict__["__builtins__"] = {**vars(builtins), "__import__": self._import}
            code = self._files[module.replace(".", "/") + ".py"]
            exec(compile(code, module, "exec"), made.__dict__)
        return self._modules[module]

    def _import(self, name: str, *_: Any) -> ModuleType:
        return self.load(name)

    def _called(self, name: str, given: Any, inputs: Any, outputs: int) -> Any:
        number = len(self.record)
        self.record.append((name, spell(given), spell(inputs)))
        made = tuple(f"{name}.{number}.{place}" for place in range(outputs))
        return made[0] if outputs == 1 else made


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(programs())
def test_the_graph_does_what_python_does(program: tuple[dict[str, bytes], Signature]) -> None:
    files, signature = program
    artifacts = {name: f"artifact {name}" for name in signature.inputs}

    python = Recorder(files)
    returned = python.load("pipelines.main").main(**artifacts)

    graph = read_pipeline(files, "main")
    assert tuple(node.name for node in graph.nodes) == signature.nodes
    assert tuple(result.name for result in graph.results) == signature.returns

    ours = Recorder(files)
    chosen = choose(graph, {}, artifacts)
    made: dict[tuple[str, str], Any] = {}

    def value_of(source: Source) -> Any:
        if isinstance(source, OutputOf):
            return made[source.node, source.output]
        return chosen.artifacts[source.name] if isinstance(source, ParameterInput) else None

    def attribute(value: Any) -> Any:
        if isinstance(value, ResourceCall):
            function = getattr(ours.load(value.module), value.function)
            return function(**{name: attribute(one) for name, one in value.arguments.items()})
        assert isinstance(value, LiteralText)
        return ast.literal_eval(value.text)

    for node in chosen.graph.nodes:
        operation = getattr(ours.load(node.operation.module), node.operation.name)(
            **{name: attribute(value) for name, value in node.arguments.items()}
        )
        parts = [one for one in node.inputs if one.position is not None]
        assert [one.position for one in parts] == list(range(len(parts)))
        result = operation.execute(
            *[value_of(one.source) for one in parts],
            **{one.port: value_of(one.source) for one in node.inputs if one.position is None},
        )
        values = [result] if node.operation.single_value else result or []
        made |= {(node.name, name): one for name, one in zip(node.outputs, values, strict=True)}

    assert ours.record == python.record
    results = [value_of(result.source) for result in graph.results]
    expected = {0: None, 1: results[0] if results else None}.get(len(results), tuple(results))
    assert returned == expected


def test_the_example_of_the_documentation_runs_without_us(tmp_path: Path) -> None:
    files = {
        "operations/load_digits.py": "class LoadDigits:\n def execute(self): return 1, 2\n",
        "operations/train.py": """
            class Train:
                def __init__(self, hidden): self.hidden = hidden
                def execute(self, images, labels): return self.hidden, images
            """,
        "pipelines/digits.py": """
            from operations.load_digits import LoadDigits
            from operations.train import Train

            def digits(hidden: int = 64):
                images, labels = LoadDigits().execute()
                model, history = Train(hidden=hidden).execute(images, labels)
                return model, history
            """,
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(_dedented(text))

    done = subprocess.run(
        [sys.executable, "-c", "from pipelines.digits import digits; print(digits())"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "(64, 1)\n"
    assert len(read_pipeline({path: _dedented(text) for path, text in files.items()}).nodes) == 2


def _dedented(text: str) -> bytes:
    return dedent(text).encode()
