"""Calling a server, and telling its answers apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from deepforge.worker.server import Line
from deepforge.worker.trouble import NotAdmitted, Refused, Trouble
from worker.fake_server import FakeServer

PATH = "/rest/executor/info/aa"


@pytest.fixture
def line(server: FakeServer) -> Iterator[Line]:
    with closing(Line(server.url, lambda: "df_token")) as made:
        yield made


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, Refused), (409, Refused), (413, Refused),
        (401, NotAdmitted), (403, NotAdmitted), (302, NotAdmitted), (307, NotAdmitted),
        (500, Trouble), (502, Trouble), (503, Trouble), (429, Trouble),
    ],
)  # fmt: skip
def test_a_status_says_what_to_do(
    server: FakeServer, line: Line, status: int, kind: type[Exception]
) -> None:
    server.faults[PATH].append((status, b"why", "text/plain"))
    with pytest.raises(kind) as told:
        line.ask("GET", PATH)

    assert kind is type(told.value)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b'{"error": {"message": "no", "hint": "do so"}}', "answered 409: no (do so)"),
        (b'{"error": {"message": "no", "hint": null}}', "answered 409: no"),
        (b'{"error": "no"}', 'answered 409: {"error": "no"}'),
        (b"[1]", r"answered 409: [1]"),
        (b"", "answered 409: nothing more"),
    ],
)
def test_a_refusal_is_told_in_the_words_of_the_server(
    server: FakeServer, line: Line, said: bytes, told: str
) -> None:
    server.faults[PATH].append((409, said, "application/json"))
    with pytest.raises(Refused) as refused:
        line.ask("GET", PATH)

    assert str(refused.value).endswith(told)


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b"null", b"\xff"])
def test_what_is_no_object_is_trouble(server: FakeServer, line: Line, body: bytes) -> None:
    server.faults[PATH].append((200, body, "text/html"))
    with pytest.raises(Trouble, match="something else than was asked for") as told:
        line.ask("GET", PATH)

    assert told.value.answered


def test_nobody_there_is_trouble_that_was_not_answered() -> None:
    with pytest.raises(Trouble) as told:
        Line("http://127.0.0.1:1", lambda: None).ask("GET", PATH)

    assert not told.value.answered


def test_the_token_goes_along_where_there_is_one(server: FakeServer, line: Line) -> None:
    server.info["aa"] = {}
    line.ask("GET", PATH)
    with closing(Line(server.url, lambda: None)) as without:
        without.ask("GET", PATH)

    assert ["df_token", None] == [one.headers.get("x-api-token") for one in server.requests]


def test_blobs_are_octets_and_never_forms(server: FakeServer, line: Line, tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    line.upload("/rest/blob/createFile/empty", str(path))
    line.upload_bytes("/rest/blob/createMetadata/", b"{}")

    kinds = {one.headers["content-type"] for one in server.requests}
    assert {"application/octet-stream"} == kinds
    assert "0" == server.requests[0].headers["content-length"]


def test_a_download_that_begins_as_a_web_page_is_trouble(
    server: FakeServer, line: Line, tmp_path: Path
) -> None:
    server.faults["/rest/blob/view/aa/"].append((200, b"<html>", "text/html"))
    with pytest.raises(Trouble):
        line.download("/rest/blob/view/aa/", str(tmp_path / "source"), magic=b"PK")


def test_a_server_under_a_path_is_called_there(server: FakeServer) -> None:
    server.faults["/forge/rest/x"].append((200, b"{}", "application/json"))

    with closing(Line(f"{server.url}/forge/", lambda: None)) as line:
        assert {} == line.ask("GET", "/rest/x")
