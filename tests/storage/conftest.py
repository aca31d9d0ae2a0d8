from __future__ import annotations

import pytest

from seaweed import Seaweed


@pytest.fixture(scope="session")
def bucket(seaweed: Seaweed) -> str:
    """One bucket for the whole session: a new one costs a second at its first object."""
    return seaweed.new_bucket()
