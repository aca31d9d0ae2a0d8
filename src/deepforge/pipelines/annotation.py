"""What an annotation says about a value: does it fit, and how is a text or JSON turned into it.

Read from the annotation's text; a name that is not known here (`np.ndarray`) accepts every value.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import lru_cache
from typing import Any  # any value a Python literal can have

from deepforge.pipelines.literal import read_literal

_ANYTHING = ast.Constant(value=...)
_LONGEST = 1000  # nobody reads a longer one; what is read is kept
_SIMPLE: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "complex": (complex, float, int),
    "str": (str,),
    "bytes": (bytes,),
    "bool": (bool,),
}
_CONTAINERS: dict[str, tuple[type, ...]] = {
    "list": (list,),
    "List": (list,),
    "MutableSequence": (list,),
    "tuple": (tuple,),
    "Tuple": (tuple,),
    "Sequence": (list, tuple, str, bytes),
    "Iterable": (list, tuple, str, bytes, set, dict),
    "Collection": (list, tuple, str, bytes, set, dict),
    "set": (set,),
    "Set": (set,),
    "frozenset": (set,),
    "FrozenSet": (set,),
    "AbstractSet": (set,),
    "MutableSet": (set,),
    "dict": (dict,),
    "Dict": (dict,),
    "Mapping": (dict,),
    "MutableMapping": (dict,),
}
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def fits(value: Any, annotation: str) -> bool:
    """Say whether a value is of the annotated type. What cannot be judged fits."""
    try:
        _checked(value, _read(annotation), loose=False)
    except ValueError:
        return False
    except RecursionError:
        return True
    return True


def from_text(text: str, annotation: str | None) -> Any:
    """Turn what somebody typed into a value of the type; without one it stays text.

    Raises `ValueError` if it cannot be.
    """
    if annotation is None:
        return text
    return _finished(annotation, lambda kind: _converted(text, kind))


def from_json(value: Any, annotation: str | None) -> Any:
    """Turn a JSON value that is not a string into the type: lists into tuples, text keys into
    integers, `1` into `1.0`. Raises `ValueError` if it cannot be."""
    return _finished(annotation or "object", lambda kind: _checked(value, kind, loose=True))


def _finished(annotation: str, make: Callable[[ast.expr], Any]) -> Any:
    try:
        return make(_read(annotation))
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise ValueError(f"it is not {annotation}") from None


@lru_cache(maxsize=1024)
def _read(annotation: str) -> ast.expr:
    if len(annotation) > _LONGEST:
        return _ANYTHING
    try:
        return ast.parse(annotation, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return _ANYTHING


def _converted(text: str, kind: ast.expr) -> Any:
    name = _name(kind)
    if name == "str":
        return text
    if name == "None":
        return _only_none(text)
    if name == "bool":
        return _boolean(text)
    if name in ("int", "float", "complex"):
        return _number(text, name)
    if name == "Literal":
        return _choice(text, kind)
    members = _members(kind)
    if members:
        return _first(text, members)
    inner = _inside(kind)
    if inner is not None:
        return _converted(text, inner)
    try:
        value = read_literal(text)
    except ValueError:
        if name in _CONTAINERS or name == "bytes":
            raise
        return text  # a type of the author's own, or none that we know
    return _checked(value, kind, loose=True)


def _first(text: str, members: list[ast.expr]) -> Any:
    """Take the first member that accepts the text; plain text accepts all, so it comes last."""
    for member in sorted(members, key=lambda one: (_name(one) == "str", _name(one) != "None")):
        try:
            return _converted(text, member)
        except ValueError:
            continue
    raise ValueError


def _checked(value: Any, kind: ast.expr, *, loose: bool) -> Any:
    """Return the value, when `loose` brought into the type. Raises `ValueError` if it is not."""
    name = _name(kind)
    if name == "None":
        return _must(value is None, value)
    if name == "Literal":
        options = _options(kind)
        return _must(any(value == one and type(value) is type(one) for one in options), value)
    members = _members(kind)
    if members:
        return _first_fitting(value, members, loose=loose)
    inner = _inside(kind)
    if inner is not None:
        return _checked(value, inner, loose=loose)
    if name in _SIMPLE:
        return _simple(value, name, loose=loose)
    if name in _CONTAINERS:
        return _container(value, name, kind, loose=loose)
    return value


def _first_fitting(value: Any, members: list[ast.expr], *, loose: bool) -> Any:
    for strictness in (False, True) if loose else (False,):
        for member in members:
            try:
                return _checked(value, member, loose=strictness)
            except ValueError:
                continue
    raise ValueError


def _simple(value: Any, name: str, *, loose: bool) -> Any:
    if isinstance(value, bool) != (name == "bool"):
        raise ValueError  # True is an int to Python, and a mistake to everybody else
    if loose and name == "float" and isinstance(value, int):
        return float(value)
    if isinstance(value, _SIMPLE[name]):
        return value
    if loose and name == "int" and isinstance(value, float) and value.is_integer():
        return int(value)  # JSON does not tell 3 from 3.0
    raise ValueError


def _container(value: Any, name: str, kind: ast.expr, *, loose: bool) -> Any:
    accepted = _CONTAINERS[name]
    wanted = accepted[0]
    if not isinstance(value, accepted):
        if not (loose and isinstance(value, (list, tuple)) and wanted in (list, tuple, set)):
            raise ValueError
        try:
            value = wanted(value)
        except TypeError:
            raise ValueError from None
    arguments = _arguments(kind)
    if not arguments or isinstance(value, (str, bytes)):
        return value
    if isinstance(value, dict):
        return _pairs(value, arguments, loose=loose)
    if isinstance(value, tuple) and name in ("tuple", "Tuple"):
        return _fields(value, arguments, loose=loose)
    return type(value)(_checked(one, arguments[0], loose=loose) for one in value)


def _pairs(value: dict[Any, Any], arguments: list[ast.expr], *, loose: bool) -> dict[Any, Any]:
    if len(arguments) != 2:
        return value
    key_kind, value_kind = arguments

    def key(one: Any) -> Any:
        if loose and isinstance(one, str):  # the only keys that JSON has
            return _converted(one, key_kind)
        return _checked(one, key_kind, loose=loose)

    return {key(one): _checked(part, value_kind, loose=loose) for one, part in value.items()}


def _fields(value: tuple[Any, ...], kinds: list[ast.expr], *, loose: bool) -> tuple[Any, ...]:
    if len(kinds) == 2 and isinstance(kinds[1], ast.Constant) and kinds[1].value is ...:
        return tuple(_checked(one, kinds[0], loose=loose) for one in value)
    if isinstance(kinds[0], ast.Tuple) and not kinds[0].elts:
        kinds = []  # tuple[()]
    _must(len(kinds) == len(value), value)
    return tuple(_checked(one, kind, loose=loose) for one, kind in zip(value, kinds, strict=True))


def _name(kind: ast.expr) -> str:
    """Return the last word of a type's name: `Literal` for `typing.Literal["a"]`."""
    if isinstance(kind, ast.Subscript):
        return _name(kind.value)
    if isinstance(kind, ast.Attribute):
        return kind.attr
    if isinstance(kind, ast.Constant) and kind.value is None:
        return "None"
    return kind.id if isinstance(kind, ast.Name) else ""


