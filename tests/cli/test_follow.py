"""Following an execution: plain lines, lost connections, what is told of each job."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from deepforge.cli import follow as following
from deepforge.cli.client import Client
from deepforge.cli.follow import follow
from deepforge.cli.progress import PlainProgress, final_text
from deepforge.errors import Unavailable


def job(status: str, *, id: str = "train", **changes: Any) -> dict[str, Any]:
    return {
        "id": id, "name": id, "status": status, "attempts": 1, "cached": False, "seconds": 1.5,
        "skipped_because": None, "started_at": None, **changes,
    }  # fmt: skip


def view(status: str, *jobs: dict[str, Any]) -> dict[str, Any]:
    return {"id": "e1", "pipeline": "digits", "status": status, "jobs": list(jobs)}


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_each_change_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    progress = PlainProgress()
    progress.begin(view("running", job("waiting", attempts=0)))
    for status in ("queued", "running", "running", "collecting", "succeeded", "succeeded"):
        progress.job(job(status))

    assert lines(capsys) == [
        "digits: 1 job, execution e1",
        "train: running",
        "train: succeeded in 1.50 s",
    ]


def test_what_a_compute_says_of_a_job_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    progress = PlainProgress()
    for message in (
        "number 3 in the queue",
        "number 3 in the queue",
        "number 1 in the queue",
        "gone\x1b[2J\naway",
        None,
    ):
        progress.job(job("queued", message=message))

    assert lines(capsys) == [
        "train: queued: number 3 in the queue",
        "train: queued: number 1 in the queue",
        "train: queued: gone\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}away",
    ]


def test_retries_skips_and_cached_results_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    progress = PlainProgress()
    progress.job(job("ready"))
    progress.job(job("running", attempts=2))
    progress.job(job("failed", attempts=2))
    progress.job(job("skipped", id="score", attempts=0, skipped_because="train"))
    progress.job(job("succeeded", id="load", attempts=0, cached=True))

    assert lines(capsys) == [
        "train: attempt 1 did not succeed; trying again",
        "train: running, attempt 2",
        "train: failed",
        "score: skipped, because train did not succeed",
        "load: taken from an earlier execution",
    ]


def test_why_it_is_tried_again_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    progress = PlainProgress()
    for attempt, message in enumerate(("the runner was killed", "a\nb", "x" * 300, "", None), 1):
        failure = None if message is None else {"message": message}
        progress.job(job("ready", attempts=attempt, failure=failure))

    assert lines(capsys) == [
        "train: attempt 1 did not succeed: the runner was killed; trying again",
        "train: attempt 2 did not succeed: a; trying again",
        f"train: attempt 3 did not succeed: {'x' * 200}…; trying again",
        "train: attempt 4 did not succeed; trying again",
        "train: attempt 5 did not succeed; trying again",
    ]


def test_log_lines_come_whole_and_before_the_end_of_their_job(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = PlainProgress()
    progress.begin(view("running", job("running")))
    progress.log("train", "epoch 1\nepo")
    progress.log("train", "ch 2\nlast words")
    progress.job(job("succeeded"))

    assert lines(capsys)[2:] == [
        "train | epoch 1",
        "train | epoch 2",
        "train | last words",
        "train: succeeded in 1.50 s",
    ]


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("plain", "plain"),
        ("10%\r20%\r100%", "100%"),
        ("dos\r", "dos"),
        ("\x1b[31mred\x1b[0m\tx", "[31mred[0m\tx"),
        ("", ""),
    ],
)
def test_only_what_is_left_of_a_line_is_shown(line: str, seen: str) -> None:
    assert final_text(line) == seen


class Server:
    """Answers one stream of events after the other."""

    def __init__(self, *streams: list[tuple[str, dict[str, Any]]]) -> None:
        self.streams = list(streams)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        events = self.streams.pop(0) if self.streams else []
        text = "".join(f"event: {kind}\ndata: {json.dumps(data)}\n\n" for kind, data in events)
        return httpx.Response(200, text=text)

    def client(self) -> Client:
        http = httpx.Client(transport=httpx.MockTransport(self), base_url="http://test/api/v1")
        return Client(http, where="the server test", embedded=False)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_FIRST_PAUSE_S", 0.001)


@pytest.mark.parametrize("quiet", [True, False])
def test_who_shows_no_logs_asks_for_none(quiet: bool) -> None:
    """Where nobody looks, no service is asked for them."""
    asked: list[str] = []
    server = Server([("end", view("succeeded"))])

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params["logs"])
        return server(request)

    http = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://test/api/v1")
    follow(Client(http, where="the server test", embedded=False), "e1", quiet=quiet)

    assert asked == ["false" if quiet else "true"]


def test_a_lost_connection_is_taken_up_again(capsys: pytest.CaptureFixture[str]) -> None:
    done = view("succeeded", job("succeeded"))
    server = Server(
        [("execution", view("running", job("running")))],
        [],
        [("execution", view("running", job("running"))), ("end", done)],
    )

    assert follow(server.client(), "e1") == done
    assert lines(capsys) == ["digits: 1 job, execution e1", "train: running"]


def test_what_was_printed_before_the_connection_was_lost_is_not_printed_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def log(start: int, text: str) -> tuple[str, dict[str, Any]]:
        end = start + len(text.encode())
        return "log", {"job": "train", "attempt": 1, "start": start, "end": end, "text": text}

    begun = "execution", view("running", job("running"))
    server = Server(
        [begun, log(0, "öne\n"), log(5, "two\nthr")],
        [begun, log(0, "öne\ntwo\n"), log(9, "three\n")],
        [begun, log(0, "öne\ntwo\nthree\n"), log(15, "four\n"), ("end", view("succeeded"))],
    )

    follow(server.client(), "e1", prints_logs=True)

    told = capsys.readouterr().out.splitlines()
    assert told == ["train | öne", "train | two", "train | three", "train | four"]


def test_a_connection_lost_for_good_names_the_execution_and_the_way_back() -> None:
    with pytest.raises(Unavailable, match="lost sight of execution e1: the server test") as caught:
        follow(Server().client(), "e1", quiet=True)

    assert "deepforge executions logs -f e1" in str(caught.value.hint)
