"""Values, orders and bad bodies for the exam of the documents port."""

from __future__ import annotations

import math
from typing import Any

from deepforge.documents.port import Scalar

ROUND_TRIPS: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**31,
    2**63 - 1,
    -(2**63),
    1.0,
    0.1,
    -2.5e-300,
    1.7976931348623157e308,
    5e-324,
    "",
    "1",
    "Grüße 😀 \u4e2d\u6587 \uffff \U0010ffff",
    "line\nbreak\ttab \"quote' \\ \x01 \x7f \u2028",
    "with\0NUL",
    [],
    {},
    [[1, 2.0], [[], {}], None, "x"],
    {"": 0, "a.b": {"$c": [1]}, "$d": 1, "_id": 2, "with space": -0.0, "ü😀": "\0"},
    {"json": "[1]"},
    {"list": [{"deep": [{"deeper": [True, 1, 1.0, "1"]}]}]},
)

# in the order of the port; those in one group are equal, so their ids decide
ORDER: tuple[tuple[Scalar, ...], ...] = (
    (None,),
    (-(2**63),),
    (-1.5,),
    (0,),
    (1, 1.0),
    (1.5,),
    (2**53 + 1,),
    (1e300,),
    ("",),
    ("1",),
    ("Z",),
    ("a",),
    ("a b",),
    ("ab",),
    ("é",),
    ("\uffff",),
    ("😀",),
    (False,),
    (True,),
)

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "NaN": ({"x": [math.nan]}, "finite"),
    "infinity": ({"x": math.inf}, "finite"),
    "minus infinity": ({"x": {"y": -math.inf}}, "finite"),
    "NUL in a key": ({"a\0b": 1}, "NUL"),
    "NUL in an inner key": ({"x": [{"a\0b": 1}]}, "NUL"),
    "a key that is not text": ({"x": {1: 2}}, "not text"),
    "an empty key": ({"": 1}, "not allowed"),
    "a dot in a top-level key": ({"a.b": 1}, "not allowed"),
    "a dollar before a top-level key": ({"$set": 1}, "not allowed"),
    "the key _id": ({"_id": 1}, "not allowed"),
    "65 bits": ({"x": 2**63}, "64 bits"),
    "half a character": ({"x": "\ud83d"}, "half a character"),
    "bytes": ({"x": b"1"}, "bytes"),
    "a set": ({"x": {1}}, "set"),
    "a list in a searchable field": ({"state": ["a"]}, "searchable"),
    "an object in a searchable field": ({"state": {}}, "searchable"),
    "NUL in a searchable field": ({"state": "a\0"}, "searchable"),
}
