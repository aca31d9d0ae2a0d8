"""The inline metadata block of an operation."""

from __future__ import annotations

from textwrap import dedent

import pytest

from deepforge.compute.port import Resources
from deepforge.pipelines.finding import Findings
from deepforge.pipelines.needs import Requirements, memory_bytes, read_requirements, time_s
from deepforge.pipelines.source import parse


def read(text: str) -> tuple[Requirements, list[str]]:
    findings = Findings("operations/x.py")
    source = parse("operations/x.py", dedent(text).encode(), findings)
    assert source is not None
    requirements = read_requirements(source, findings)
    return requirements, [f"{one.line}: {one.message}" for one in findings.all()]


def test_all_that_can_be_asked_for() -> None:
    requirements, findings = read(
        '''
        """Docstring."""
        # /// script
        # requires-python = ">=3.11"
        # dependencies = [
        #   "scikit-learn>=1.6",
        #   "numpy",
        # ]
        #
        # [tool.deepforge.resources]
        # cpus = 4
        # memory = "16 GiB"
        # gpus = 0
        # time = "2h 30min"
        # [tool.other]
        # anything = 3
        # ///
        # an ordinary comment
        '''
    )

    assert findings == []
    assert requirements.dependencies == ("scikit-learn>=1.6", "numpy")
    assert requirements.resources == Resources(4, 16 * 2**30, 0, 9000.0)


@pytest.mark.parametrize("text", ["", "x = 1", "# a comment", "# /// other\n# x = 1\n# ///"])
def test_without_a_block_nothing_is_asked_for(text: str) -> None:
    assert read(text) == (Requirements(), [])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("dependencies = [", "1: the block `# /// script` is not TOML: "),
        (
            "dependencies = 'numpy'",
            "1: `dependencies` in the block `# /// script` is not a list of texts",
        ),
        ("tool = 3", "1: `tool` in the block `# /// script` is not a table"),
        ("[tool]\ndeepforge = 3", "1: `deepforge` in the block `# /// script` is not a table"),
        ("[tool.deepforge]\nresource = {}", "1: [tool.deepforge] has no setting `resource`"),
        ("[tool.deepforge.resources]\ncpu = 1", "1: [tool.deepforge.resources] has no setting `cpu`"),
        (
            "[tool.deepforge.resources]\ncpus = 0",
            "1: `cpus` in the block `# /// script` is not a whole",
        ),
        (
            "[tool.deepforge.resources]\ncpus = true",
            "1: `cpus` in the block `# /// script` is not a whole",
        ),
        (
            "[tool.deepforge.resources]\ngpus = 1.5",
            "1: `gpus` in the block `# /// script` is not a whole",
        ),
        (
            "[tool.deepforge.resources]\nmemory = 'much'",
            "1: `memory` in the block `# /// script` is not a size",
        ),
        (
            "[tool.deepforge.resources]\nmemory = [1]",
            "1: `memory` in the block `# /// script` is not a size",
        ),
        (
            "[tool.deepforge.resources]\ntime = 'soon'",
            "1: `time` in the block `# /// script` is not a dur",
        ),
        (
            "[tool.deepforge.resources]\ntime = nan",
            "1: `time` in the block `# /// script` is not a dur",
        ),
    ],
)  # fmt: skip
def test_a_wrong_block_is_a_finding(lines: str, message: str) -> None:
    block = "".join(f"# {line}\n" for line in lines.splitlines())

    _, [found] = read(f"# /// script\n{block}# ///\n")

    assert found.startswith(message)


def test_a_block_without_an_end_and_a_second_block() -> None:
    _, endless = read("x = 1\n# /// script\n# dependencies = []\nx = 2\n")
    _, second = read("# /// script\n# ///\n\n# /// script\n# ///\n")

    assert endless == ["2: the block `# /// script` has no end"]
    assert second == ["4: a second block `# /// script`; the first is on line 1"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1048576", 1048576),
        ("4 GiB", 4 * 2**30),
        ("4G", 4 * 2**30),
        ("4 GB", 4 * 10**9),
        ("512 MB", 512 * 10**6),
        ("512mib", 512 * 2**20),
        ("1.5 KiB", 1536),
        ("2 TiB", 2**41),
        ("10 B", 10),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert memory_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "GiB", "0", "-4 GiB", "4 QiB", "4 GiB more", "9" * 5000, "nan"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError):
        memory_bytes(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0.5", 0.5),
        ("90 min", 5400),
        ("2h", 7200),
        ("1h 30m", 5400),
        ("1 hour, 5 minutes 3s", 3903),
        ("2 days", 172800),
        ("1:30:00", 5400),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert time_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1", "soon", "2 weeks", "inf", "1h x", "h", "9" * 5000])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError):
        time_s(text)
