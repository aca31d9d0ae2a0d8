"""Which files a result artifact takes. What is right was learned from minimatch 3.0.3 itself."""

from __future__ import annotations

import time

import pytest

from deepforge.worker.patterns import matches


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("a.txt", "*.txt"),
        ("d/a.txt", "**/*.txt"),
        ("a.txt", "**/*.txt"),
        ("d/e/a.txt", "d/**"),
        (".hid", ".*"),
        ("a.py", "!*.txt"),
        ("a.py", "!!*.py"),
        ("#a", "\\#a"),
        ("a1", "a[0-9]"),
        ("ab", "a[!0-9]"),
        ("ab", "a[^0-9]"),
        ("x.json", "*.{json,txt}"),
        ("x.txt", "*.{json,txt}"),
        ("f2", "f{1..3}"),
        ("fbc", "f{a,b{c,d}}"),
        ("f{a}", "f{a}"),
        ("a?b", "a?b"),
        ("a/b/c", "a/*/c"),
        ("a/c", "a/**/c"),
        ("a/b/b/c", "a/**/c"),
        ("a[", "a["),
        ("a/b", "a/b"),
        ("a.b", "*"),
        ("a+b", "a+b"),
        ("a", "**"),
        ("a/b", "**"),
        ("a/b.c", "a/*.*"),
        ("ab", "*b*"),
        ("a*c", "a\\*c"),
        ("axb", "a**b"),
        ("", ""),
        ("é", "?"),
        ("a-b", "a[-]b"),
        ("a]", "a[]]"),
        ("a/.b/c", "a/**/.b/c"),
        ("a/.b/c", "a/.b/**"),
        ("x{1..a}", "x{1..a}"),
        ("a\\b", "a\\\\b"),
        ("abab", "+(a|b)"),
        ("x", "x*(a|b)"),
        ("x.js", "x?(.min).js"),
        ("out-12.log", "out-+([0-9]).@(log|txt)"),
        ("a.txt", "*.!(js)"),
        ("abab", "+(a|+(b|c))"),
        ("d/b.json", "**/@(a|*.json)"),
        ("+(a", "+(a"),
        ("a|b", "a|b"),
        ("f3", "f{1..9..2}"),
        ("f07", "f{01..10}"),
        ("fb", "f{a..c}"),
        ("${a,b}", "${a,b}"),
        ("a", "!"),
    ],
)
def test_a_pattern_means_a_path(path: str, pattern: str) -> None:
    assert matches(path, pattern)


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("d/a.txt", "*.txt"),
        ("d", "d/**"),
        (".hid", "*"),
        (".d/a", "**"),
        (".d/a", "**/a"),
        ("d/.h", "d/*"),
        ("d/.h", "**"),
        ("a.txt", "!*.txt"),
        ("#a", "#a"),
        ("a1", "a[!0-9]"),
        ("x.md", "*.{json,txt}"),
        ("f4", "f{1..3}"),
        ("fb", "f{a,b{c,d}}"),
        ("ab", "a?b"),
        ("A.TXT", "*.txt"),
        ("a", "a/"),
        ("./a", "a"),
        ("a", "./a"),
        ("", "*"),
        ("abc", "a\\*c"),
        ("a/b", "a**b"),
        ("a", "  "),
        ("x/y", "*/"),
        (".a", "[.]a"),
        (".a", "?a"),
        ("a/.b/c", "a/**/c"),
        ("f4", "f{1..9..2}"),
        ("", "+(a)"),
        ("abc", "+(a|b)"),
        ("x.min.min.js", "x?(.min).js"),
        ("a.js", "*.!(js)"),
        ("xa", "x!(a)"),
        ("a/b", "+(a|/|b)"),
        (".a", "@(.a|b)"),
        ("f7", "f{01..10}"),
        ("fd", "f{a..c}"),
        ("$a", "${a,b}"),
    ],
)
def test_a_pattern_does_not_mean_a_path(path: str, pattern: str) -> None:
    assert not matches(path, pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        *("{a,b}" * 40, "[", "{", "}{", "{,", "[]", "[!]", "{1..999999}", "+(", "@()|", "+(|)"),
        *(
            "+(" * 2000,
            "+(" * 200 + "x" + ")" * 200,
            "*(" * 20 + "x" + ")" * 20,
            "@(" + "x|" * 2000,
        ),
        *("+(x|x|x)" * 500, "x" * 100_000, "+(+(x)+)+(y)", "[&&x]", "[[x]"),
    ],
    ids=lambda pattern: pattern[:12],
)
def test_odd_patterns_take_no_time_and_raise_nothing(pattern: str) -> None:
    began = time.monotonic()
    assert not matches("x/y", pattern)
    matches("x" * 255, pattern)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("pattern", ["+(+(x))+(x)y", "*(*(x|xx)|x)!(x)!(y)!(z)", "*x" * 60 + "y"])
def test_no_pattern_is_tried_in_every_way_there_is(pattern: str) -> None:
    """As regular expressions these would run for years."""
    began = time.monotonic()
    matches("x" * 255, pattern)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("a/" * 40 + "a", "**/a/" * 12 + "b"),
        ("a/" * 40 + "a", "**/" * 20 + "b"),
        ("a/" * 2000 + "a", "**/" * 1000 + "b"),
        ("a/" * 2000 + "a", "**/" + "?/" * 1000 + "b"),
        ("a/" * 2000 + "a", "{a,b}/" * 600 + "**/b"),
    ],
    ids=["letters", "stars", "deep", "many", "choices"],
)
def test_folders_are_not_tried_in_every_way_there_is(path: str, pattern: str) -> None:
    began = time.monotonic()
    assert not matches(path, pattern)
    assert time.monotonic() - began < 5


def test_a_path_may_be_as_deep_as_it_likes() -> None:
    deep = "a/" * 2000 + "b"

    assert matches(deep, "**/b")
    assert matches(deep, "a/**/**/a/b")
    assert matches("a/" * 1500 + "b", "?/" * 1500 + "b")
    assert not matches(deep, "**/a")
