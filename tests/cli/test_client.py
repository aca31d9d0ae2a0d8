"""The blocking client: its answers, its pages, its events, and what it makes of errors."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from deepforge import errors
from deepforge.cli.client import Client, connect
from deepforge.errors import DeepForgeError

Handler = Callable[[httpx.Request], httpx.Response]


def client(handler: Handler) -> Client:
    http = httpx.Client(transport=httpx.MockTransport(handler), base_url="http://test/api/v1")
    return Client(http, where="the server test", embedded=False)


EVERY_ERROR: list[DeepForgeError] = [
    errors.ConfigError("m", fields={"bucket": "is required"}, hint="h"),
    errors.AuthError("m", expired=True),
    errors.Forbidden("m"),
    errors.NotFound("m", hint="h"),
    errors.AlreadyExists("m"),
    errors.Conflict("m"),
    errors.AttemptOver("m"),
    errors.InvalidRequest("m", part="p"),
    errors.InvalidProject("m", findings=[{"file": "f", "line": 3, "message": "bad"}]),
    errors.NotSupported("grants", "it cannot", hint="h"),
    errors.StorageFull("m"),
    errors.NoCapacity("m"),
    errors.RateLimited("m"),
    errors.Unavailable("m"),
    errors.OutcomeUnknown("m"),
    errors.Corrupt("m", expected="a", found="b"),
    errors.AdapterBug("m"),
]


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: error.code)
def test_an_error_comes_out_as_it_went_in(error: DeepForgeError) -> None:
    spelled = {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "transient": error.transient,
        "details": error.details(),
    }

    with pytest.raises(type(error)) as caught:
        client(lambda _: httpx.Response(400, json={"error": spelled})).get("/x")

    assert type(caught.value) is type(error)
    assert (caught.value.message, caught.value.hint) == (error.message, error.hint)
    assert caught.value.details() == error.details()


def test_every_error_of_the_tree_is_tried_here() -> None:
    def below(kind: type[DeepForgeError]) -> set[str]:
        codes = (below(one) for one in kind.__subclasses__())
        return {kind.code}.union(*codes)

    assert below(DeepForgeError) == {error.code for error in EVERY_ERROR} | {"error"}


@pytest.mark.parametrize("details", [{}, {"newer": 1}])
def test_an_error_of_a_newer_server_is_still_told(details: dict[str, int]) -> None:
    body = {"error": {"code": "brand_new", "message": "m", "hint": None, "details": details}}

    with pytest.raises(DeepForgeError, match="m") as caught:
        client(lambda _: httpx.Response(418, json=body)).get("/x")

    assert type(caught.value) is DeepForgeError


@pytest.mark.parametrize("text", ["<html>not found</html>", "[]", '{"error": "text"}', ""])
def test_an_answer_of_something_else_names_the_variable_to_check(text: str) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        client(lambda _: httpx.Response(404, text=text)).get("/x")

    assert caught.value.hint == "check DEEPFORGE_URL"


def test_a_page_that_is_not_ours_is_no_answer() -> None:
    with pytest.raises(errors.ConfigError):
        client(lambda _: httpx.Response(200, html="<html>welcome</html>")).get("/x")


def test_a_server_that_is_not_there_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPFORGE_URL", "http://127.0.0.1:9")

    with pytest.raises(errors.Unavailable, match="does not answer") as caught, connect() as http:
        http.get("/health")

    assert "DEEPFORGE_URL" in (caught.value.hint or "")


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", "http://", "http://a:port"])
def test_an_address_that_is_none_is_told_at_once(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DEEPFORGE_URL", url)

    with pytest.raises(errors.ConfigError, match="DEEPFORGE_URL"), connect():
        pass


def test_pages_are_followed_until_enough() -> None:
    asked: list[tuple[str, str | None]] = []

    def pages(request: httpx.Request) -> httpx.Response:
        limit, after = request.url.params["limit"], request.url.params.get("after")
        asked.append((limit, after))
        start = int(after or 0)
        items = [{"n": n} for n in range(start, start + 2)]
        return httpx.Response(200, json={"items": items, "next": str(start + 2)})

    found = list(client(pages).items("/x", most=5))

    assert [one["n"] for one in found][:5] == [0, 1, 2, 3, 4]
    assert asked == [("5", None), ("3", "2"), ("1", "4")]


def test_events_may_hold_any_character_and_end_with_the_end() -> None:
    text = "line\u2028still\x85the\x0bsame"
    stream = (
        ": keep-alive\n\n"
        f"event: log\ndata: {json.dumps({'text': text}, ensure_ascii=False)}\n\n"
        'event: end\ndata: {"id": 1}\n\n'
    )

    found = list(client(lambda _: httpx.Response(200, text=stream)).events("e"))

    assert found == [("log", {"text": text}), ("end", {"id": 1})]


def test_events_that_stop_before_the_end_are_an_error() -> None:
    cut = client(lambda _: httpx.Response(200, text='event: job\ndata: {"id": 1}\n\n'))

    with pytest.raises(errors.Unavailable, match="stopped sending"):
        list(cut.events("e"))
