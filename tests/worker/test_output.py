"""Output is cut into segments that lose nothing, wherever the cuts fall."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepforge.worker.output import Output


def read_all(output: Output, *, ended: bool = True) -> list[str]:
    found: list[str] = []
    while (body := output.next(ended=ended)) is not None:
        assert {"hash": "h", "outputNumber": len(found)} | body == body
        assert f"h+{len(found)}" == body["_id"]
        found.append(body["output"])
        output.took()
    return found


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=600), longest=st.integers(120, 400))
def test_the_segments_are_the_whole_text(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, longest: int
) -> None:
    folder = tmp_path_factory.mktemp("output")
    path = folder / "out"
    path.write_bytes(data)
    output = Output(str(path), str(folder / "sent"), hash="h", longest_bytes=longest)

    assert data.decode("utf-8", "replace") == "".join(read_all(output))


def test_bodies_keep_to_the_limit_whatever_the_characters(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("\0é😀" * 5000)
    output = Output(str(path), str(tmp_path / "sent"), hash="h", longest_bytes=1000)

    while (body := output.next(ended=True)) is not None:
        assert len(json.dumps(body)) <= 1000
        output.took()
    assert output.is_over


def test_half_a_character_waits_for_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes("ä".encode()[:1])
    output = Output(str(path), str(tmp_path / "sent"), hash="h", longest_bytes=1000)
    assert output.next(ended=False) is None
    with path.open("ab") as file:
        file.write("ä".encode()[1:])

    assert ["ä"] == read_all(output, ended=False)


def test_another_worker_goes_on_where_the_last_one_was_heard(tmp_path: Path) -> None:
    path, sent = tmp_path / "out", tmp_path / "sent"
    path.write_text("one")
    first = Output(str(path), str(sent), hash="h", longest_bytes=1000)
    first.next(ended=False)
    first.took()
    with path.open("a") as file:
        file.write("two")
    lost = Output(str(path), str(sent), hash="h", longest_bytes=1000).next(ended=False)
    again = Output(str(path), str(sent), hash="h", longest_bytes=1000).next(ended=False)

    assert lost == again
    assert again is not None
    assert (1, "two") == (again["outputNumber"], again["output"])


def test_no_file_is_no_output(tmp_path: Path) -> None:
    output = Output(str(tmp_path / "none"), str(tmp_path / "sent"), hash="h", longest_bytes=1000)

    assert output.next(ended=True) is None
    assert output.is_over
