from __future__ import annotations

from collections.abc import Iterator

import pytest

from deepforge.sciserver.hosts import Hosts
from deepforge.testing.sciserver import SciServer, running


@pytest.fixture
def site() -> Iterator[SciServer]:
    """A fresh stand-in with the account alice / wonderland."""
    with running() as site:
        site.users.add_user("alice", "wonderland")
        yield site


@pytest.fixture
def hosts(site: SciServer) -> Hosts:
    return Hosts.of(site.url)
