"""The runners of this worker: its own, and those that a server of another version wants."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from typing import Any, Tuple

from deepforge.worker.starter import write_whole
from deepforge.worker.trouble import Trouble

RUNNER_FILE = "runner.pyz"

_DIGEST = re.compile(r"[0-9a-f]{64}")


def own_runner() -> Tuple[str, bytes]:
    """The runner that came with this worker: its SHA-256 and its bytes."""
    loader: Any = __spec__.loader
    try:  # within worker.pyz it is a file, for another Python would pack it otherwise
        data: bytes = loader.get_data(os.path.join(os.path.dirname(__file__), RUNNER_FILE))
    except OSError:
        from deepforge.runner.build import runner_archive

        data = runner_archive()
    return hashlib.sha256(data).hexdigest(), data


class Runners:
    """Runners on the disk, under their digest, each beside the file that starts jobs with it."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        loader: Any = __spec__.loader
        here = os.path.dirname(__file__)
        self._starter: bytes = loader.get_data(os.path.join(here, "starter.py"))
        self._starter_file = "starter-%s.py" % hashlib.sha256(self._starter).hexdigest()[:12]
        self.own, self._own_data = own_runner()

    def clear(self) -> None:
        """Remove all but our own: what earlier workers started has read them."""
        for name in os.listdir(self._folder):
            if name != self.own:
                shutil.rmtree(os.path.join(self._folder, name), ignore_errors=True)

    def has(self, digest: str) -> bool:
        return digest == self.own or os.path.exists(self._path(digest))

    def keep(self, digest: str, data: bytes) -> None:
        """Keep a runner that was fetched. Raises `Trouble` if it is another, and `OSError`."""
        if hashlib.sha256(data).hexdigest() != digest:
            raise Trouble("the runner that came is not the one that was asked for", answered=True)
        path = self._path(digest)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        write_whole(path, data)

    def files(self, digest: str) -> Tuple[str, str]:
        """The paths of what starts jobs and of the runner. Raises `OSError`."""
        runner = self._path(digest)
        if digest == self.own and not os.path.exists(runner):
            os.makedirs(os.path.dirname(runner), mode=0o700, exist_ok=True)
            write_whole(runner, self._own_data)
        starter = os.path.join(os.path.dirname(runner), self._starter_file)
        if not os.path.exists(starter):
            write_whole(starter, self._starter)
        return starter, runner

    def _path(self, digest: str) -> str:
        if not _DIGEST.fullmatch(digest):
            raise Trouble("the server names a runner %.80r, which is no digest" % digest)
        return os.path.join(self._folder, digest, RUNNER_FILE)
