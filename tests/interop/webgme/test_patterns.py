"""Our patterns of result files against minimatch, as the original worker has it installed."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest

from deepforge.worker.patterns import matches
from interop.webgme.server import minimatch_folder

SCRIPT = """
const minimatch = require(process.argv[1]);
const asked = JSON.parse(require("fs").readFileSync(0, "utf-8"));
process.stdout.write(JSON.stringify(asked.map(([path, pattern]) => minimatch(path, pattern))));
"""
NAMES = (
    *(
        "a",
        "b",
        "ab",
        "abb",
        "aab",
        "abc",
        "ba",
        "c",
        "a.b",
        "a.js",
        "a.json",
        "b.json",
        ".a",
        ".js",
    ),
    *(
        "x1",
        "x2",
        "x10",
        "x01",
        "a(b",
        "+(a",
        "a|b",
        "a+b",
        "!a",
        "@a",
        "(a)",
        "{a}",
        "{a,b}",
        "$a",
    ),
    *("d/a", "d/b", "d/.a", "d/e/a", ".d/a", "a/b/c", "log.txt", "out-1.log", "a b", "é", "[a]"),
)
PIECES = (
    *("a", "b", "c", ".", "*", "?", "[ab]", "[!a]", "x", "1", "-", "/", "**/", ".js", "on"),
    *(
        "+(a|b)",
        "*(a|b)",
        "?(a|b)",
        "@(a|b)",
        "+(a)",
        "@(a|b*)",
        "*(?)",
        "+([ab]|.)",
        "@(a.js|+(b))",
    ),
    *(
        "@()",
        "?(|a)",
        "+(a",
        "@(a|b",
        "(a)",
        "a)",
        "|",
        "+",
        "@",
        "{a,b}",
        "{1..3}",
        "{a..c}",
        "\\(",
    ),
    *(
        "{1..9..2}",
        "{01..10}",
        "{c..a}",
        "{a,b{c,d}}",
        "${a,b}",
        "{a}",
        "{,a}",
        "@({a,b}|c)",
        "\\*",
    ),
)
NEGATIONS = (
    *("!(a)", "!(a|b)", "!(a)*", "!(a).js", "!(a|b).json", "a!(b)", "*.!(js)", "*!(b)", "a!(b|c)"),
    *("!(*.js)", "!(a*|b)", "!(a)b", "x!(1)", "x!(1|2)0", "d/!(a)", "!(d)/a", "**/!(a|b)", "!(.a)"),
    *(
        "!",
        "!!a",
        "!a",
        "!*(a)",
        "!+(a|b)",
        "!(",
        "!(a",
        "!()",
        "!(!(a))",
        "#a",
        "!(a)!(b)",
        "[!a]!(b)",
    ),
)


def differing(asked: list[tuple[str, str]]) -> list[tuple[str, str, bool]]:
    """Where minimatch says something else than we, and what."""
    done = subprocess.run(
        ["node", "-e", SCRIPT, str(minimatch_folder())],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    theirs = json.loads(done.stdout)
    return [
        (*one, said) for one, said in zip(asked, theirs, strict=True) if matches(*one) is not said
    ]


def test_patterns_mean_the_files_that_minimatch_takes(original: None) -> None:
    chance = random.Random(4)
    patterns = {"".join(chance.choices(PIECES, k=chance.randint(1, 4))) for _ in range(1500)}
    asked = [(name, pattern) for pattern in sorted(patterns | set(PIECES)) for name in NAMES]

    assert [] == differing(asked)[:20]


def test_what_is_left_out_is_what_minimatch_leaves_out(original: None) -> None:
    assert [] == differing([(name, pattern) for pattern in NEGATIONS for name in NAMES])[:20]


@pytest.mark.parametrize("folder", ["dir", "a.b"])
def test_paths_of_the_original_are_ours(original: None, folder: str) -> None:
    paths = [f"{folder}/{name}" for name in NAMES]
    patterns = [f"{folder}/*", f"{folder}/+(a|b)", "@(dir|x)/**", "**/@(a|*.json)", f"{folder}//a"]

    assert [] == differing([(path, pattern) for path in paths for pattern in patterns])


def test_the_original_is_the_one_we_learned_from(original: None) -> None:
    package = json.loads((Path(minimatch_folder()) / "package.json").read_text())

    assert package["version"].startswith("3.")
