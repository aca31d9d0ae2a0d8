from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deepforge.execution import conductor, driver
from execution.rig import Rig, opened


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds for the sake of politeness takes hundredths here."""
    monkeypatch.setattr(conductor, "READ_AGAIN_S", 0.05)
    monkeypatch.setattr(conductor, "POLL_S", 0.02)
    monkeypatch.setattr(driver, "LOOK_S", 0.05)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
async def rig(home: Path) -> AsyncIterator[Rig]:
    """A driving server over a fresh home."""
    async with opened(home) as one:
        yield one
