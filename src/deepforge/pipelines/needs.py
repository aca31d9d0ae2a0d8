"""What an operation says it needs: the inline metadata block of PEP 723 at the top of its file.

# /// script
# dependencies = ["scikit-learn>=1.6"]
# [tool.deepforge.resources]
# cpus = 4
# memory = "16 GiB"
# gpus = 1
# time = "2h 30min"
# ///
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from typing import Any  # any TOML value

from deepforge.compute.port import Resources
from deepforge.pipelines.finding import Findings, listed, suggest
from deepforge.pipelines.source import Source

_OPENING = "# /// script"
_ENDING = "# ///"
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)(b?)", re.IGNORECASE)
_TIME_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)", re.IGNORECASE)
_CLOCK = re.compile(r"(\d+):(\d{2}):(\d{2})")
_LONGEST = 40  # no size and no duration is longer
_RESOURCES = ("cpus", "memory", "gpus", "time")


@dataclass(frozen=True)
class Requirements:
    """Packages to be installed, and the resources to ask the compute for (None: its default)."""

    dependencies: tuple[str, ...] = ()
    resources: Resources = field(default_factory=Resources)


def read_requirements(source: Source, findings: Findings) -> Requirements:
    """Read the block of a file. Without one nothing is needed."""
    blocks = _blocks(source.text.split("\n"), findings)
    if not blocks:
        return Requirements()
    line, content = blocks[0]
    for second, _ in blocks[1:]:
        findings.add(second, f"a second block `{_OPENING}`; the first is on line {line}")
    try:
        block = tomllib.loads(content)
    except (ValueError, RecursionError) as error:
        findings.add(line, f"the block `{_OPENING}` is not TOML: {error}")
        return Requirements()
    return _Block(line, findings).read(block)


def memory_bytes(text: str) -> int:
    """Read `512 MB`, `4 GiB`, `4G` (as GiB), `1048576`. Raises `ValueError` for anything else."""
    match = _MEMORY.fullmatch(text.strip()[:_LONGEST])
    if match is None or len(text) > _LONGEST:
        raise ValueError
    number, prefix, binary, unit = match.groups()
    base = 1000 if unit and not binary else 1024
    size = round(float(number) * float(base) ** " kmgtp".index(prefix.lower() or " "))
    if size <= 0:
        raise ValueError
    return size


def time_s(text: str) -> float:
    """Read `90`, `90 min`, `1h 30m`, `2 days`, `1:30:00` as seconds. Raises `ValueError`."""
    text = text.strip()
    if len(text) > _LONGEST:
        raise ValueError
    clock = _CLOCK.fullmatch(text)
    if clock is not None:
        hours, minutes, rest = (int(part) for part in clock.groups())
        seconds = float(hours * 3600 + minutes * 60 + rest)
    elif _TIME_PART.sub("", text).strip(" ,") == "" and text:
        seconds = sum(
            float(number) * _unit_s(unit.lower()) for number, unit in _TIME_PART.findall(text)
        )
    else:
        seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError
    return seconds


def _unit_s(word: str) -> int:
    for unit_s, words in (
        (1, ("s", "sec", "secs", "second", "seconds")),
        (60, ("m", "min", "mins", "minute", "minutes")),
        (3600, ("h", "hour", "hours")),
        (86400, ("d", "day", "days")),
    ):
        if word in words:
            return unit_s
    raise ValueError


def _blocks(lines: list[str], findings: Findings) -> list[tuple[int, str]]:
    """Return each block's line and TOML. Like its definition, a block ends at the last `# ///`
    before the comment does."""
    blocks = []
    number = 0
    while number < len(lines):
        opening = number
        number += 1
        if lines[opening] != _OPENING:
            continue
        while number < len(lines) and (lines[number] == "#" or lines[number].startswith("# ")):
            number += 1
        inside = lines[opening + 1 : number]
        if _ENDING in inside:
            end = len(inside) - 1 - inside[::-1].index(_ENDING)
            blocks.append((opening + 1, "\n".join(one[2:] for one in inside[:end])))
        else:
            findings.add(
                opening + 1, f"the block `{_OPENING}` has no end", f"end it with a line `{_ENDING}`"
            )
    return blocks


class _Block:
    def __init__(self, line: int, findings: Findings) -> None:
        self._line = line
        self._findings = findings

    def read(self, block: dict[str, Any]) -> Requirements:
        dependencies = block.get("dependencies", [])
        if not _is_texts(dependencies):
            self._wrong("dependencies", "a list of texts", 'e.g. ["scikit-learn>=1.6"]')
            dependencies = []
        ours = self._table(self._table(block, "tool"), "deepforge")
        self._known(ours, ("resources",), "tool.deepforge")
        wanted = self._table(ours, "resources")
        self._known(wanted, _RESOURCES, "tool.deepforge.resources")
        resources = Resources(
            cpus=self._count(wanted, "cpus", least=1),
            memory_bytes=self._memory(wanted),
            gpus=self._count(wanted, "gpus", least=0),
            walltime_s=self._time(wanted),
        )
        return Requirements(tuple(dependencies), resources)

    def _table(self, table: dict[str, Any], key: str) -> dict[str, Any]:
        value = table.get(key, {})
        if isinstance(value, dict):
            return value
        self._wrong(key, "a table")
        return {}

    def _known(self, table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
        for key in table:
            if key not in known:
                hint = suggest(key, known, otherwise=f"known are {listed(known)}")
                self._findings.add(self._line, f"[{where}] has no setting `{key}`", hint)

    def _count(self, table: dict[str, Any], key: str, *, least: int) -> int | None:
        value = table.get(key)
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool) and value >= least:
            return value
        self._wrong(key, f"a whole number from {least} on")
        return None

    def _memory(self, table: dict[str, Any]) -> int | None:
        value = table.get("memory")
        if value is None:
            return None
        try:
            return memory_bytes(_spelled(value))
        except ValueError:
            self._wrong("memory", "a size", 'e.g. "4 GiB" or "512 MB"')
            return None

    def _time(self, table: dict[str, Any]) -> float | None:
        value = table.get("time")
        if value is None:
            return None
        try:
            return time_s(_spelled(value))
        except ValueError:
            self._wrong("time", "a duration", 'e.g. "2h", "90 min" or a number of seconds')
            return None

    def _wrong(self, key: str, wanted: str, hint: str | None = None) -> None:
        self._findings.add(self._line, f"`{key}` in the block `# /// script` is not {wanted}", hint)


def _spelled(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError
    return str(value)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
