"""The home folder: everything that DeepForge keeps on this machine.

deepforge.db        the embedded database, unless DEEPFORGE_DATABASE names another
secret.key          what encrypts the secrets of connections (0600)
address             base URL of a server that answers for this home, while there is one
storage/            objects of the storage `local`
users/<name>/       the same of the other users
computes/<name>/    what computes on this machine keep
logs/
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deepforge.errors import ConfigError

HOME_VARIABLE = "DEEPFORGE_HOME"
DATABASE_VARIABLE = "DEEPFORGE_DATABASE"


@dataclass(frozen=True)
class Home:
    """The layout of one home folder. Several processes may use one home at the same time."""

    folder: Path

    @property
    def database(self) -> Path:
        return self.folder / "deepforge.db"

    @property
    def secret_key(self) -> Path:
        return self.folder / "secret.key"

    @property
    def address(self) -> Path:
        return self.folder / "address"

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    @property
    def computes(self) -> Path:
        return self.folder / "computes"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def database_url(self, environ: Mapping[str, str] = os.environ) -> str:
        """Where documents are kept: `DEEPFORGE_DATABASE`, or the embedded database in here."""
        return environ.get(DATABASE_VARIABLE) or f"sqlite://{self.database}"

    def read_address(self) -> str | None:
        """Base URL of the server that last said it answers for this home, or None. It may be gone."""
        try:
            return self.address.read_text("utf-8").strip() or None
        except FileNotFoundError:
            return None

    def write_address(self, url: str) -> None:
        """Put the base URL in place at once: a reader sees the old or the new one, whole."""
        _write_whole(self.address, url + "\n")

    def remove_address(self, url: str) -> None:
        """Take our base URL away again; another server's is left alone."""
        if self.read_address() == url:
            self.address.unlink(missing_ok=True)


def open_home(environ: Mapping[str, str] = os.environ) -> Home:
    """Find the home folder and make it (0700) if it is not there. Safe to repeat.

    It is `DEEPFORGE_HOME`, else the platform's folder for user data. Raises `ConfigError` when it
    cannot be made, when others own it or may write to it, or when it cannot be written before it
    holds a database: what is in one can be read all the same.
    """
    named = environ.get(HOME_VARIABLE)
    folder = Path(named).expanduser().absolute() if named else _default_folder()
    hint = f"set {HOME_VARIABLE} to a folder of your own"
    home = Home(folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if not home.database.is_file():
            with tempfile.TemporaryFile(dir=folder):
                pass
    except (OSError, ValueError) as error:
        raise ConfigError(f"the home folder {folder} cannot be used: {error}", hint=hint) from error
    if os.name == "posix" and status.st_uid != os.geteuid():
        raise ConfigError(f"the home folder {folder} belongs to another user", hint=hint)
    if status.st_mode & 0o002:
        shared = status.st_mode & 0o1000  # such as /tmp: others need it as it is
        raise ConfigError(
            f"the home folder {folder} can be written by everybody on this machine",
            hint=hint if shared else f"run: chmod 700 {folder}, or {hint}",
        )
    for inner in (home.storage, home.computes, home.logs):
        inner.mkdir(mode=0o700, exist_ok=True)
    return home


def _default_folder() -> Path:
    from platformdirs import user_data_path

    return user_data_path("deepforge", appauthor=False)


def _write_whole(path: Path, text: str) -> None:
    _temporary_beside(path, text).replace(path)


def _temporary_beside(path: Path, text: str) -> Path:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # 0600
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return Path(name)
