"""A server that others can reach, and who speaks to it from elsewhere."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from shell import Shell

PASSWORD = b"correct horse\n"


@contextmanager
def serving(shell: Shell, *where: str) -> Iterator[Shell]:
    """A server that others can reach, and a shell with an empty home that speaks to it."""
    with shell.begin("start", *(where or ("--port", "0", "--host", "0.0.0.0"))) as process:
        try:
            assert process.stdout is not None
            url = re.search(rb"http://\S+", process.stdout.readline())
            assert url is not None, process.stderr and process.stderr.read().decode()
            yield replace(
                shell,
                home=shell.home.with_name("other-home"),
                environment={"DEEPFORGE_URL": url[0].decode()},
            )
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        finally:
            process.kill()
            process.communicate()


def with_token(shell: Shell, token: str) -> Shell:
    return replace(shell, environment={**shell.environment, "DEEPFORGE_TOKEN": token})
