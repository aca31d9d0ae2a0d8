"""Which files a result artifact takes: the patterns of the executor framework.

They are those of minimatch, as far as result patterns use them: `*`, `**`, `?`, `[a-z]`, `[!a]`,
`{a,b}`, `{1..3}`, `!` in front. A name that begins with a dot wants a pattern with that dot. Patterns
that begin with `#` are comments.
"""

from __future__ import annotations

import re
from typing import List, Optional

_MOST_EXPANSIONS = 1000


def matches(path: str, pattern: str) -> bool:
    """Whether a relative path, with `/`, is meant by a pattern. One that makes no sense means none."""
    if pattern.startswith("#"):
        return False
    negated = False
    while pattern.startswith("!"):
        negated, pattern = not negated, pattern[1:]
    if pattern.strip() == "":
        return path == ""
    parts = path.split("/")
    found = any(_fits(parts, one.split("/")) for one in _expanded(pattern))
    return found != negated


def _fits(parts: List[str], patterns: List[str]) -> bool:
    if not patterns:
        return not parts
    first, rest = patterns[0], patterns[1:]
    if first == "**":
        if not rest:
            return bool(parts) and not any(part.startswith(".") for part in parts)
        while True:
            if _fits(parts, rest):
                return True
            if not parts or parts[0].startswith("."):
                return False
            parts = parts[1:]
    if not parts:
        return False
    compiled = _compiled(first)
    if compiled is None:
        here = first == parts[0]
    else:
        dotted = parts[0].startswith(".") and not first.startswith((".", "\\."))
        here = not dotted and compiled.fullmatch(parts[0]) is not None
    return here and _fits(parts[1:], rest)


def _compiled(pattern: str) -> "Optional[re.Pattern[str]]":
    text, index = "", 0
    while index < len(pattern):
        letter = pattern[index]
        if letter == "*":
            while pattern[index + 1 : index + 2] == "*":
                index += 1
            text += "[^/]*"
        elif letter == "?":
            text += "[^/]"
        elif letter == "[":
            end = pattern.find("]", index + 2)
            if end < 0:
                text += re.escape(letter)
            else:
                inner = pattern[index + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
                if inner[0] in "!^":
                    inner = "^" + inner[1:]
                text += "[%s]" % inner
                index = end
        elif letter == "\\" and index + 1 < len(pattern):
            index += 1
            text += re.escape(pattern[index])
        else:
            text += re.escape(letter)
        index += 1
    try:
        return re.compile(text if text != "[^/]*" else "[^/]+", re.DOTALL)
    except re.error:
        return None


def _expanded(pattern: str) -> List[str]:
    """All that a pattern with braces stands for."""
    waiting, done = [pattern], []  # type: ignore[var-annotated]
    while waiting and len(waiting) + len(done) < _MOST_EXPANSIONS:
        one = waiting.pop()
        choices = _first_braces(one)
        if choices is None:
            done.append(one)
        else:
            waiting.extend(choices)
    return done


def _first_braces(pattern: str) -> Optional[List[str]]:
    """The first braces that offer a choice, each choice put in their place."""
    start = -1
    while True:
        start = pattern.find("{", start + 1)
        if start < 0:
            return None
        depth, pieces, begin = 0, [], start + 1
        for index in range(start, len(pattern)):
            letter = pattern[index]
            if letter == "{":
                depth += 1
            elif letter == "}":
                depth -= 1
                if depth == 0:
                    pieces.append(pattern[begin:index])
                    choices = pieces if len(pieces) > 1 else _counted(pieces[0])
                    if choices:
                        rest = pattern[index + 1 :]
                        return [pattern[:start] + one + rest for one in choices]
                    break
            elif letter == "," and depth == 1:
                pieces.append(pattern[begin:index])
                begin = index + 1


def _counted(piece: str) -> List[str]:
    found = re.fullmatch(r"(-?\d{1,6})\.\.(-?\d{1,6})", piece)
    if found is None:
        return []
    first, last = int(found.group(1)), int(found.group(2))
    step = 1 if last >= first else -1
    return [str(number) for number in range(first, last + step, step)][:_MOST_EXPANSIONS]
