"""Fixtures that tests of several folders share."""

from __future__ import annotations

from mongo_server import mongo_server
from seaweed import seaweed
from shell import shell, warm_shell

__all__ = ["mongo_server", "seaweed", "shell", "warm_shell"]
