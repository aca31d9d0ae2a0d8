"""Server Compute takes the exam of its port."""

from __future__ import annotations

import pytest

from compute.supervised import OpenServer
from deepforge.testing.compute import ComputeContract, Opener


class TestServer(ComputeContract):
    slots = 2

    @pytest.fixture
    def opener(self, open_server: OpenServer) -> Opener:
        return open_server
