"""Server Compute takes the exam of its port: one supervisor for all of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from compute.supervised import QuickServerCompute, stop_all
from deepforge.compute.port import Host
from deepforge.compute.server.adapter import ServerSettings
from deepforge.testing.compute import ComputeContract, Opener


@pytest.fixture(scope="module")
def exam_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("exam") / "host"
    yield folder
    assert stop_all(folder) == {}


class TestServer(ComputeContract):
    slots = 2

    @pytest.fixture
    def opener(self, exam_folder: Path) -> Opener:
        return lambda: QuickServerCompute(ServerSettings(slots=2), Host(exam_folder))
