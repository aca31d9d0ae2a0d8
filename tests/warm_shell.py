"""Runs one `deepforge` command after the other, each in a fork of this process that has imported it.

What a command does is the same as in a fresh interpreter, in a tenth of the time. A line of JSON asks
for a command, a line answers with its exit code. Ends with standard input.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading

import deepforge.cli.artifacts
import deepforge.cli.connections
import deepforge.cli.embedded
import deepforge.cli.executions
import deepforge.cli.run  # noqa: F401 - that is what it is for
from deepforge.cli.main import main


def serve() -> None:
    assert threading.active_count() == 1  # a fork takes no other thread along
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _run(request)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


def _run(request: dict[str, object]) -> None:
    """Become the command. Does not return."""
    os.setsid()  # as from another terminal
    os.chdir(str(request["folder"]))
    environment = request["environment"]
    assert isinstance(environment, dict)
    os.environ.clear()
    os.environ.update(environment)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_APPEND
        os.dup2(os.open(str(request[name]), flags), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - what was read ahead belongs to the parent
    arguments = request["arguments"]
    assert isinstance(arguments, list)
    sys.argv = ["deepforge", *arguments]
    signal.alarm(int(str(request["timeout_s"])))
    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
