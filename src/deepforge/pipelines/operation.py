"""The interface of an operation, read from the text of its class.

    class Train:
        def __init__(self, hidden=64): ...       attributes
        def execute(self, images, labels):       inputs
            return model, history                outputs

One operation a file: the class with `execute`, its own or that of a base class in the same file. A
class that another one of the file inherits from is a helper, and so is a second class whose name
begins with an underscore. Decorators are taken to keep the signature. A base class from elsewhere is
fine when the class itself says both `__init__` and `execute`.

Outputs are named after what is returned. All `return` statements must return equally many values;
where their names differ, the first that has one gives it. A `return` without a value beside returns
of one value is that value None.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from deepforge.pipelines.finding import Findings, listed
from deepforge.pipelines.needs import Requirements, read_requirements
from deepforge.pipelines.outputs import read_outputs
from deepforge.pipelines.signature import (
    Attribute,
    attributes_of,
    decorator_names,
    field_attributes,
    is_dataclass,
)
from deepforge.pipelines.source import Source

_MOST_BASES = 100
_HARMLESS_BASES = ("object", "ABC", "Generic", "Protocol")
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Port:
    """One input. `optional`: it has a default, so the text may leave it out."""

    name: str
    optional: bool
    keyword_only: bool = False


@dataclass(frozen=True)
class OperationInterface:
    """What can be given to an operation and what it gives back.

    `variadic` is the name of `execute(self, *parts)`, None without one.
    """

    module: str
    name: str
    file: str
    line: int
    docstring: str
    attributes: tuple[Attribute, ...]
    inputs: tuple[Port, ...]
    variadic: str | None
    outputs: tuple[str, ...]
    requirements: Requirements = field(default_factory=Requirements)

    @property
    def single_value(self) -> bool:
        """One output takes the whole value that `execute` returns; several are unpacked."""
        return len(self.outputs) == 1


def read_operation(source: Source, findings: Findings) -> OperationInterface | None:
    """Read the operation of a file. None: it cannot be, and a finding says why."""
    classes = {one.name: one for one in source.tree.body if isinstance(one, ast.ClassDef)}
    requirements = read_requirements(source, findings)
    node = _operation_class(source, classes, findings)
    if node is None:
        return None
    lineage, outside = _lineage(node, classes)
    execute = _method(lineage, "execute")
    assert execute is not None  # that is how the class was chosen
    constructor = _constructor(node, lineage, outside, findings)
    inputs = _inputs(execute, findings)
    outputs = read_outputs(execute, findings)
    if constructor is None or inputs is None or outputs is None:
        return None
    ports, variadic = inputs
    return OperationInterface(
        module=source.module,
        name=node.name,
        file=source.file,
        line=node.lineno,
        docstring=ast.get_docstring(node) or ast.get_docstring(source.tree) or "",
        attributes=constructor,
        inputs=ports,
        variadic=variadic,
        outputs=outputs,
        requirements=requirements,
    )


def _operation_class(
    source: Source, classes: dict[str, ast.ClassDef], findings: Findings
) -> ast.ClassDef | None:
    able = [one for one in classes.values() if _method(_lineage(one, classes)[0], "execute")]
    bases = {base.name for one in able for base in _lineage(one, classes)[0][1:]}
    chosen = [one for one in able if one.name not in bases]
    if len(chosen) > 1:
        chosen = [one for one in chosen if not one.name.startswith("_")] or chosen
    if not chosen:
        hint = "write one, as in `class Train: def execute(self, images): ... return model`"
        if any(_lineage(one, classes)[1] for one in classes.values()):
            hint = "a base class of another file is not read: write `execute` in this one"
        findings.add(1, "the file has no class with an `execute` method", hint)
        return None
    for one in chosen[1:]:
        findings.add(
            one.lineno,
            f"a second operation, {one.name}, beside {chosen[0].name}: one operation a file",
            f"move {one.name} to a file of its own, or call it _{one.name} if it is a helper",
        )
    return chosen[0] if len(chosen) == 1 else None


def _lineage(
    node: ast.ClassDef, classes: dict[str, ast.ClassDef]
) -> tuple[list[ast.ClassDef], list[str]]:
    """Return the class and its base classes in this file, nearest first, and the bases elsewhere."""
    lineage: dict[str, ast.ClassDef] = {}
    outside: list[str] = []
    waiting = [node]
    while waiting and len(lineage) < _MOST_BASES:
        one = waiting.pop(0)
        if one.name in lineage:
            continue
        lineage[one.name] = one
        for base in one.bases:
            name = base.value if isinstance(base, ast.Subscript) else base
            if isinstance(name, ast.Name) and name.id in classes:
                waiting.append(classes[name.id])
            elif ast.unparse(name).rpartition(".")[2] not in _HARMLESS_BASES:
                outside.append(ast.unparse(name))
    return list(lineage.values()), outside


def _method(lineage: list[ast.ClassDef], name: str) -> _Function | None:
    for node in lineage:
        own = _own_method(node, name)
        if own is not None:
            return own
    return None


def _own_method(node: ast.ClassDef, name: str) -> _Function | None:
    found = [
        one
        for one in node.body
        if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)) and one.name == name
    ]
    return found[-1] if found else None


def _constructor(
    node: ast.ClassDef, lineage: list[ast.ClassDef], outside: list[str], findings: Findings
) -> tuple[Attribute, ...] | None:
    for place, one in enumerate(lineage):
        method = _own_method(one, "__init__")
        if method is not None:
            return _method_attributes(method, findings)
        if is_dataclass(one):
            bases = [base for base in lineage[place:] if is_dataclass(base)]
            return field_attributes(bases[::-1])
    if outside:
        findings.add(
            node.lineno,
            f"the constructor of {node.name} is that of {listed(outside)}, outside this file",
            f"write `__init__` in {node.name}, so that its attributes can be read",
        )
        return None
    return ()


def _method_attributes(method: _Function, findings: Findings) -> tuple[Attribute, ...] | None:
    if not _has_self(method):
        findings.add(method.lineno, "`__init__` has no `self`")
        return None
    if _refused_positional_only(method, findings):
        return None
    return attributes_of(method.args, skip=1)


def _inputs(execute: _Function, findings: Findings) -> tuple[tuple[Port, ...], str | None] | None:
    decorators = list(decorator_names(execute))
    if isinstance(execute, ast.AsyncFunctionDef) or "property" in decorators:
        kind = "a property" if "property" in decorators else "`async`"
        findings.add(execute.lineno, f"`execute` is {kind}; it must be a plain method")
        return None
    bound = "staticmethod" not in decorators
    if bound and not _has_self(execute):
        findings.add(execute.lineno, "`execute` has no `self`")
        return None
    if _refused_positional_only(execute, findings):
        return None
    arguments = attributes_of(execute.args, skip=int(bound))
    ports = tuple(Port(one.name, not one.required, one.keyword_only) for one in arguments)
    variadic = execute.args.vararg
    named = [port.name for port in ports if not port.keyword_only]
    if variadic is not None and named:
        findings.add(
            execute.lineno,
            f"`execute` takes {listed(named)} before `*{variadic.arg}`; inputs are passed by name",
            f"write `execute(self, *{variadic.arg}, {', '.join(named)})`",
        )
        return None
    return ports, None if variadic is None else variadic.arg


def _has_self(method: _Function) -> bool:
    return bool(method.args.posonlyargs or method.args.args)


def _refused_positional_only(method: _Function, findings: Findings) -> bool:
    """What is passed is passed by name, so only `self` may stand before a `/`."""
    names = [one.arg for one in method.args.posonlyargs[1:]]
    if names:
        findings.add(
            method.lineno,
            f"`{method.name}` takes {listed(names)} by position only",
            "leave out the `/`: attributes and inputs are passed by name",
        )
    return bool(names)
