from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture
def forgotten_sockets() -> Iterator[None]:
    """For tests whose server dies: pymongo forgets a socket when it is closed while it tries to
    connect, and leaves it to the garbage collector, which complains in whatever test runs then."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()
