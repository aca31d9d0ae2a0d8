"""`python3 runner.pyz job.json`: run the one job that the file names, in the folder it lies in.

`main` may also be called in a process that was just forked for it; nothing happens at import.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial
from typing import Mapping, NoReturn, Optional, Sequence

from deepforge.runner import processes
from deepforge.runner.attempt import Attempt
from deepforge.runner.channel import Line, NotReached, Whereabouts
from deepforge.runner.failures import AttemptOver, Cancelled, JobFailed, say
from deepforge.runner.helper import Helper
from deepforge.runner.protocol import (
    EXIT_CANCELLED,
    EXIT_FAILED,
    EXIT_SUCCEEDED,
    EXIT_TRY_AGAIN,
    JOB_FILE,
    ProtocolError,
    Ticket,
    read_handed,
)
from deepforge.runner.watch import Watch, patience_of
from deepforge.runner.wire import Client


def main(
    argv: Sequence[str],
    handed: Optional[bytes] = None,
    settings: Optional[Mapping[str, str]] = None,
    helper: Optional[Helper] = None,
    client: Optional[Client] = None,
) -> int:
    """Run the job in this process and return its exit code (see `protocol`).

    `handed` is what the file says, for a caller that has it; only the file's folder counts then.
    `settings` are those variables of `protocol` by which a machine tells about itself; by default
    they are looked for in the environment. `helper` is used if it suits them. `client` is of a process
    that runs one job after the other: it may be connected, and is not closed.
    Must be called in the main thread. Another runner of the same attempt is not an error: nothing
    runs and the code is that of success.
    """
    if settings is None:
        settings = os.environ
    path = os.path.abspath(argv[0] if argv else JOB_FILE)
    folder = os.path.dirname(path)
    watch = Watch()
    watch.trap()
    processes.become_subreaper()
    try:
        data = handed or _read(path)
        if helper is not None and not helper.suits(settings):
            helper = None
        return _run(folder, data, settings, watch, helper, client)
    except (OSError, ProtocolError, JobFailed) as error:
        say("the job cannot be begun: %s" % error)
        return EXIT_FAILED
    except NotReached as error:
        say(str(error))
        return EXIT_TRY_AGAIN
    except (Cancelled, AttemptOver):
        return EXIT_CANCELLED
    finally:
        watch.release()


def warm() -> None:
    """Import and read now whatever a job may need, for a process that will fork runners."""
    import encodings.idna  # noqa: F401  # for names of hosts
    import faulthandler
    import pickle  # noqa: F401
    import traceback  # noqa: F401

    import deepforge.serialization  # noqa: F401
    from deepforge.runner.support import runner_digest

    faulthandler.enable()  # what operations would do
    processes.warm()
    runner_digest()


def main_and_leave(argv: Sequence[str]) -> NoReturn:
    """As `main`, as a whole program: threads that wait for a silent server do not hold it up."""
    os._exit(main(argv))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _run(
    folder: str,
    data: bytes,
    settings: Mapping[str, str],
    watch: Watch,
    helper: Optional[Helper],
    kept: Optional[Client],
) -> int:
    handed = read_handed(data)
    channel = handed.channel
    proxied = channel.proxied if channel is not None else False
    locate = Whereabouts(channel).locate
    make_client = partial(Client, proxied=proxied, locate=locate)
    make_line = None if channel is None else partial(Line, channel)
    client = kept or Client()
    client.begin(watch.check, proxied=proxied, locate=locate)
    try:
        if isinstance(handed, Ticket):
            assert make_line is not None
            watch.interrupts = True
            try:
                job = make_line(client).start(patience_of(settings))
            finally:
                watch.interrupts = False
            if job is None:
                return EXIT_SUCCEEDED
            job = job if job.channel is not None else replace(job, channel=channel)
        else:
            job = handed
        return Attempt(job, folder, settings, watch, client, make_client, make_line, helper).run()
    finally:
        if kept is None:
            client.close()


if __name__ == "__main__":
    main_and_leave(sys.argv[1:])
