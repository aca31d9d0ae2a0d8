"""Arguments of constructors and functions, read from their text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from deepforge.pipelines.literal import literal_text, read_literal


@dataclass(frozen=True)
class Attribute:
    """One argument that takes a value.

    `default` is literal text; it is None when the argument is `required`, and also when the default
    is an expression that only Python can evaluate.
    """

    name: str
    annotation: str | None
    default: str | None
    required: bool
    keyword_only: bool = False

    @property
    def type(self) -> str | None:
        """From the annotation, else from the default, else None: anything."""
        return self.annotation or type_of(self.default)


def type_of(default: str | None) -> str | None:
    """Name the type of a literal text; None says nothing about the type."""
    if default in (None, "None"):
        return None
    return type(read_literal(default)).__name__


def attributes_of(arguments: ast.arguments, *, skip: int = 0) -> tuple[Attribute, ...]:
    """Read the named arguments after the first `skip` (self). `*args` and `**options` are left out:
    nothing can be given to them."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    defaults += arguments.defaults
    first = [
        _attribute(argument, default)
        for argument, default in zip(positional, defaults, strict=True)
    ]
    rest = [
        _attribute(argument, default, keyword_only=True)
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return (*first[skip:], *rest)


def is_dataclass(node: ast.ClassDef) -> bool:
    """Whether the fields of a class are its constructor's arguments."""
    return any(_keyword(one, "init") is not False for one in _dataclass_decorators(node))


def field_attributes(classes: list[ast.ClassDef]) -> tuple[Attribute, ...]:
    """Read the fields of dataclasses, base classes first, as their constructor takes them."""
    found: dict[str, Attribute] = {}
    for node in classes:
        all_keywords = any(_keyword(one, "kw_only") for one in _dataclass_decorators(node))
        for statement in node.body:
            if not isinstance(statement, ast.AnnAssign) or not isinstance(
                statement.target, ast.Name
            ):
                continue
            kind = _last_word(statement.annotation)
            if kind == "KW_ONLY":
                all_keywords = True
            elif kind != "ClassVar":
                name = statement.target.id
                field = _field(name, statement, all_keywords)
                if field is None:
                    found.pop(name, None)
                else:
                    found[name] = field
    return tuple(sorted(found.values(), key=lambda one: one.keyword_only))


def decorator_names(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Give the last word of each decorator: `wraps` for `@functools.wraps(other)`."""
    for one in node.decorator_list:
        yield _last_word(one.func if isinstance(one, ast.Call) else one)


def annotation_text(node: ast.expr | None) -> str | None:
    """Spell an annotation; a quoted one without its quotes."""
    if node is None:
        return None
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ast.unparse(node)


def _attribute(
    argument: ast.arg, default: ast.expr | None, *, keyword_only: bool = False
) -> Attribute:
    return Attribute(
        name=argument.arg,
        annotation=annotation_text(argument.annotation),
        default=_default(default),
        required=default is None,
        keyword_only=keyword_only,
    )


def _default(node: ast.expr | None) -> str | None:
    if node is None:
        return None
    try:
        return literal_text(node)
    except ValueError:
        return None


def _field(name: str, statement: ast.AnnAssign, keyword_only: bool) -> Attribute | None:
    """Read one field; None for one that the constructor does not take."""
    annotation = statement.annotation
    if isinstance(annotation, ast.Subscript) and _last_word(annotation) == "InitVar":
        annotation = annotation.slice
    text = annotation_text(annotation)
    value = statement.value
    if not (isinstance(value, ast.Call) and _last_word(value.func) == "field"):
        return Attribute(name, text, _default(value), value is None, keyword_only)
    if _keyword(value, "init") is False:
        return None
    given = {one.arg: one.value for one in value.keywords}
    keyword_only = bool(_keyword(value, "kw_only", otherwise=keyword_only))
    if "default_factory" in given:
        empty = {"list": "[]", "dict": "{}", "tuple": "()", "set": "set()"}
        default = empty.get(_last_word(given["default_factory"]))
        return Attribute(name, text, default, False, keyword_only)
    return Attribute(
        name, text, _default(given.get("default")), "default" not in given, keyword_only
    )


def _dataclass_decorators(node: ast.ClassDef) -> list[ast.expr]:
    names = decorator_names(node)
    return [
        one for one, name in zip(node.decorator_list, names, strict=True) if name == "dataclass"
    ]


def _keyword(node: ast.expr, name: str, *, otherwise: object = None) -> object:
    """Return the constant a call gives for a keyword."""
    for one in node.keywords if isinstance(node, ast.Call) else ():
        if one.arg == name and isinstance(one.value, ast.Constant):
            return one.value.value
    return otherwise


def _last_word(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.partition("[")[0].rpartition(".")[2].strip()
    if isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
