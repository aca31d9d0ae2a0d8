"""What the worker tells whoever looks after it."""

from __future__ import annotations

import sys
import time


def say(text: str) -> None:
    """Tell whoever looks after the worker."""
    try:
        sys.stderr.write("%s %s\n" % (time.strftime("%H:%M:%S"), text))
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody looks any more
