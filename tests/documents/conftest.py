from __future__ import annotations

import pytest

from mongo_server import mongo_server

pytest.register_assert_rewrite("deepforge.testing.documents")

__all__ = ["mongo_server"]
