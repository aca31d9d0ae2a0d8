"""deepforge.toml."""

from __future__ import annotations

from textwrap import dedent

import pytest

from deepforge.pipelines.finding import MOST_FINDINGS, Findings
from deepforge.pipelines.manifest import Defaults, Manifest, read_manifest


def read(data: str | bytes) -> tuple[Manifest, list[str]]:
    findings = Findings("deepforge.toml")
    content = data if isinstance(data, bytes) else dedent(data).encode()
    manifest = read_manifest({"deepforge.toml": content}, ["digits", "other"], findings)
    return manifest, [
        f"{one.line}: {one.message}" + (f" ({one.hint})" if one.hint else "")
        for one in findings.all()
    ]


def test_everything_it_can_say() -> None:
    manifest, findings = read(
        """
        name = "Größe 🎈 'quoted'"
        description = "What it is for."
        [defaults]
        pipeline = "digits"
        storage = "lab-s3"
        compute = "gpu-box"
        [pipelines.digits.inputs]
        images = "digits-images@3"
        """
    )

    assert findings == []
    assert manifest == Manifest(
        name="Größe 🎈 'quoted'",
        description="What it is for.",
        defaults=Defaults("digits", "lab-s3", "gpu-box"),
        inputs={"digits": {"images": "digits-images@3"}},
    )


def test_it_may_be_absent_or_empty() -> None:
    assert read_manifest({}, [], Findings("deepforge.toml")) == Manifest()
    assert read("") == (Manifest(), [])


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("name = ", "1: this is not TOML: Invalid value (at end of document)"),
        (
            "\nname = 'a'\nname = 'b'",
            "3: this is not TOML: Cannot overwrite a value (at end of document)",
        ),
        (b"# fine\nname = '\xff'", "2: byte 0xff is not UTF-8"),
        (b"name = '\0'", "1: this is not TOML: Found invalid character '\\x00' (at line 1, column 9)"),
        ("x = " + "[" * 5000, "1: this is not TOML: maximum recursion depth exceeded"),
        ("a = 1\nnaem = 'x'", "2: the file has no setting `naem` (did you mean `name`?)"),
        ("zzz = 1", "1: the file has no setting `zzz` (known are `name`, `description`, "),
        ("[defaults]\nstorag = 'x'", "2: [defaults] has no setting `storag` (did you mean `storage`?)"),
        ("name = 3", '1: `name` is not a text (write `name = "..."`)'),
        ("name = ' '", "1: `name` is empty (say a name, or leave the line out)"),
        ("defaults = 3", "1: `defaults` is not a table (write `[defaults]`)"),
        ("[defaults]\npipeline = 'digit'", "2: there is no pipeline `digit` (did you mean `digits`?)"),
        ("[pipelines.x.inputs]", "1: there is no pipeline `x` (pipelines are `digits`, `other`)"),
        (
            "[pipelines.digits.input]",
            "1: [pipelines.digits] has no setting `input` (did you mean `inputs`?)",
        ),
        ("[pipelines.digits.inputs]\na = 3", '2: `a` is not a text (write `a = "..."`)'),
    ],
)  # fmt: skip
def test_what_is_wrong_in_it(text: str | bytes, finding: str) -> None:
    _, findings = read(text)

    assert any(one.startswith(finding) for one in findings), findings


def test_endless_mistakes_have_an_end() -> None:
    _, findings = read("".join(f"setting{n} = 1\n" for n in range(5000)))

    assert len(findings) == MOST_FINDINGS
