from __future__ import annotations

import unicodedata

import pytest

from deepforge.errors import InvalidRequest
from deepforge.projects.model import checked_name


@pytest.mark.parametrize(
    "name",
    [
        "digits",
        "with space",
        'it\'s "quoted" `so` $(far)',
        "🦜",
        "👩‍👩‍👧",  # held together by U+200D
        "می‌خواهم",  # holds U+200C
        "..hidden",
        "-dash",
        "数字",
        "a",
        "é" * 100,
        "%2e%2e%2f",
        "<script>",
        "a;b|c&d",
        "NULL",
    ],
)
def test_friendly_names_are_kept(name: str) -> None:
    assert checked_name(name, "a project") == name


def test_names_are_brought_to_one_spelling() -> None:
    decomposed = unicodedata.normalize("NFD", "é" * 100)  # 200 characters

    assert "é" * 100 == checked_name(decomposed, "a project")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is empty"),
        ("x" * 101, "has 101 characters"),
        (".", "means a folder"),
        ("..", "means a folder"),
        (" x", "begins or ends with a space"),
        ("x\u00a0", "begins or ends with a space"),
        ("../x", "contains '/'"),
        ("a\\b", r"contains '\\\\'"),
        ("x@2", "contains '@'"),
        ("x:y", "contains ':'"),
        ("a\nb", r"unprintable character U\+000A"),
        ("a\0b", r"U\+0000"),
        ("a\x1b[31mb", r"U\+001B"),
        ("a\u202eb", r"U\+202E"),  # turns the reading direction
        ("a\u200bb", r"U\+200B"),
        ("\ud800", r"U\+D800"),
        ("\ue000", r"U\+E000"),
    ],
)
def test_names_that_would_mislead_are_refused(name: str, reason: str) -> None:
    with pytest.raises(
        InvalidRequest, match=f"cannot be the name of an artifact.*{reason}"
    ) as caught:
        checked_name(name, "an artifact")

    assert caught.value.part == "name"
    assert str(caught.value).isprintable() or "\n" in str(caught.value)
