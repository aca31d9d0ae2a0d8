"""The text of one pipeline as statements: names resolved within the file, nothing known beyond it.

Here live the rules that need no other file: what may stand in a pipeline, and that names bind once and
before they are used. Whether a call fits what it calls is `check.py`'s question.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from deepforge.pipelines.finding import Findings
from deepforge.pipelines.signature import Attribute, attributes_of
from deepforge.pipelines.source import Source
from deepforge.pipelines.values import (
    ArgumentReader,
    Arguments,
    Callee,
    Kind,
    Names,
    NameUse,
    described,
)

_FILE_HINT = (
    "a pipeline file holds a docstring, imports, one public function of the file's name, "
    'and an `if __name__ == "__main__"` guard'
)
_BODY_HINT = (
    "a pipeline holds statements like `a, b = Operation(size=3).execute(x, y)`, calls of other "
    "pipelines, and one `return` at its end"
)
_KINDS: dict[str, Kind] = {
    "operations": "operation",
    "pipelines": "pipeline",
    "resources": "resource",
}


@dataclass(frozen=True)
class Step:
    """One call. `attributes` is None for the call of another pipeline."""

    callee: Callee
    targets: tuple[str, ...]
    attributes: Arguments | None
    inputs: Arguments
    line: int


@dataclass(frozen=True)
class Draft:
    """One pipeline as it is written."""

    name: str
    file: str
    line: int
    docstring: str
    parameters: tuple[Attribute, ...] = ()
    parameter_lines: dict[str, int] = field(default_factory=dict)
    imports: tuple[Callee, ...] = ()
    steps: tuple[Step, ...] = ()
    returns: tuple[NameUse, ...] = ()


def read_draft(source: Source, findings: Findings) -> Draft | None:
    """Read one pipeline. None: the file has no function to read, and a finding says so."""
    names = Names(findings)
    functions = []
    for place, node in enumerate(source.tree.body):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            _import(node, names, findings)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            functions.append(node)
        elif not (_is_guard(node) or (place == 0 and _is_docstring(node))):
            what = described(node)
            findings.add(node.lineno, f"{what} does not belong in a pipeline file", _FILE_HINT)
    function = _only_function(source, functions, findings)
    if function is None:
        return None
    return _Body(names, findings).read(function, source)


def _import(node: ast.Import | ast.ImportFrom, names: Names, findings: Findings) -> None:
    if isinstance(node, ast.Import):
        for alias in node.names:
            bound = alias.asname or alias.name.partition(".")[0]
            names.bind(
                bound, "outside", node.lineno, Callee("outside", alias.name, "", node.lineno)
            )
        return
    module = node.module or ""
    if node.level or any(alias.name == "*" for alias in node.names):
        kind = "a relative import" if node.level else "`import *`"
        findings.add(
            node.lineno,
            f"{kind} hides what is imported",
            "e.g. `from operations.train import Train`",
        )
        for alias in node.names:
            names.bind(alias.asname or alias.name, "broken", node.lineno)
        return
    folder, _, rest = module.partition(".")
    for alias in node.names:
        bound = alias.asname or alias.name
        if folder in _KINDS and not rest:
            findings.add(
                node.lineno,
                f"`{alias.name}` is imported as a module",
                f"import by name: `from {folder}.{alias.name} import ...`",
            )
            names.bind(bound, "broken", node.lineno)
        else:
            kind_of_name = _KINDS.get(folder, "outside")
            callee = Callee(kind_of_name, module, alias.name, node.lineno)
            names.bind(bound, kind_of_name, node.lineno, callee)


def _only_function(
    source: Source, functions: Sequence[ast.FunctionDef | ast.AsyncFunctionDef], findings: Findings
) -> ast.FunctionDef | None:
    expected = source.module.rpartition(".")[2]
    public = []
    for one in functions:
        if one.name.startswith("_") and one.name != expected:
            findings.add(
                one.lineno,
                f"`{one.name}` is a helper function; a pipeline file has none",
                "move its work to an operation, or its wiring to a pipeline of its own",
            )
        else:
            public.append(one)
    if not public:
        findings.add(1, f"the file has no function `{expected}`", _FILE_HINT)
        return None
    function = next((one for one in public if one.name == expected), public[0])
    for one in public:
        if one is not function:
            findings.add(
                one.lineno,
                f"a second function, `{one.name}`: one pipeline a file",
                f"move it to pipelines/{one.name}.py",
            )
    if function.name != expected:
        findings.add(
            function.lineno,
            f"the function is called `{function.name}` and its file `{expected}`",
            f"rename the function to `{expected}`",
        )
    if isinstance(function, ast.AsyncFunctionDef):
        findings.add(function.lineno, f"`{function.name}` is `async`", "write a plain `def`")
        return None
    for decorator in function.decorator_list:
        findings.add(
            decorator.lineno, "a decorator on a pipeline", "a pipeline is a plain function"
        )
    return function


class _Body:
    """Reads the function: parameters, statements, `return`."""

    def __init__(self, names: Names, findings: Findings) -> None:
        self._names = names
        self._findings = findings
        self._arguments = ArgumentReader(names, findings)
        self._steps: list[Step] = []
        self._returns: tuple[NameUse, ...] = ()

    def read(self, function: ast.FunctionDef, source: Source) -> Draft:
        self._names.claim(function)
        lines = self._parameters(function)
        body = function.body[1:] if _is_docstring(function.body[0]) else function.body
        for place, statement in enumerate(body):
            if isinstance(statement, ast.Return):
                self._return(statement)
                if place + 1 < len(body):
                    line = body[place + 1].lineno
                    self._add(line, "nothing may follow `return`", _BODY_HINT)
                break
            self._statement(statement)
        return Draft(
            name=function.name,
            file=source.file,
            line=function.lineno,
            docstring=ast.get_docstring(function) or ast.get_docstring(source.tree) or "",
            parameters=attributes_of(function.args),
            parameter_lines=lines,
            imports=self._names.imports(),
            steps=tuple(self._steps),
            returns=self._returns,
        )

    def _parameters(self, function: ast.FunctionDef) -> dict[str, int]:
        arguments = function.args
        for star, argument in (("*", arguments.vararg), ("**", arguments.kwarg)):
            if argument is not None:
                self._add(
                    argument.lineno,
                    f"`{star}{argument.arg}` is not a parameter that can be given at launch",
                    "name each parameter",
                )
                self._names.bind(argument.arg, "broken", argument.lineno)
        if arguments.posonlyargs:
            self._add(function.lineno, "parameters by position only", "leave out the `/`")
        lines: dict[str, int] = {}
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            lines[argument.arg] = argument.lineno
            if argument.arg == "_":
                self._add(argument.lineno, "a parameter named `_` cannot be used", "give it a name")
            self._names.bind(argument.arg, "parameter", argument.lineno)
        known = {one.name: one for one in attributes_of(arguments)}
        for name, line in lines.items():
            if known[name].default is None and not known[name].required:
                self._add(
                    line, f"the default of `{name}` is not a literal", "e.g. 64, 'adam', None"
                )
        return lines

    def _statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Pass):
            return
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            self._step(node.value, ())
            return
        if isinstance(node, ast.Assign):
            targets = self._targets(node)
            if targets is not None:
                self._assigned(node, targets)
                return
        elif isinstance(node, (ast.AnnAssign, ast.AugAssign)):
            what = "an annotated target" if isinstance(node, ast.AnnAssign) else "`+=` and its like"
            self._add(node.lineno, f"{what} is not allowed in a pipeline", _BODY_HINT)
        else:
            what = described(node)
            self._add(node.lineno, f"{what} is not allowed in a pipeline", _BODY_HINT)
        self._names.bind_stored(node)

    def _assigned(self, node: ast.Assign, targets: tuple[str, ...]) -> None:
        if isinstance(node.value, ast.Call):
            kept = self._step(node.value, targets)
        else:
            what = described(node.value)
            self._add(node.lineno, f"a name is bound to {what}, not to a call", _BODY_HINT)
            kept = False
        for name in targets:
            if name != "_":
                self._names.bind(name, "output" if kept else "broken", node.lineno)

    def _targets(self, node: ast.Assign) -> tuple[str, ...] | None:
        if len(node.targets) > 1:
            self._add(node.lineno, "a chained assignment (`a = b = ...`)", "bind each name once")
            return None
        target = node.targets[0]
        parts = target.elts if isinstance(target, ast.Tuple) else [target]
        names = []
        for part in parts:
            if not isinstance(part, ast.Name):
                what = described(part)
                self._add(node.lineno, f"{what} as a target", "targets are names: `a, b = ...`")
                return None
            names.append(part.id)
        if isinstance(target, ast.Tuple) and len(names) < 2:
            self._add(
                node.lineno,
                "a target tuple of fewer than two names",
                "one output is bound as `a = ...`",
            )
            return None
        counts = Counter(name for name in names if name != "_")
        for name, count in counts.items():
            if count > 1:
                self._add(node.lineno, f"`{name}` is bound twice", "every name is bound once")
                return None
        return tuple(names)

    def _step(self, call: ast.Call, targets: tuple[str, ...]) -> bool:
        """Read one call. True: it became a step, and its targets are outputs."""
        function = call.func
        if isinstance(function, ast.Attribute):
            return self._operation_call(call, function, targets)
        callee = self._names.callee(function)
        if callee is None:
            return False
        name = ast.unparse(function)
        if callee.kind == "operation":
            hint = f"write `{name}(...).execute(...)`"
            self._add(call.lineno, f"the operation `{name}` is made and not executed", hint)
            return False
        if callee.kind == "resource":
            hint = f"a resource is an attribute: `Train({name}(...)).execute(...)`"
            self._add(call.lineno, f"the resource `{name}` is called by itself", hint)
            return False
        inputs = self._arguments.of_pipeline(call)
        self._steps.append(Step(callee, targets, None, inputs, call.lineno))
        return True

    def _operation_call(
        self, call: ast.Call, function: ast.Attribute, targets: tuple[str, ...]
    ) -> bool:
        made = function.value
        if function.attr != "execute" or not isinstance(made, ast.Call):
            what = described(made)
            self._add(call.lineno, f"a call of `{function.attr}` of {what}", _BODY_HINT)
            return False
        callee = self._names.callee(made.func)
        if callee is None:
            return False
        if callee.kind != "operation":
            name = ast.unparse(made.func)
            hint = f"call it as it is: `{name}(...)`" if callee.kind == "pipeline" else _BODY_HINT
            message = f"the {callee.kind} `{name}` is used as an operation"
            self._add(call.lineno, message, hint)
            return False
        attributes = self._arguments.of_constructor(made)
        inputs = self._arguments.of_execute(call)
        self._steps.append(Step(callee, targets, attributes, inputs, call.lineno))
        return True

    def _return(self, node: ast.Return) -> None:
        value = node.value
        if value is None or (isinstance(value, ast.Constant) and value.value is None):
            return
        parts = value.elts if isinstance(value, ast.Tuple) else [value]
        uses: list[NameUse] = []
        seen: set[str] = set()
        for part in parts:
            if not isinstance(part, ast.Name):
                what = described(part)
                self._add(
                    part.lineno, f"`return` gives {what}", "return names: `return model, score`"
                )
                continue
            use = self._names.use(part)
            if use is None:
                continue
            if use.kind == "parameter":
                self._add(
                    part.lineno,
                    f"`return` gives the parameter `{part.id}`",
                    "a pipeline returns what its operations make",
                )
            elif use.name in seen:
                self._add(part.lineno, f"two outputs of one name: `{part.id}`", "return it once")
            else:
                uses.append(use)
                seen.add(use.name)
        self._returns = tuple(uses)

    def _add(self, line: int, message: str, hint: str | None = None) -> None:
        self._findings.add(line, message, hint)


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _is_guard(node: ast.stmt) -> bool:
    """Recognise `if __name__ == "__main__":`. What it holds is not part of the pipeline."""
    if not (isinstance(node, ast.If) and not node.orelse and isinstance(node.test, ast.Compare)):
        return False
    test = node.test
    if len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq):
        return False
    sides = [test.left, test.comparators[0]]
    return any(isinstance(one, ast.Name) and one.id == "__name__" for one in sides) and any(
        isinstance(one, ast.Constant) and one.value == "__main__" for one in sides
    )
