"""The home folder: everything that DeepForge keeps on this machine.

deepforge.db        the embedded database, unless DEEPFORGE_DATABASE names another
secret.key          what encrypts the secrets of connections (0600)
token               what callers from elsewhere present (0600)
address             base URL of a server that answers for this home, while there is one
storage/            objects of the storage `local`
computes/<name>/    what computes on this machine keep
logs/
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deepforge.errors import ConfigError
from deepforge.settings import Secret

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
    def token(self) -> Path:
        return self.folder / "token"

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

    def access_token(self) -> Secret:
        """Return the token of this home; the first caller of all makes it (0600, 256 random bits).

        Raises `ConfigError` if it cannot be read or was emptied.
        """
        try:
            _write_once(self.token, secrets.token_urlsafe(32))
            text = self.token.read_text("ascii").strip()
        except (OSError, ValueError) as error:
            raise ConfigError(f"the access token {self.token} cannot be read: {error}") from error
        if len(text) < 16:
            raise ConfigError(
                f"the access token {self.token} is empty or too short",
                hint="remove the file; a new one is made at the next start",
            )
        return Secret(text)

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
    cannot be made or written, or when others own it or may write to it.
    """
    named = environ.get(HOME_VARIABLE)
    folder = Path(named).expanduser().absolute() if named else _default_folder()
    hint = f"set {HOME_VARIABLE} to a folder of your own"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        raise ConfigError(f"the home folder {folder} cannot be used: {error}", hint=hint) from error
    if os.name == "posix" and status.st_uid != os.geteuid():
        raise ConfigError(f"the home folder {folder} belongs to another user", hint=hint)
    if status.st_mode & 0o002:
        raise ConfigError(
            f"the home folder {folder} can be written by everybody on this machine",
            hint=f"run: chmod 700 {folder}, or {hint}",
        )
    home = Home(folder)
    for inner in (home.storage, home.computes, home.logs):
        inner.mkdir(mode=0o700, exist_ok=True)
    return home


def _default_folder() -> Path:
    from platformdirs import user_data_path

    return user_data_path("deepforge", appauthor=False)


def _write_once(path: Path, text: str) -> None:
    """Create the file with this text unless it exists. Of many who race one wins, whole."""
    if path.exists():
        return
    temporary = _temporary_beside(path, text)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()


def _write_whole(path: Path, text: str) -> None:
    _temporary_beside(path, text).replace(path)


def _temporary_beside(path: Path, text: str) -> Path:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # 0600
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return Path(name)
