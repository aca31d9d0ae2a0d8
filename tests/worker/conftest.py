"""What tests of the worker share: a real worker process, and servers for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deepforge.worker.build import worker_archive
from pythons import any_python
from runner.far_side import FarSide
from worker.fake_server import FakeServer
from worker.programs import Workers

__all__ = ["any_python"]


@pytest.fixture(scope="session")
def worker_pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("worker") / "worker.pyz"
    path.write_bytes(worker_archive())
    return path


@pytest.fixture
def workers(tmp_path: Path, worker_pyz: Path) -> Iterator[Workers]:
    made = Workers(tmp_path, worker_pyz)
    yield made
    made.end()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server of ours."""
    with FakeServer() as running:
        yield running


@pytest.fixture
def original() -> Iterator[FakeServer]:
    """A server that knows nothing of our dialect."""
    with FakeServer(ours=False) as running:
        yield running


@pytest.fixture
def far(tmp_path: Path) -> FarSide:
    """Makes jobs of our runner, and holds what they leave."""
    return FarSide(tmp_path / "far")
