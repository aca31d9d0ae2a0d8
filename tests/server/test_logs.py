from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from deepforge.server.logs import configure_logging
from deepforge.settings import Secret


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:], root.level = before[0], before[1]
    logging.getLogger("uvicorn.error").setLevel(logging.NOTSET)
    structlog.reset_defaults()


def test_events_are_json_lines_in_which_no_secret_shows(stream: io.StringIO) -> None:
    configure_logging(stream)
    structlog.get_logger("deepforge.x").info("thing_happened", job="ü", key=Secret("hunter2"))
    structlog.get_logger("deepforge.x").debug("detail")

    line = json.loads(stream.getvalue())
    assert (line["event"], line["job"], line["level"]) == ("thing_happened", "ü", "info")
    assert "hunter2" not in stream.getvalue()


def test_warnings_of_libraries_come_in_the_same_form(stream: io.StringIO) -> None:
    configure_logging(stream)
    logging.getLogger("some.library").warning("it is %s", "odd")
    logging.getLogger("some.library").info("chatter")

    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(one["event"], one["level"]) for one in lines] == [("it is odd", "warning")]


def test_a_person_at_a_terminal_gets_readable_lines(stream: io.StringIO) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    configure_logging(terminal)
    structlog.get_logger("x").info("thing_happened", job="one")
    try:
        password = "hunter2"
        raise ValueError("on purpose")
    except ValueError:
        structlog.get_logger("x").exception("thing_crashed", length=len(password))

    assert "thing_happened" in terminal.getvalue()
    assert "on purpose" in terminal.getvalue()
    assert "hunter2" not in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


def test_a_log_that_cannot_be_written_ends_nobody(stream: io.StringIO) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    configure_logging(Full())

    structlog.get_logger().error("disk_full")
    logging.getLogger("library").error("disk full too")
