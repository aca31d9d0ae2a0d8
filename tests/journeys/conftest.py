from __future__ import annotations

from collections.abc import Iterator

import pytest

from interop.webgme.conftest import engine, original
from journeys.parts import nothing_left
from shell import Shell

__all__ = ["engine", "original"]


@pytest.fixture(autouse=True)
def _nothing_survives(shell: Shell) -> Iterator[None]:
    yield
    nothing_left(shell.home)
