"""A running stand-in of SciServer, and a client of its user alice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deepforge.testing.sciserver import SciServer, running


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SciServer]:
    with running(tmp_path / "world", tick_s=0.02) as site:
        site.users.add_user("alice")
        yield site


@pytest.fixture
def http(site: SciServer) -> Iterator[httpx.Client]:
    headers = {"X-Auth-Token": site.users.add_token("alice")}
    with httpx.Client(base_url=site.url, headers=headers, timeout=10) as http:
        yield http
