"""A stand-in for SciServer: its login portal, its Files and its Compute service, on loopback.

with running() as site:
    site.users.add_user("alice", "wonderland")
    site.faults.add("reset_after", method="PUT", path="/fileservice/api/data/")
    ...  # a client of site.url

It answers as the real services were seen to, or as their published code does, and it runs submitted
commands for real. What it does not know is what nobody could see from outside: see the documentation.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from deepforge.testing.sciserver.faults import Kind
from deepforge.testing.sciserver.jobs import Status
from deepforge.testing.sciserver.server import SciServer, serving
from deepforge.testing.sciserver.world import User

__all__ = ["Kind", "SciServer", "Status", "User", "running"]


@contextlib.contextmanager
def running(
    folder: Path | None = None, *, port: int = 0, tick_s: float = 0.05
) -> Iterator[SciServer]:
    """A fresh world with the two domains of the public site, one data volume and no users.

    `folder` holds all files; without it they are in a temporary one that is gone afterwards. A job
    moves on every `tick_s`. Nothing is left running afterwards, jobs neither.
    """
    with contextlib.ExitStack() as stack:
        if folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="sciserver-", ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(temporary))
        site = stack.enter_context(serving(folder.resolve(), port=port, tick_s=tick_s))
        site.state.add_data_volume("sdss", display_name="SDSS")
        for name in ("Small Jobs Domain", "Large Jobs Domain"):
            site.state.add_domain(name, data_volumes=["sdss"])
        site.state.add_domain("Interactive Domain", is_batch=False)
        yield site
