"""The outputs of an operation: the names of what its `execute` returns."""

from __future__ import annotations

import ast
import itertools
from collections import Counter
from collections.abc import Iterator

from deepforge.pipelines.finding import Findings, listed

_OWN_SCOPE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_Values = list[ast.expr]


def read_outputs(
    execute: ast.FunctionDef | ast.AsyncFunctionDef, findings: Findings
) -> tuple[str, ...] | None:
    """Name the outputs. None: they cannot be told, and a finding says why."""
    returns: list[ast.Return] = []
    for node in _of_this_scope(execute):
        if isinstance(node, (ast.Yield, ast.YieldFrom)):
            findings.add(
                node.lineno, "`execute` is a generator (it has `yield`)", "return the values"
            )
            return None
        if isinstance(node, ast.Return):
            returns.append(node)
    returns.sort(key=lambda one: (one.lineno, one.col_offset))
    alternatives = [(one.lineno, values) for one in returns for values in _alternatives(one)]
    if not _agree(alternatives, findings):
        return None
    filled = [values for _, values in alternatives if values]
    return tuple(_named(filled)) if filled else ()


def _of_this_scope(function: ast.AST) -> Iterator[ast.AST]:
    """Walk a function without the functions and classes within it."""
    waiting = list(getattr(function, "body", []))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, _OWN_SCOPE):
            waiting.extend(ast.iter_child_nodes(node))


def _alternatives(statement: ast.Return) -> list[_Values]:
    """Return the values of each way a `return` can go; none for `return` and `return None`."""
    waiting = [] if statement.value is None else [statement.value]
    found: list[_Values] = []
    while waiting:
        value = waiting.pop()
        if isinstance(value, ast.IfExp) and _has_tuple(value):
            waiting += [value.orelse, value.body]
        elif isinstance(value, ast.Tuple):
            found.append(value.elts)
        elif isinstance(value, ast.Constant) and value.value is None:
            found.append([])
        else:
            found.append([value])
    return found or [[]]


def _has_tuple(value: ast.expr) -> bool:
    while isinstance(value, ast.IfExp):
        if isinstance(value.body, ast.Tuple):
            return True
        value = value.orelse
    return isinstance(value, ast.Tuple)


def _agree(alternatives: list[tuple[int, _Values]], findings: Findings) -> bool:
    filled = [one for one in alternatives if one[1]]
    if not filled:
        return True
    first_line, first = filled[0]
    fine = True
    for line, values in alternatives:
        names = Counter(one.id for one in values if isinstance(one, ast.Name))
        twice = [name for name, count in names.items() if count > 1]
        if any(isinstance(one, ast.Starred) for one in values):
            findings.add(line, "a starred value hides how many outputs there are", "write them out")
        elif twice:
            findings.add(line, f"two outputs of one name: {listed(twice)}", "name one differently")
        elif len(values) != len(first) and (values or len(first) > 1):
            findings.add(
                line,
                f"`execute` returns {_counted(values)} here and {_counted(first)} "
                f"on line {first_line}",
                "return equally many everywhere, None for what is not there",
            )
        else:
            continue
        fine = False
    return fine


def _counted(values: _Values) -> str:
    return {0: "nothing", 1: "1 value"}.get(len(values), f"{len(values)} values")


def _named(alternatives: list[_Values]) -> list[str]:
    names: list[str] = []
    taken: set[str] = set()
    for values in zip(*alternatives, strict=True):
        spelled = (_name(value) for value in values)
        name = next((name for name in spelled if name and name not in taken), "")
        names.append(name)
        taken.add(name)
    free = (name for name in _unnamed() if name not in taken)
    return [name or next(free) for name in names]


def _unnamed() -> Iterator[str]:
    yield "result"
    for number in itertools.count(1):
        yield f"result_{number}"


def _name(value: ast.expr) -> str:
    """Return the name of a variable, or of `self.name`; nothing for any other expression."""
    if isinstance(value, ast.NamedExpr):
        value = value.target
    if isinstance(value, ast.Name):
        return value.id
    if (
        isinstance(value, ast.Attribute)
        and isinstance(value.value, ast.Name)
        and value.value.id == "self"
    ):
        return value.attr
    return ""
