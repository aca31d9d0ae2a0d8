from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from webgme.rig import Rig, opened


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with opened(tmp_path / "home") as opened_rig:
        yield opened_rig
