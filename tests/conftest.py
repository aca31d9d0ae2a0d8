"""Fixtures that tests of several folders share."""

from __future__ import annotations

import pytest

from mongo_server import mongo_server
from seaweed import seaweed
from shell import shell, warm_shell

__all__ = ["mongo_server", "seaweed", "shell", "warm_shell"]

pytest.register_assert_rewrite("deepforge.testing")  # before any test imports it
