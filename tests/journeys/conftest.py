from __future__ import annotations

from collections.abc import Iterator

import pytest

from journeys.parts import processes_of, stop_supervisors
from shell import Shell


@pytest.fixture(autouse=True)
def _nothing_survives(shell: Shell) -> Iterator[None]:
    """Stop the supervisor of the home; everything else must have ended by itself."""
    yield
    import time

    stop_supervisors(shell.home)
    deadline = time.monotonic() + 10
    while left := processes_of(shell.home):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)
