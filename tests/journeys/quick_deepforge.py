"""`deepforge` with little patience: what it waits for out of politeness it does not wait for here.

The stand-in of SciServer is asked all the time, and an answer that does not come is given up soon. What
is asked, and what is made of the answers, is the same. The politeness itself has tests of its own.
"""

from __future__ import annotations

from dataclasses import replace

from deepforge.cli.main import main
from deepforge.compute.sciserver import board
from deepforge.compute.sciserver.adapter import SciServerCompute
from deepforge.execution import conductor, driver, effects, log_watch
from deepforge.execution.machine import Policy
from deepforge.sciserver import session

ASK_EVERY_S = 0.2
QUIET_S = 1.5


def hurry() -> None:
    SciServerCompute.list_every_s = ASK_EVERY_S
    SciServerCompute.files_come_within_s = 3 * ASK_EVERY_S
    SciServerCompute.capabilities = replace(SciServerCompute.capabilities, poll_every_s=ASK_EVERY_S)
    board.QUEUES_EVERY_S = ASK_EVERY_S
    session.QUIET_S = QUIET_S
    effects.FIRST_PAUSE_S = effects.LONGEST_PAUSE_S = ASK_EVERY_S
    conductor.POLL_S = ASK_EVERY_S
    log_watch.LEAST_PAUSE_S = ASK_EVERY_S
    quick = Policy(first_pause_s=0.1, longest_pause_s=0.1, missing_grace_s=1.0)
    setattr(driver, "Policy", lambda: quick)  # noqa: B010  # the one it makes


if __name__ == "__main__":
    hurry()
    main()
