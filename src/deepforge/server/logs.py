"""What a process of ours writes about itself: JSON lines, or readable ones on a terminal."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from typing import TextIO

import structlog


def configure_logging(stream: TextIO | None = None, *, level: int = logging.INFO) -> None:
    """Send our events, and warnings of libraries, to `stream` (stderr). Called once by a program."""
    target = _Patient(stream if stream is not None else sys.stderr)
    renderer: structlog.typing.Processor
    if target.isatty():
        # not the default one, which shows the local variables of every frame
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    else:
        renderer = structlog.processors.JSONRenderer(default=repr)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    finish: list[structlog.typing.Processor] = (
        [renderer] if target.isatty() else [structlog.processors.format_exc_info, renderer]
    )
    structlog.configure(
        processors=[*shared, *finish],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *finish],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    # It repeats, with a traceback, what the app has reported as an event already.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)


class _Patient(io.StringIO):
    """A stream for logs that never fails: a full disk must not end those who tell of it."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # ValueError: it was closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()
