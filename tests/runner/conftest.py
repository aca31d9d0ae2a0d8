"""Fixtures of the runner's tests: a far side for each way of starting, and a server of objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pythons import any_python
from runner.far_server import FarServer
from runner.far_side import FarSide, Mode

__all__ = ["any_python"]


@pytest.fixture(params=["fresh", "fork"])
def mode(request: pytest.FixtureRequest) -> Mode:
    """How an operation is started: each bad day must end the same way in both."""
    found: Mode = request.param
    return found


@pytest.fixture
def far(tmp_path: Path, mode: Mode) -> FarSide:
    return FarSide(tmp_path, mode)


@pytest.fixture
def make_far(tmp_path: Path) -> Callable[..., FarSide]:
    """Makes a far side with other properties."""

    def make(mode: Mode = "fork", **properties: object) -> FarSide:
        return FarSide(tmp_path / "far", mode, **properties)  # type: ignore[arg-type]

    return make


@pytest.fixture
def server() -> Iterator[FarServer]:
    with FarServer() as running:
        yield running
