from __future__ import annotations

import pytest

from deepforge.ids import new_id
from deepforge.storage.memory import MemoryAdapter, MemorySettings
from deepforge.testing.storage import StorageContract
from deepforge.testing.storage_exam import Opener


class TestMemory(StorageContract):
    @pytest.fixture
    def opener(self) -> Opener:
        shelf = f"exam-{new_id()}"
        return lambda: MemoryAdapter(MemorySettings(shelf))
