"""What is wrong with the text of a project: every finding at once, for the person who wrote it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from deepforge.errors import InvalidProject

MOST_FINDINGS = 200
"""A file that has as many is not read on; an error carries no more of them."""

_MOST_NAMES = 20
_MOST_SUGGESTED = 1000


@dataclass(frozen=True)
class Finding:
    """One broken rule: where, what is wrong, and in `hint` what is allowed or what to do."""

    file: str
    line: int
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


class TooManyFindings(Exception):
    """Raised by `Findings.add` to stop the reading of a file, caught by whoever began it."""


class Findings:
    """Collects the findings of one file while it is read."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: dict[Finding, None] = {}

    def add(self, line: int, message: str, hint: str | None = None) -> None:
        """Note a finding. The same one twice is one. Raises `TooManyFindings` at the limit."""
        if len(self._found) >= MOST_FINDINGS:
            raise TooManyFindings
        self._found[Finding(self.file, line, message, hint)] = None

    def all(self) -> tuple[Finding, ...]:
        return tuple(self._found)


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sort by file, line and message."""
    return tuple(sorted(findings, key=lambda one: (one.file, one.line, one.message)))


def refuse(findings: Iterable[Finding]) -> None:
    """Raise `InvalidProject` with all findings in order, if there are any."""
    found = in_order(findings)
    if not found:
        return
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    carried = [
        {name: value for name, value in asdict(one).items() if value is not None}
        for one in found[:MOST_FINDINGS]
    ]
    raise InvalidProject(f"{found[0]}{more}", findings=carried, hint=found[0].hint)


def suggest(name: str, known: Iterable[str], *, otherwise: str | None = None) -> str | None:
    """Return `did you mean ...?` for a name close to a known one, else the other hint."""
    candidates = sorted(known)[:_MOST_SUGGESTED]  # the comparison is slow
    close = difflib.get_close_matches(name, candidates, n=1)
    return f"did you mean `{close[0]}`?" if close else otherwise


def listed(names: Iterable[str]) -> str:
    """Spell names for a sentence: `` `a`, `b` ``."""
    spelled = [f"`{name}`" for name in names]
    return ", ".join(spelled[:_MOST_NAMES]) + (", …" if len(spelled) > _MOST_NAMES else "")