def _members(kind: ast.expr) -> list[ast.expr]:
    """Return what a union is made of, else nothing."""
    if isinstance(kind, ast.BinOp) and isinstance(kind.op, ast.BitOr):
        return [kind.left, kind.right]
    if _name(kind) == "Union":
        return _arguments(kind)
    if _name(kind) == "Optional":
        return [*_arguments(kind), ast.Constant(value=None)]
    return []


def _inside(kind: ast.expr) -> ast.expr | None:
    """Return the type within a quoted or `Annotated` one, else None."""
    if isinstance(kind, ast.Constant) and isinstance(kind.value, str):
        return _read(kind.value)
    if _name(kind) in ("Annotated", "Final", "InitVar") and _arguments(kind):
        return _arguments(kind)[0]
    return None


def _arguments(kind: ast.expr) -> list[ast.expr]:
    if not isinstance(kind, ast.Subscript):
        return []
    return (
        kind.slice.elts if isinstance(kind.slice, ast.Tuple) and kind.slice.elts else [kind.slice]
    )


def _options(kind: ast.expr) -> list[Any]:
    try:
        return [ast.literal_eval(one) for one in _arguments(kind)]
    except (ValueError, TypeError):
        return []


def _choice(text: str, kind: ast.expr) -> Any:
    for option in _options(kind):
        if text in (option if isinstance(option, str) else repr(option), repr(option)):
            return option
    raise ValueError


def _only_none(text: str) -> None:
    if text.strip() != "None":
        raise ValueError


def _boolean(text: str) -> bool:
    try:
        return _TRUTH[text.strip().lower()]
    except KeyError:
        raise ValueError from None


def _number(text: str, name: str) -> complex:
    kinds: dict[str, Callable[[str], complex]] = {"int": int, "float": float, "complex": complex}
    return kinds[name](text)


def _must(condition: bool, value: Any) -> Any:
    if not condition:
        raise ValueError
    return value
