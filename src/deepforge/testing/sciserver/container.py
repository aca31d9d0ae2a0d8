"""One submitted command, running for real where `/home/idies/workspace` is what it asked for.

Where Linux lets us (mount and process namespaces), it sees its volumes there and no others, those it
may not write are read-only, and nothing of it outlives it. Elsewhere the paths in the command are
replaced by those of a folder of links, and its process group is what is ended.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deepforge.testing.sciserver.world import WORKSPACE

HOME = "/home"
NAMESPACES = [
    "unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child", "--propagation", "private"
]  # fmt: skip


@dataclass(frozen=True)
class Mount:
    """A folder of ours, and where below the workspace the command finds it."""

    source: Path
    target: str
    is_writable: bool


class Container:
    """Started at once. `end` throws `folder` away; the job's own folder stays."""

    def __init__(
        self,
        folder: Path,
        mounts: list[Mount],
        *,
        job_folder: Path,
        working: str,
        command: str,
        notebook: str,
        token: str,
    ) -> None:
        self._folder = folder
        home = folder / "home"
        idies = home / "idies"
        (idies / "workspace").mkdir(parents=True)
        (idies / "keystone.token").write_text(token)
        if notebook:
            (job_folder / "parameters.txt").write_text(command)
            command = _notebook_command(notebook)
        else:
            (job_folder / "command.txt").write_text(command)
        with (
            (job_folder / "stdout.txt").open("wb") as stdout,
            (job_folder / "stderr.txt").open("wb") as stderr,
        ):
            self._process = subprocess.Popen(
                _isolated(home, mounts, working, command)
                if can_isolate()
                else _linked(idies / "workspace", mounts, working, command),
                cwd=job_folder,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=_environment(HOME if can_isolate() else str(home)),
                start_new_session=True,
            )

    @property
    def process_id(self) -> int:
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs; minus the signal that ended it."""
        if self._process.returncode is not None:
            return self._process.returncode
        # Not reaped yet: its number stays its own until `end` has ended its group too.
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        ended = os.waitid(os.P_PID, self._process.pid, options)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def end(self) -> None:
        """End all that is left of it, and forget its home. Safe to repeat."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


@functools.cache
def can_isolate() -> bool:
    """Whether this machine lets us mount things for one process alone."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    script = f"mount --bind {HOME} {HOME}"
    done = subprocess.run([*_unshare(), "sh", "-c", script], capture_output=True, timeout=20)
    return done.returncode == 0


def _unshare() -> list[str]:
    return NAMESPACES if os.geteuid() == 0 else [*NAMESPACES, "--map-root-user"]


def _isolated(home: Path, mounts: list[Mount], working: str, command: str) -> list[str]:
    lines = ["set -e"]
    for entry in Path(HOME).iterdir():  # what was at home, as the programs may be, stays there
        if entry.is_dir() and not entry.is_symlink() and entry.name != "idies":
            (home / entry.name).mkdir()
            lines.append(f"mount --rbind {_quoted(entry)} {_quoted(home / entry.name)}")
    for mount in mounts:
        target = home / "idies" / "workspace" / mount.target
        target.mkdir(parents=True)
        lines.append(f"mount --bind {_quoted(mount.source)} {_quoted(target)}")
        if not mount.is_writable:
            lines.append(f"mount -o remount,bind,ro {_quoted(target)}")
    lines += [
        f"mount --rbind {_quoted(home)} {HOME}",
        f"cd {shlex.quote(f'{WORKSPACE}/{working}')}",
        f"exec {_shell()} -c {shlex.quote(command)}",
    ]
    return [*_unshare(), "sh", "-c", "\n".join(lines)]


def _linked(workspace: Path, mounts: list[Mount], working: str, command: str) -> list[str]:
    for mount in mounts:
        target = workspace / mount.target
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(mount.source)
    here = command.replace(WORKSPACE, str(workspace))
    return [_shell(), "-c", f"cd {_quoted(workspace / working)} && {here}"]


def _notebook_command(notebook: str) -> str:
    """Run the code cells of a notebook one after the other, with nothing but python3."""
    script = (
        "import json, sys\n"
        "cells = json.load(open(sys.argv[1]))['cells']\n"
        "code = [''.join(one['source']) for one in cells if one['cell_type'] == 'code']\n"
        "exec(compile('\\n'.join(code), sys.argv[1], 'exec'), {'__name__': '__main__'})\n"
    )
    return f"python3 -c {shlex.quote(script)} {shlex.quote(notebook)}"


def _environment(home: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
    return {**kept, "HOME": f"{home}/idies", "USER": "idies", "SHELL": _shell()}


def _shell() -> str:
    return shutil.which("bash") or "/bin/sh"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
