"""The options of the worker, said once: for `worker.pyz` and for `deepforge worker` alike."""

from __future__ import annotations

import os
import platform
import re
import stat
import sys
from dataclasses import dataclass
from typing import Any, Mapping, Optional, Tuple

from deepforge.runner.addresses import WireError, split_url
from deepforge.runner.cache import DEFAULT_LIMIT_BYTES
from deepforge.worker.folder import Folder
from deepforge.worker.machine import count_cpus, find_gpus, memory_bytes
from deepforge.worker.say import say
from deepforge.worker.server import Token
from deepforge.worker.slots import Capacity
from deepforge.worker.trouble import WorkerError

DEFAULT_FOLDER = "~/.deepforge-worker"
TOKEN_VARIABLE = "DEEPFORGE_TOKEN"


@dataclass(frozen=True)
class Options:
    """What the worker's owner decided. `token` gives the access token to use now."""

    url: str
    token: Token
    folder: str
    name: str
    capacity: Capacity
    labels: Tuple[str, ...]
    cache_bytes: int
    python: str


@dataclass(frozen=True)
class Option:
    """One option. Without a `metavar` it is a switch."""

    name: str
    help: str
    metavar: Optional[str] = None
    is_many: bool = False


OPTIONS = (
    Option("--url", "The server to work for.", "URL"),
    Option(
        "--token",
        "The access token, scope `worker`. `-` reads it from standard input. Without this option: "
        "DEEPFORGE_TOKEN, or the file `token` in the worker's folder.",
        "TOKEN",
    ),
    Option("--token-file", "A file with the access token, which only you may read.", "PATH"),
    Option(
        "--folder",
        "What the worker keeps: its jobs, its cache. Default: %s." % DEFAULT_FOLDER,
        "PATH",
    ),
    Option("--name", "How the server shows this worker. Default: the name of the machine.", "NAME"),
    Option("--jobs", "How many jobs run at once. Default: one for each processor.", "N"),
    Option("--cpus", "How many processors jobs may use together. Default: all.", "N"),
    Option("--memory", "How much memory jobs may use together, such as 12G. Default: all.", "SIZE"),
    Option("--gpus", "How many GPUs jobs may use. Default: what nvidia-smi finds.", "N"),
    Option(
        "--label",
        "A label of this machine; jobs that ask for it come here. Can be given more than once.",
        "LABEL",
        is_many=True,
    ),
    Option("--cache", "How large the cache of data may grow, such as 50G. Default: 20G.", "SIZE"),
    Option("--python", "The interpreter that runs operations. Default: this one.", "PATH"),
    Option("--service", "Print a systemd user unit for these options, and end."),
)


def read_options(given: Mapping[str, Any], environ: Mapping[str, str]) -> Options:
    """Complete what was given, by the option's name without dashes in front. Raises `WorkerError`.

    Reads standard input when the token is `-`.
    """
    url, folder = given_url(given), folder_of(given)
    gpus = find_gpus(environ)
    asked_gpus = _count(given, "gpus", None)
    if asked_gpus is not None and asked_gpus > len(gpus):
        gpus = (*gpus, *(str(number) for number in range(len(gpus), asked_gpus)))
    cpus = _count(given, "cpus", None) or count_cpus()
    capacity = Capacity(
        jobs=_count(given, "jobs", None) or cpus,
        cpus=cpus,
        memory_bytes=_size(given, "memory") or memory_bytes(),
        gpus=gpus if asked_gpus is None else gpus[:asked_gpus],
    )
    return Options(
        url=url,
        token=_token(given, environ, Folder(folder).token),
        folder=folder,
        name=str(given.get("name") or platform.node() or "worker"),
        capacity=capacity,
        labels=tuple(str(one) for one in given.get("label") or ()),
        cache_bytes=_size(given, "cache") or DEFAULT_LIMIT_BYTES,
        python=str(given.get("python") or sys.executable),
    )


def given_url(given: Mapping[str, Any]) -> str:
    """Return the server's URL. Raises `WorkerError`."""
    url = str(given.get("url") or "").rstrip("/")
    if not url:
        raise WorkerError("no server is named", "say which one with --url https://…")
    try:
        split_url(url)
    except WireError as error:
        raise WorkerError("--url: %s" % error) from error
    return url


def folder_of(given: Mapping[str, Any]) -> str:
    return os.path.expanduser(str(given.get("folder") or DEFAULT_FOLDER))


class _FileToken:
    """The token in a file, read anew whenever the file changes: it can be replaced any time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: Any = None
        self._token: Optional[str] = None

    def __call__(self) -> Optional[str]:
        try:
            found = os.stat(self._path)
            seen = (found.st_mtime_ns, found.st_ino, found.st_size)
            if seen != self._seen:
                self._token, self._seen = _read_token(self._path), seen
        except (OSError, WorkerError):
            pass  # somebody is just replacing it; the last one may still do
        return self._token


def _token(given: Mapping[str, Any], environ: Mapping[str, str], usual: str) -> Any:
    text = given.get("token")
    if text == "-":
        text = _ask_for_token()
        if not text:
            raise WorkerError("standard input has no access token")
    elif text:
        say("other users of this machine can see a token on a command line: --token - is better")
    text = text or environ.get(TOKEN_VARIABLE)
    if text:
        kept = str(text).strip()
        return lambda: kept
    path = os.path.expanduser(str(given.get("token-file") or usual))
    if given.get("token-file") or os.path.exists(path):
        _read_token(path)
        return _FileToken(path)
    return lambda: None


def _ask_for_token() -> str:
    if sys.stdin.isatty():
        import getpass

        return getpass.getpass("Access token: ", sys.stderr).strip()
    return sys.stdin.readline().strip()


def _read_token(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise WorkerError(
                    "other users may read the access token in %s" % path, "chmod 600 %s" % path
                )
            return file.read().strip()
    except (OSError, ValueError) as error:
        raise WorkerError("the access token in %s cannot be read: %s" % (path, error)) from error


def _count(given: Mapping[str, Any], name: str, default: Optional[int]) -> Optional[int]:
    text = given.get(name)
    if text is None:
        return default
    least = 0 if name == "gpus" else 1
    if not re.fullmatch(r"[0-9]{1,6}", str(text)) or int(text) < least:
        raise WorkerError("--%s wants a number from %d on, not %r" % (name, least, text))
    return int(text)


def _size(given: Mapping[str, Any], name: str) -> Optional[int]:
    text = given.get(name)
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]?)(?:i?B)?", str(text), re.IGNORECASE)
    if found is None:
        raise WorkerError("--%s wants a size such as 500M or 16G, not %r" % (name, text))
    size = int(float(found.group(1)) * 1024 ** " KMGT".index(found.group(2).upper() or " "))
    if size < 1:
        raise WorkerError("--%s must be more than nothing" % name)
    return size


def given_words(given: Mapping[str, Any]) -> Tuple[str, ...]:
    """The options as words of a command line again, without the token."""
    words = []
    for option in OPTIONS:
        name = option.name[2:]
        value = given.get(name)
        if option.metavar is None or name == "token" or not value:
            continue
        for one in value if option.is_many else (value,):
            words += [option.name, str(one)]
    return tuple(words)
