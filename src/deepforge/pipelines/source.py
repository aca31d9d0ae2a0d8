"""One file of a project as Python text: decoded and parsed, never imported or run."""

from __future__ import annotations

import ast
import io
import threading
import tokenize
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from deepforge.pipelines.finding import Findings

Files = Mapping[str, bytes]
"""The files of a project at a commit: path (`operations/train.py`) to content."""

LARGEST_SOURCE_BYTES = 1024 * 1024

_WARNINGS = threading.Lock()


@dataclass(frozen=True)
class Source:
    """A parsed file and the name it is imported by."""

    file: str
    module: str
    text: str
    tree: ast.Module


def parse(file: str, data: bytes, findings: Findings) -> Source | None:
    """Parse a file. None: it is not Python text, and a finding says why."""
    if len(data) > LARGEST_SOURCE_BYTES:
        findings.add(
            1,
            f"the file has {len(data)} bytes; source is read up to {LARGEST_SOURCE_BYTES}",
            "keep data in artifacts, not in code",
        )
        return None
    try:
        text = _decoded(data)
        tree = _parsed(data)
    except SyntaxError as error:
        findings.add(error.lineno or 1, f"this is not Python: {error.msg}")
    except ValueError as error:  # how some versions refuse a NUL character
        findings.add(1, f"this is not Python: {error}")
    except (RecursionError, MemoryError):
        findings.add(1, "the code is nested too deeply to be read", "split the long expression")
    else:
        return Source(file, module_of(file), text, tree)
    return None


def module_of(file: str) -> str:
    """Return what a file is imported as: `operations/train.py` is `operations.train`."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def file_of(files: Files, module: str) -> str | None:
    """Return the file that `import module` would read, or None when it is not in the project."""
    path = module.replace(".", "/")
    return next((one for one in (f"{path}/__init__.py", f"{path}.py") if one in files), None)


def _decoded(data: bytes) -> str:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        position = ("<text>", line, None, None)
        raise SyntaxError(f"byte {data[error.start]:#x} is not {encoding}", position) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parsed(data: bytes) -> ast.Module:
    """Parse without the warnings about the author's code, which nobody would see."""
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(data)
