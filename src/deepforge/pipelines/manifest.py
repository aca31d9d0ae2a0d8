"""deepforge.toml: the name of a project, and what holds where nobody chooses.

name = "Digits"
description = "Recognise handwritten digits."

[defaults]
pipeline = "digits"
storage = "lab-s3"
compute = "gpu-box"

[pipelines.digits.inputs]
images = "digits-images"        # the artifact a parameter takes by default
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any  # any TOML value

from deepforge.pipelines.finding import Findings, TooManyFindings, listed, suggest
from deepforge.pipelines.source import Files

MANIFEST = "deepforge.toml"

_DEFAULTS = ("pipeline", "storage", "compute")


@dataclass(frozen=True)
class Defaults:
    """What holds where nobody chooses."""

    pipeline: str | None = None
    storage: str | None = None
    compute: str | None = None


@dataclass(frozen=True)
class Manifest:
    """What deepforge.toml says; None where it says nothing.

    `inputs` maps a pipeline to its default artifacts, by parameter.
    """

    name: str | None = None
    description: str = ""
    defaults: Defaults = field(default_factory=Defaults)
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def read_manifest(files: Files, pipelines: Iterable[str], findings: Findings) -> Manifest:
    """Read deepforge.toml of a project that has these pipelines. Without one nothing is said."""
    data = files.get(MANIFEST)
    if data is None:
        return Manifest()
    try:
        text = data.decode("utf-8-sig")
        table = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        findings.add(line, f"byte {data[error.start]:#x} is not UTF-8")
    except (ValueError, RecursionError) as error:
        place = re.search(r"at line (\d+)", str(error))
        line = int(place[1]) if place else max(1, len(text.splitlines()))
        findings.add(line, f"this is not TOML: {error}")
    else:
        with suppress(TooManyFindings):
            return _Reader(text, frozenset(pipelines), findings).read(table)
    return Manifest()


def line_of(files: Files, key: str) -> int:
    """Return the line of deepforge.toml that first says a key, else 1."""
    return _line_of(files.get(MANIFEST, b"").decode("utf-8-sig", "replace"), key)


def _line_of(text: str, key: str) -> int:
    said = re.compile(rf"(?<![\w-]){re.escape(key)}(?![\w-])")
    for number, line in enumerate(text.splitlines(), 1):
        if said.search(line.partition("#")[0].partition("= ")[0]):
            return number
    return 1


class _Reader:
    def __init__(self, text: str, pipelines: frozenset[str], findings: Findings) -> None:
        self._text = text
        self._pipelines = pipelines
        self._findings = findings

    def read(self, table: dict[str, Any]) -> Manifest:
        self._known(table, ("name", "description", "defaults", "pipelines"), "the file")
        defaults = self._table(table, "defaults")
        self._known(defaults, _DEFAULTS, "[defaults]")
        chosen = {key: self._name(defaults, key) for key in _DEFAULTS}
        self._existing(chosen["pipeline"], "pipeline")
        return Manifest(
            name=self._name(table, "name"),
            description=self._text_of(table, "description") or "",
            defaults=Defaults(**chosen),
            inputs=self._inputs(self._table(table, "pipelines")),
        )

    def _inputs(self, table: dict[str, Any]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for pipeline in table:
            self._existing(pipeline, pipeline)
            settings = self._table(table, pipeline)
            self._known(settings, ("inputs",), f"[pipelines.{pipeline}]")
            inputs = self._table(settings, "inputs")
            named = {key: self._name(inputs, key) for key in inputs}
            found[pipeline] = {key: name for key, name in named.items() if name is not None}
        return found

    def _existing(self, pipeline: str | None, key: str) -> None:
        if pipeline is not None and pipeline not in self._pipelines:
            hint = f"pipelines are {listed(sorted(self._pipelines))}" if self._pipelines else None
            self._add(
                key,
                f"there is no pipeline `{pipeline}`",
                suggest(pipeline, self._pipelines, otherwise=hint),
            )

    def _known(self, table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
        for key in table:
            if key not in known:
                hint = suggest(key, known, otherwise=f"known are {listed(known)}")
                self._add(key, f"{where} has no setting `{key}`", hint)

    def _table(self, table: dict[str, Any], key: str) -> dict[str, Any]:
        value = table.get(key, {})
        if isinstance(value, dict):
            return value
        self._add(key, f"`{key}` is not a table", f"write `[{key}]`")
        return {}

    def _name(self, table: dict[str, Any], key: str) -> str | None:
        text = self._text_of(table, key)
        if text is not None and not text.strip():
            self._add(key, f"`{key}` is empty", "say a name, or leave the line out")
            return None
        return text

    def _text_of(self, table: dict[str, Any], key: str) -> str | None:
        value = table.get(key)
        if value is None or isinstance(value, str):
            return value
        self._add(key, f"`{key}` is not a text", f'write `{key} = "..."`')
        return None

    def _add(self, key: str, message: str, hint: str | None) -> None:
        self._findings.add(_line_of(self._text, key), message, hint)
