"""The Python interpreter that runs operations: found, and proven to be one."""

from __future__ import annotations

import os
import shutil
import subprocess

from deepforge.compute.environment import clean_environment
from deepforge.errors import ConfigError

_OLDEST = (3, 8)
_ANSWER_WITHIN_S = 30.0


def full_path(python: str) -> str:
    """Spell an interpreter so that it is the same one in every folder. Links are not resolved: a
    virtual environment's interpreter is a link to the system's."""
    named = os.path.expanduser(python)  # noqa: PTH111
    found = shutil.which(named) or named
    return os.path.abspath(found) if os.sep in found else found  # noqa: PTH100


def check_python(python: str) -> None:
    """Start it and ask for its version. Raises `ConfigError` naming `python` when that fails."""
    problem = None
    try:
        done = subprocess.run(
            [python, "-c", "import sys; print(*sys.version_info[:2])"],
            env=clean_environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ANSWER_WITHIN_S,
            check=False,
            text=True,
            errors="replace",
        )
        version = tuple(map(int, done.stdout.split()))
        if done.returncode or len(version) != 2:
            problem = f"is no Python interpreter (exit code {done.returncode})"
        elif version < _OLDEST:
            problem = f"is Python {version[0]}.{version[1]}; 3.8 or newer is needed"
    except subprocess.TimeoutExpired:
        problem = f"did not answer within {_ANSWER_WITHIN_S:.0f} s"
    except ValueError:
        problem = "is no Python interpreter (it does not print its version)"
    except OSError as error:
        problem = f"cannot be started: {error.strerror}"
    if problem is not None:
        raise ConfigError(
            f"{python} {problem}",
            fields={"python": problem},
            hint="give the full path of an interpreter, as `python3 -c 'import sys; "
            "print(sys.executable)'` prints it",
        )
