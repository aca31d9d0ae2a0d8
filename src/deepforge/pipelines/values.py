"""Names and arguments in the text of a pipeline: what a name stands for, what may be passed where."""

from __future__ import annotations

import ast
import builtins
from dataclasses import dataclass
from typing import Literal

from deepforge.pipelines.finding import Findings, suggest
from deepforge.pipelines.graph import LiteralText
from deepforge.pipelines.literal import literal_text

Kind = Literal["operation", "pipeline", "resource", "outside", "parameter", "output", "broken"]

_WORDS: dict[type[ast.AST], str] = {
    ast.If: "a condition (`if`)",
    ast.IfExp: "a condition (`a if b else c`)",
    ast.For: "a loop (`for`)",
    ast.AsyncFor: "a loop (`async for`)",
    ast.While: "a loop (`while`)",
    ast.With: "`with`",
    ast.AsyncWith: "`async with`",
    ast.Try: "`try`",
    ast.Match: "`match`",
    ast.Raise: "`raise`",
    ast.Assert: "`assert`",
    ast.Delete: "`del`",
    ast.Global: "`global`",
    ast.Nonlocal: "`nonlocal`",
    ast.Import: "an import within the function",
    ast.ImportFrom: "an import within the function",
    ast.FunctionDef: "a function",
    ast.AsyncFunctionDef: "an async function",
    ast.ClassDef: "a class",
    ast.Return: "a `return`",
    ast.Assign: "an assignment",
    ast.AnnAssign: "an assignment",
    ast.AugAssign: "an assignment",
    ast.Lambda: "a lambda",
    ast.ListComp: "a comprehension",
    ast.SetComp: "a comprehension",
    ast.DictComp: "a comprehension",
    ast.GeneratorExp: "a generator expression",
    ast.JoinedStr: "an f-string",
    ast.NamedExpr: "an assignment expression (`:=`)",
    ast.Await: "`await`",
    ast.Yield: "`yield`",
    ast.YieldFrom: "`yield`",
    ast.Starred: "a starred name",
    ast.Attribute: "an attribute of an object",
    ast.Subscript: "an item of an object",
    ast.Call: "a call",
    ast.Name: "another name",
    ast.Tuple: "a tuple",
    ast.List: "a list",
    ast.Dict: "a dictionary",
    ast.Set: "a set",
    ast.Constant: "a constant",
}


def described(node: ast.AST) -> str:
    """Say in words what a piece of syntax is."""
    if isinstance(node, ast.Expr):
        node = node.value
    return _WORDS.get(type(node), "an expression" if isinstance(node, ast.expr) else "a statement")


@dataclass(frozen=True)
class Callee:
    """What is called, as the import says it, and the line of the import."""

    kind: Kind
    module: str
    name: str
    line: int


@dataclass(frozen=True)
class NameUse:
    """A parameter, or an output of an earlier statement, where it is used."""

    kind: Kind
    name: str
    line: int


@dataclass(frozen=True)
class ResourceUse:
    """A call of a resource where an attribute is wanted."""

    callee: Callee
    arguments: Arguments
    line: int


@dataclass(frozen=True)
class Broken:
    """An argument that a finding has been written about."""


Argument = LiteralText | NameUse | ResourceUse | Broken


@dataclass(frozen=True)
class Arguments:
    """What stands between the parentheses of a call."""

    positional: tuple[Argument, ...]
    named: tuple[tuple[str, Argument], ...]
    line: int


