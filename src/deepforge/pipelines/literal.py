"""Python values as literal text: what `ast.literal_eval` reads, spelled one way.

Attribute values travel as such text, since JSON would lose tuples, sets, bytes and integer keys.
"""

from __future__ import annotations

import ast
import math
from typing import Any  # any value a Python literal can have


def literal_text(node: ast.expr) -> str:
    """Spell the literal an expression is. Raises `ValueError` with the reason if it is none."""
    return spell(_evaluated(node))


def read_literal(text: str) -> Any:
    """Read literal text. Raises `ValueError` with the reason for anything else."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError("it is not a Python literal") from None
    value = _evaluated(tree.body)
    spell(value)  # refuses what a literal can hold and a job cannot
    return value


def spell(value: Any) -> str:
    """Write a value so that equal values have one text, whatever the hash seed of the process.

    Raises `ValueError` for NaN, infinity, and what no literal can be.
    """
    try:
        return _spelled(value)
    except RecursionError:
        raise ValueError("the value is nested too deeply") from None


def _evaluated(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise ValueError("it is not a Python literal") from None
    except (RecursionError, MemoryError):
        raise ValueError("the value is nested too deeply") from None


def _spelled(value: Any) -> str:
    if value is None or isinstance(value, (bool, str, bytes)):
        return repr(value)
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, (float, complex)):
        parts = (value.real, value.imag)
        if not all(math.isfinite(part) for part in parts):
            raise ValueError("NaN and infinity cannot be attributes")
        return repr(value if isinstance(value, float) else complex(*(part + 0.0 for part in parts)))
    if isinstance(value, tuple):
        inner = ", ".join(_spelled(one) for one in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, list):
        return "[" + ", ".join(_spelled(one) for one in value) + "]"
    if isinstance(value, (set, frozenset)):
        inner = ", ".join(sorted(_spelled(one) for one in value))
        return "{" + inner + "}" if value else "set()"
    if isinstance(value, dict):
        pairs = (f"{_spelled(key)}: {_spelled(one)}" for key, one in value.items())
        return "{" + ", ".join(pairs) + "}"
    raise ValueError(f"{type(value).__name__} is not a Python literal")


def _integer(value: int) -> str:
    try:
        return repr(value)
    except ValueError:  # Python's own limit, which the far side has too
        raise ValueError("the integer has too many digits") from None
