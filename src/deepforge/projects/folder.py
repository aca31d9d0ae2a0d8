"""Read a project's folder: which files belong to it, and their ids as git computes them.

No database here: the command line reads a folder, then sends what is missing.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deepforge.errors import Conflict, Forbidden, InvalidRequest, NotFound
from deepforge.projects.ignore import IgnoreRules
from deepforge.projects.objects import blob_sha, check_path

MAX_FILE_BYTES = 50 * 1024 * 1024
MAX_FOLDER_BYTES = 200 * 1024 * 1024
MAX_FILES = 20_000

# Left out unless the project's own .gitignore takes them back with a `!` line.
_IGNORED = b".venv\n__pycache__/\n*.pyc\n.DS_Store\n"

_DATA_HINT = (
    "put data in a storage: deepforge artifacts put FILE --name NAME; or name it in .gitignore"
)


@dataclass(frozen=True)
class FileEntry:
    """One file of a project's folder. `path` is where it lies now.

    `is_link`: a symbolic link is there, and what is recorded is the file that it leads to.
    """

    sha: str
    executable: bool
    size_bytes: int
    path: Path
    is_link: bool = False

    def read(self) -> bytes:
        """Return the content that `sha` names. Raises `Conflict` if the file changed meanwhile."""
        content = _content(self.path)
        if blob_sha(content) != self.sha:
            raise Conflict(f"{self.path} changed while it was read", hint="run the command again")
        return content


def read_folder(folder: Path) -> dict[str, FileEntry]:
    """Find the files of a project, by their path from the folder with `/` between the parts.

    Files that a `.gitignore` ignores are left out, as git does it; so are `.git`, `.venv`,
    `__pycache__`, sockets and pipes. A symbolic link to a file inside the folder counts as that file.
    Paths are in Unicode's composed form (NFC).

    Raises `NotFound` without such a folder, `Forbidden` naming what cannot be read, and
    `InvalidRequest` for a link that leads elsewhere, a name that is not allowed, a file above 50 MiB,
    or more than 200 MiB or 20,000 files.
    """
    try:
        is_folder = stat.S_ISDIR(folder.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"there is no folder {folder}") from error
    except OSError as error:
        raise _unreadable(folder, error) from error
    if not is_folder:
        raise InvalidRequest(f"{folder} is not a folder", hint="name the folder of a project")
    files: dict[str, FileEntry] = {}
    size_bytes = 0
    for path, found in _walk(folder.resolve()):
        if len(files) == MAX_FILES:
            raise InvalidRequest(f"{folder} has more than {MAX_FILES:,} files", hint=_DATA_HINT)
        check_path(path)
        if path in files:
            raise InvalidRequest(
                f"{folder} has two files {path!r} whose names differ in spelling only",
                part=path,
                hint="rename one of them: Unicode counts both names as the same",
            )
        entry = _entry(found)
        size_bytes += entry.size_bytes
        if size_bytes > MAX_FOLDER_BYTES:
            raise InvalidRequest(
                f"{folder} has more than {MAX_FOLDER_BYTES >> 20} MiB of files", hint=_DATA_HINT
            )
        files[path] = entry
    return dict(sorted(files.items()))


def _walk(top: Path) -> Iterator[tuple[str, Path]]:
    """Give the path and place of every file that is not ignored."""
    folders = [("", IgnoreRules().within("", _IGNORED))]
    while folders:
        prefix, rules = folders.pop()
        try:
            with os.scandir(top / prefix) as scan:
                found = sorted(scan, key=lambda one: one.name)
        except OSError as error:
            raise _unreadable(top / prefix, error) from error
        for one in found:
            if one.name == ".gitignore" and one.is_file(follow_symlinks=False):
                rules = rules.within(prefix, _content(Path(one.path)))
        for one in found:
            path = prefix + one.name
            is_folder = one.is_dir(follow_symlinks=False)
            if one.name.lower() == ".git" or rules.leave_out(path, is_folder=is_folder):
                continue
            if is_folder:
                folders.append((_text(path) + "/", rules))
            elif _is_file(top, one):
                yield unicodedata.normalize("NFC", _text(path)), Path(one.path)


def _is_file(top: Path, one: os.DirEntry[str]) -> bool:
    if not one.is_symlink():
        return one.is_file(follow_symlinks=False)
    target = Path(os.path.realpath(one.path))
    if target.is_file() and target.is_relative_to(top) and ".git" not in target.parts:
        return True
    if not target.exists():
        where = "which does not exist"
    elif target.is_relative_to(top):
        where = "which is not a file"
    else:
        where = "outside the folder"
    raise InvalidRequest(
        f"{one.path} is a symbolic link to {target}, {where}",
        part=one.name,
        hint="put the file itself there, or name the link, without a slash, in .gitignore",
    )


def _entry(path: Path) -> FileEntry:
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    _check_size(path, status.st_size)
    content = _content(path)
    executable = bool(status.st_mode & stat.S_IXUSR)
    return FileEntry(blob_sha(content), executable, len(content), path, path.is_symlink())


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    _check_size(path, len(content))
    return content


def _check_size(path: Path, size_bytes: int) -> None:
    if size_bytes > MAX_FILE_BYTES:
        raise InvalidRequest(
            f"{path} has more than {MAX_FILE_BYTES >> 20} MiB", part=path.name, hint=_DATA_HINT
        )


def _text(path: str) -> str:
    """Return the path. Raises `InvalidRequest` for bytes that are not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise InvalidRequest(
            f"the file name {shown!r} is not UTF-8", part=shown, hint="rename the file"
        ) from error
    return path


def _unreadable(path: Path, error: OSError) -> Forbidden | NotFound:
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{path} disappeared while it was read", hint="run the command again")
    named = error.filename or path
    return Forbidden(
        f"{named} cannot be read: {error.strerror}",
        hint="allow reading it, or name it in .gitignore",
    )