class Names:
    """The names of a pipeline file. Each binds once, before it is used."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._kinds: dict[str, Kind] = {}
        self._lines: dict[str, int] = {}
        self._callees: dict[str, Callee] = {}
        self._function: ast.FunctionDef | None = None
        self._later: dict[str, int] | None = None
        self._complained: set[tuple[str, int]] = set()

    def bind(self, name: str, kind: Kind, line: int, callee: Callee | None = None) -> None:
        if name in self._kinds:
            self._findings.add(
                line,
                f"`{name}` is bound again; it was bound on line {self._lines[name]}",
                "every name is bound once: choose another one",
            )
            kind, callee = "broken", None
        self._kinds[name] = kind
        self._lines[name] = line
        if callee is not None:
            self._callees[name] = callee

    def bind_stored(self, node: ast.AST) -> None:
        """Bind what a refused statement binds, so that it is complained about only once."""
        for one in ast.walk(node):
            if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store):
                self._kinds.setdefault(one.id, "broken")
                self._lines.setdefault(one.id, one.lineno)

    def claim(self, function: ast.FunctionDef) -> None:
        """Say which function is read. Its targets may hide its name, imports may not."""
        self._function = function
        if function.name in self._kinds:
            self.bind(function.name, "broken", function.lineno)

    def imports(self) -> tuple[Callee, ...]:
        """Return what is imported from the project's operations, pipelines and resources."""
        return tuple(one for one in self._callees.values() if one.kind != "outside")

    def use(self, node: ast.Name) -> NameUse | None:
        """Resolve a parameter or an output. None: it is neither, and a finding says so."""
        name, line = node.id, node.lineno
        kind = self._kinds.get(name)
        if kind in ("parameter", "output"):
            return NameUse(kind, name, line)
        if kind is None:
            self._unknown(name, line)
        elif kind == "resource":
            self._findings.add(line, f"the resource `{name}` is not called", f"call it: `{name}()`")
        elif kind != "broken":
            self._findings.add(
                line,
                f"`{name}` is imported; it is neither a parameter nor an output",
                "pass the names of parameters and of earlier outputs",
            )
        return None

    def callee(self, node: ast.expr) -> Callee | None:
        """Resolve what is called. None: it is nothing that can be, and a finding says so."""
        if not isinstance(node, ast.Name):
            self._findings.add(
                node.lineno,
                f"{described(node)} is called",
                "import by name: `from operations.train import Train`",
            )
            return None
        kind = self._kinds.get(node.id)
        callee = self._callees.get(node.id)
        if kind is None:
            self._unknown(node.id, node.lineno)
        elif kind in ("parameter", "output"):
            self._findings.add(
                node.lineno,
                f"`{node.id}` is {'a parameter' if kind == 'parameter' else 'an output'}, "
                "and is called",
                "write `Operation(...).execute(...)` in one statement",
            )
        elif callee is not None and kind == "outside":
            self._findings.add(
                node.lineno,
                f"`{node.id}` comes from `{callee.module}`, which is not part of a pipeline",
                suggest(callee.module.partition(".")[0], ("operations", "pipelines", "resources"))
                or "import from operations, pipelines and resources of the project",
            )
        elif kind != "broken":
            return callee
        return None

    def _unknown(self, name: str, line: int) -> None:
        if (name, line) in self._complained:
            return
        self._complained.add((name, line))
        if self._later is None:
            self._later = _bound_in(self._function)
        later = self._later.get(name)
        if self._function is not None and name == self._function.name and later is None:
            self._findings.add(
                line, f"the pipeline `{name}` calls itself", "a pipeline cannot be part of itself"
            )
        elif name == "_":
            self._findings.add(line, "`_` is not kept", "give the output a name")
        elif later is not None:
            self._findings.add(
                line,
                f"`{name}` is used before it is made, on line {later}",
                "a pipeline has no cycles: put the statement that makes it first",
            )
        elif hasattr(builtins, name):
            self._findings.add(
                line,
                f"`{name}` is Python's own, and not part of a pipeline",
                "use it inside an operation",
            )
        else:
            self._findings.add(
                line,
                f"there is no name `{name}`",
                suggest(name, self._kinds, otherwise="import it, or make it a parameter"),
            )


class ArgumentReader:
    """Reads what is passed: attributes to constructors, inputs to `execute`, both to pipelines."""

    def __init__(self, names: Names, findings: Findings) -> None:
        self._names = names
        self._findings = findings

    def of_constructor(self, call: ast.Call) -> Arguments:
        return self._arguments(call, "attribute")

    def of_execute(self, call: ast.Call) -> Arguments:
        return self._arguments(call, "input")

    def of_pipeline(self, call: ast.Call) -> Arguments:
        return self._arguments(call, "either")

    def _arguments(self, call: ast.Call, wanted: str) -> Arguments:
        named = []
        for keyword in call.keywords:
            if keyword.arg is None:
                self._findings.add(
                    keyword.value.lineno, "`**` hides what is passed", "write each argument out"
                )
            else:
                named.append((keyword.arg, self._argument(keyword.value, wanted)))
        positional = tuple(self._argument(one, wanted) for one in call.args)
        return Arguments(positional, tuple(named), call.lineno)

    def _argument(self, node: ast.expr, wanted: str) -> Argument:
        if isinstance(node, ast.Name):
            use = self._names.use(node)
            if use is not None and use.kind == "output" and wanted in ("attribute", "resource"):
                self._findings.add(
                    node.lineno,
                    f"`{use.name}` is an output, used as an attribute",
                    "pass it to `execute`; attributes are literals, parameters and resources",
                )
                return Broken()
            return use or Broken()
        if isinstance(node, ast.Starred):
            self._findings.add(node.lineno, "`*` hides what is passed", "write each argument out")
            return Broken()
        if wanted == "input":
            return self._input(node)
        try:
            return LiteralText(literal_text(node))
        except ValueError as error:
            reason = str(error)
        if isinstance(node, ast.Call) and wanted == "attribute":
            return self._resource(node)
        self._findings.add(
            node.lineno,
            f"{described(node)} is passed: {reason}",
            {
                "attribute": "attributes are literals, parameters and resources",
                "resource": "a resource takes literals and parameters",
                "either": "a pipeline takes literals, parameters and earlier outputs",
            }[wanted],
        )
        return Broken()

    def _input(self, node: ast.expr) -> Argument:
        if isinstance(node, ast.Constant) and node.value is None:
            return LiteralText("None")
        self._findings.add(
            node.lineno,
            f"{described(node)} is passed as an input",
            "inputs are parameters and earlier outputs, or None; literals are attributes",
        )
        return Broken()

    def _resource(self, node: ast.Call) -> Argument:
        callee = self._names.callee(node.func)
        if callee is None:
            return Broken()
        if callee.kind != "resource":
            self._findings.add(
                node.lineno,
                f"the call of `{ast.unparse(node.func)}` is passed as an attribute",
                "bind it to a name first, and pass that to `execute`",
            )
            return Broken()
        return ResourceUse(callee, self._arguments(node, "resource"), node.lineno)


def _bound_in(function: ast.FunctionDef | None) -> dict[str, int]:
    """Return the names that a function binds, and on which line first."""
    lines: dict[str, int] = {}
    for node in ast.walk(function) if function is not None else ():
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            lines.setdefault(node.id, node.lineno)
    return lines
