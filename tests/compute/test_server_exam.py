"""Server Compute takes the exam of its port."""

from __future__ import annotations

import pytest

from compute.supervised import OpenServer
from deepforge.testing.compute import ComputeContract, OpenAdapter


class TestServer(ComputeContract):
    slots = 2

    @pytest.fixture
    def open_adapter(self, open_server: OpenServer) -> OpenAdapter:
        return open_server
