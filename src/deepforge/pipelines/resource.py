"""The interface of a resource: the function of a file that returns a model."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from deepforge.pipelines.finding import Findings, listed, suggest
from deepforge.pipelines.signature import Attribute, attributes_of
from deepforge.pipelines.source import Source


@dataclass(frozen=True)
class ResourceInterface:
    """A function that can be called for an attribute: `Train(vgg(depth=3))`."""

    module: str
    name: str
    file: str
    line: int
    docstring: str
    arguments: tuple[Attribute, ...]


def read_resources(source: Source, findings: Findings) -> dict[str, ResourceInterface]:
    """Read the public functions of a file, by name."""
    found: dict[str, ResourceInterface] = {}
    for node in source.tree.body:
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        by_position = [one.arg for one in node.args.posonlyargs]
        if by_position:
            findings.add(
                node.lineno,
                f"`{node.name}` takes {listed(by_position)} by position only",
                "leave out the `/`: arguments are passed by name",
            )
        found[node.name] = ResourceInterface(
            module=source.module,
            name=node.name,
            file=source.file,
            line=node.lineno,
            docstring=ast.get_docstring(node) or "",
            arguments=attributes_of(node.args),
        )
    return found


def why_no_resource(source: Source, name: str, known: dict[str, ResourceInterface]) -> str | None:
    """Return the hint for a resource that is not in its file."""
    for node in source.tree.body:
        if isinstance(node, (ast.ClassDef, ast.AsyncFunctionDef)) and node.name == name:
            kind = "a class" if isinstance(node, ast.ClassDef) else "async"
            return f"it is {kind}; a resource is a function that returns the model"
    there = f"its functions are {listed(known)}" if known else "it has no public function"
    return suggest(name, known, otherwise=there)
