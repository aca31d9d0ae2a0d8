"""Which files a result artifact takes: the patterns of the executor framework.

They are those of minimatch: `*`, `**`, `?`, `[a-z]`, `[!a]`, `{a,b}`, `{1..9..2}`, `{a..c}`, `!` in
front, and the extended globs `?(a|b)` (at most one of these), `*(a|b)` (any number), `+(a|b)` (at least
one), `@(a|b)` (exactly one) and `!(a|b)` (anything else). A name that begins with a dot wants a pattern
with that dot. Patterns that begin with `#` are comments.

No regular expression is made of a pattern: some would take for ever, and hold up the whole worker.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Dict, FrozenSet, List, Optional, Set, Tuple, Union

_MOST_EXPANSIONS = 1000
_LONGEST_PATTERN = 4096
_DEEPEST = 30
_MOST_STEPS = 50_000
_MOST_PLACES = 20_000
_GROUPS = "?*+@!"
_SEQUENCE = re.compile(r"(-?[0-9]{1,6}|[a-zA-Z])\.\.(-?[0-9]{1,6}|[a-zA-Z])(?:\.\.(-?[0-9]{1,6}))?")


def matches(path: str, pattern: str) -> bool:
    """Whether a relative path, with `/`, is meant by a pattern. One that makes no sense means none."""
    if pattern.startswith("#") or len(pattern) > _LONGEST_PATTERN:
        return False
    if pattern.strip() == "":
        return path == ""
    negated = False
    while pattern.startswith("!"):
        negated, pattern = not negated, pattern[1:]
    parts = re.split("/+", path)
    try:
        found = any(_fits(parts, re.split("/+", one)) for one in _expanded(pattern))
    except _TooMuch:
        return False
    return found != negated


class _TooMuch(Exception):
    """A pattern that nobody means."""


def _fits(parts: List[str], patterns: List[str]) -> bool:
    """Whether the parts of a path fit those of a pattern: all places at once, as within a name."""
    places, steps = {0}, 0
    for index, pattern in enumerate(patterns):
        steps += len(places)
        if steps > _MOST_PLACES:
            raise _TooMuch
        if pattern != "**":
            places = {
                place + 1
                for place in places
                if place < len(parts) and _fits_name(parts[place], pattern)
            }
        elif places:
            is_last = index == len(patterns) - 1
            places = _behind_folders(parts, places, at_least=1 if is_last else 0)
    return len(parts) in places


def _behind_folders(parts: List[str], places: Set[int], *, at_least: int) -> Set[int]:
    """Where `**` can end that begins at one of these places and takes at least so many parts."""
    found: Set[int] = set()
    reached = -1
    for place in sorted(places):
        end = max(place, reached)
        while end < len(parts) and not parts[end].startswith("."):
            end += 1
        found.update(range(max(place + at_least, reached + 1), end + 1))
        reached = max(reached, end)
    return found


def _fits_name(name: str, pattern: str) -> bool:
    if name.startswith(".") and not pattern.startswith((".", "\\.")):
        return False
    items = _parse(pattern)
    is_plain = all(isinstance(item, str) for item in items)
    if not name and not is_plain:
        return False
    return _Walk(name).reaches_end(items)


# ── a pattern for one name ────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class _Letters:
    """One letter of a class, such as `[a-z]`; without a class, any one."""

    allowed: "Optional[re.Pattern[str]]"


@dataclass(frozen=True, eq=False)
class _Star:
    """Any letters, or none."""


@dataclass(eq=False)
class _Group:
    """`kind(a|b)`. `rest` is what follows it, to the end of the whole pattern."""

    kind: str
    choices: "List[List[_Item]]"
    rest: "List[_Item]" = field(default_factory=list)


_Item = Union[str, _Letters, _Star, _Group]


def _parse(pattern: str) -> List[_Item]:
    items = _Parser(pattern).parse(0, len(pattern), 0)
    _link(items, [])
    return items


class _Parser:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._ends = _ends_of_groups(pattern)

    def parse(self, start: int, end: int, depth: int) -> List[_Item]:
        """What the pattern from `start` to `end` consists of."""
        if depth > _DEEPEST:
            raise _TooMuch
        pattern, index = self._pattern, start
        found: List[_Item] = []
        while index < end:
            letter = pattern[index]
            group_end = self._ends.get(index)
            letters = _class_at(pattern, index) if letter == "[" else None
            if group_end is not None:
                found.append(self._group(index, group_end, depth))
                index = group_end
            elif letters is not None:
                item, index = letters
                found.append(item)
            elif letter == "*":
                if not (found and isinstance(found[-1], _Star)):
                    found.append(_Star())
            elif letter == "?":
                found.append(_Letters(None))
            elif letter == "\\" and index + 1 < end:
                index += 1
                found.append(pattern[index])
            else:
                found.append(letter)
            index += 1
        return found

    def _group(self, start: int, end: int, depth: int) -> _Group:
        choices, begin = [], start + 2
        index = begin
        while index < end:
            letter = self._pattern[index]
            if letter == "|":
                choices.append(self.parse(begin, index, depth + 1))
                begin = index + 1
            index = _behind(self._pattern, self._ends, index)
        choices.append(self.parse(begin, end, depth + 1))
        return _Group(self._pattern[start], choices)


def _ends_of_groups(pattern: str) -> Dict[int, int]:
    """Where each group ends that is closed, by where it begins."""
    ends: Dict[int, int] = {}
    begun: List[int] = []
    index = 0
    while index < len(pattern):
        letter = pattern[index]
        if letter in _GROUPS and pattern[index + 1 : index + 2] == "(":
            begun.append(index)
            index += 1
        elif letter == ")" and begun:
            ends[begun.pop()] = index
        index = _behind(pattern, {}, index)
    return ends


def _behind(pattern: str, ends: Dict[int, int], index: int) -> int:
    """Where what begins at `index` is over: an escaped letter, a class, a group, or one letter."""
    if index in ends:
        return ends[index] + 1
    if pattern[index] == "\\":
        return index + 2
    letters = _class_at(pattern, index) if pattern[index] == "[" else None
    return (index if letters is None else letters[1]) + 1


def _class_at(pattern: str, start: int) -> Optional[Tuple[_Letters, int]]:
    """The class that begins there and where it ends; None if it is none."""
    end = pattern.find("]", start + 2)
    if end < 0:
        return None
    inner = pattern[start + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
    if inner[0] in "!^":
        inner = "^" + inner[1:]
    inner = re.sub(r"([&~|])(?=\1)", r"\\\1", inner)  # Python would warn of them
    try:
        return _Letters(re.compile("[%s]" % inner, re.DOTALL)), end
    except re.error:
        return None


def _link(items: List[_Item], behind: List[_Item]) -> None:
    """Tell each group what follows it."""
    for index, item in enumerate(items):
        if isinstance(item, _Group):
            item.rest = items[index + 1 :] + behind
            for choice in item.choices:
                _link(choice, item.rest)


class _Walk:
    """Where parts of a pattern can end in one name: all places at once, so nothing is tried twice."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._steps = 0
        self._known: Dict[Tuple[int, int], FrozenSet[int]] = {}

    def reaches_end(self, items: List[_Item]) -> bool:
        return len(self._name) in self._ends(items, {0})

    def _ends(self, items: List[_Item], places: Set[int]) -> Set[int]:
        for item in items:
            if not places:
                break
            self._steps += len(places)
            if self._steps > _MOST_STEPS:
                raise _TooMuch
            if isinstance(item, _Star):
                places = set(range(min(places), len(self._name) + 1))
            else:
                places = {end for place in places for end in self._step(item, place)}
        return places

    def _step(self, item: _Item, place: int) -> FrozenSet[int]:
        if isinstance(item, _Group):
            known = self._known.get((id(item), place))
            if known is None:
                known = self._known[id(item), place] = frozenset(self._group(item, place))
            return known
        letter = self._name[place : place + 1]
        if isinstance(item, str):
            fits = letter == item
        else:
            assert isinstance(item, _Letters)
            fits = letter != "" and (item.allowed is None or item.allowed.match(letter) is not None)
        return frozenset([place + 1]) if fits else frozenset()

    def _group(self, group: _Group, place: int) -> Set[int]:
        found = self._choices(group, {place})
        if group.kind == "@":
            return found
        if group.kind == "?":
            return found | {place}
        if group.kind == "!":
            length = len(self._name)
            if length in found if not group.rest else self._ends(group.rest, found):
                return set()
            return set(range(place, length + 1))
        new = found
        while new:
            new = self._choices(group, new) - found
            found = found | new
        return found | {place} if group.kind == "*" else found

    def _choices(self, group: _Group, places: Set[int]) -> Set[int]:
        return {end for choice in group.choices for end in self._ends(choice, places)}


# ── braces ────────────────────────────────────────────────────────────────────────────────────────


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
        if pattern[start - 1 : start] == "$":
            continue
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
    """What `1..3`, `01..10`, `1..9..2` or `a..e` counts; nothing if it is none of these."""
    found = _SEQUENCE.fullmatch(piece)
    if found is None:
        return []
    first_text, last_text, step_text = found.groups()
    is_numbers = first_text.lstrip("-").isdigit()
    if is_numbers != last_text.lstrip("-").isdigit():
        return []
    first, last = [int(one) if is_numbers else ord(one) for one in (first_text, last_text)]
    step = max(1, abs(int(step_text or 1))) * (1 if last >= first else -1)
    numbers = range(first, last + (1 if step > 0 else -1), step)[:_MOST_EXPANSIONS]
    if not is_numbers:
        return [chr(number) for number in numbers]
    padded = any(re.match("-?0[0-9]", one) for one in (first_text, last_text))
    width = max(len(first_text), len(last_text)) if padded else 0
    return ["%0*d" % (width, number) for number in numbers]
