"""Bytes into syntax trees, whatever the bytes."""

from __future__ import annotations

import warnings

import pytest

from deepforge.pipelines.finding import Findings
from deepforge.pipelines.source import LARGEST_SOURCE_BYTES, file_of, module_of, parse


def complaint(data: bytes) -> str:
    findings = Findings("x.py")
    assert parse("x.py", data, findings) is None
    [one] = findings.all()
    return f"{one.line}: {one.message}"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"x = 1\ndef f(:\n", "2: this is not Python: invalid syntax"),
        (b"if x:\npass\n", "2: this is not Python: expected an indented block after"),
        (b"x = 'a\n", "1: this is not Python: unterminated string literal"),
        (b"print 'a'\n", "1: this is not Python: Missing parentheses in call to 'print'"),
        (b"x = 1\ny = '\xff'\n", "2: this is not Python: byte 0xff is not utf-8"),
        (b"# coding: nonsense\n", "1: this is not Python: unknown encoding"),
        (b"x = 1\0\n", "1: this is not Python: source code string cannot contain null bytes"),
        (b"x = " + b"9" * 5000, "1: this is not Python: Exceeds the limit"),
        (b"x = " + b"(" * 300 + b")" * 300, "1: this is not Python: too many nested parentheses"),
        (b"x = " + b"-" * 5000 + b"1", "1: the code is nested too deeply to be read"),
        (b"x = " + b"-" * 90_000 + b"1", "1: the code is nested too deeply to be read"),
        (b"x = " + b"1+" * 90_000 + b"1", "1: the code is nested too deeply to be read"),
        (b"x = a" + b".b" * 90_000, "1: the code is nested too deeply to be read"),
        (b"#" * (LARGEST_SOURCE_BYTES + 1), "1: the file has 1048577 bytes; source is read up to"),
    ],
    ids=range(14),
)
def test_what_is_not_python_is_a_finding_with_its_line(data: bytes, message: str) -> None:
    assert complaint(data).startswith(message)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("x = 'é'".encode(), "x = 'é'"),
        (
            "# -*- coding: latin-1 -*-\nx = 'é'".encode("latin-1"),
            "# -*- coding: latin-1 -*-\nx = 'é'",
        ),
        (b"\xef\xbb\xbfx = 1\r\ny = 2\r\n", "x = 1\ny = 2\n"),
        (b"", ""),
    ],
)
def test_encodings_and_line_ends_are_honoured(data: bytes, text: str) -> None:
    source = parse("a/b.py", data, Findings("a/b.py"))

    assert source is not None
    assert (source.text, source.module) == (text, "a.b")


def test_warnings_about_the_author_s_code_are_kept_quiet() -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        parse("x.py", b"x = '\\d'\n1 is 1\n", Findings("x.py"))

    assert heard == []


def test_modules_and_files_name_each_other_as_python_does() -> None:
    files = {"a/b.py": b"", "a/b/__init__.py": b"", "a/c.py": b""}

    assert file_of(files, "a.b") == "a/b/__init__.py"
    assert file_of(files, "a.c") == "a/c.py"
    assert file_of(files, "a.d") is None
    assert module_of("a/b/__init__.py") == "a.b"
