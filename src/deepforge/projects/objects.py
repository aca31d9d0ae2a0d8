"""Git objects as bytes and ids: pure functions over dulwich's object classes."""

from __future__ import annotations

import hashlib
import re
import stat
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dulwich import objects as git
from dulwich.errors import ObjectFormatException

from deepforge.errors import Corrupt, InvalidRequest
from deepforge.ids import epoch_s, timestamp

Type = Literal["blob", "tree", "commit"]

MAX_PATH_BYTES = 1024

_SHA = re.compile(r"[0-9a-f]{40}")
_FILE, _EXECUTABLE, _FOLDER = 0o100644, 0o100755, 0o040000
# Apple's file system leaves these out when it compares names, so git forbids `.git` with them too
_UNSEEN = dict.fromkeys([*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070)])
_UNSEEN[0xFEFF] = None


@dataclass(frozen=True)
class TreeEntry:
    """One file of a tree: the id of its blob, and whether it may be executed."""

    sha: str
    executable: bool = False


@dataclass(frozen=True)
class GitObject:
    """An object as git hashes it, without the header."""

    sha: str
    type: Type
    content: bytes


@dataclass(frozen=True)
class Child:
    """One line of a tree object."""

    name: str
    mode: int
    sha: str

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)


@dataclass(frozen=True)
class Commit:
    """One commit. `author` is `Name <mail>`, `when` UTC as `ids.utc_now` writes it, in seconds."""

    sha: str
    tree: str
    parents: tuple[str, ...]
    author: str
    when: str
    message: str


def object_sha(type: Type, content: bytes) -> str:
    """Return the id git gives these bytes."""
    return hashlib.sha1(b"%s %d\0" % (type.encode(), len(content)) + content).hexdigest()


def blob_sha(content: bytes) -> str:
    """Return what `git hash-object` prints for a file of these bytes."""
    return object_sha("blob", content)


def check_sha(text: str) -> str:
    """Return the text. Raises `InvalidRequest` unless it is 40 lower-case hexadecimal digits."""
    if _SHA.fullmatch(text) is None:
        raise InvalidRequest(f"{text[:60]!r} is not the id of a git object")
    return text


def check_path(path: str) -> None:
    """Raise `InvalidRequest` unless every git and every file system of ours can hold this path."""
    problem = _path_problem(path)
    if problem is not None:
        shown = path if len(path) <= 200 else path[:200] + "…"
        raise InvalidRequest(f"a project cannot hold the file {shown!r}: {problem}", part=path)


def build_trees(files: Mapping[str, TreeEntry]) -> list[GitObject]:
    """Make the tree objects of a folder of files; the last one is the root.

    Raises `InvalidRequest` for a path that is not allowed and for a file that is also a folder.
    """
    trees: dict[str, git.Tree] = {"": git.Tree()}
    for path, entry in files.items():
        check_path(path)
        check_sha(entry.sha)
        folder, _, name = path.rpartition("/")
        while folder not in trees:
            trees[folder] = git.Tree()
            folder = folder.rpartition("/")[0]
        mode = _EXECUTABLE if entry.executable else _FILE
        trees[path.rpartition("/")[0]].add(name.encode(), mode, git.ObjectID(entry.sha.encode()))
    made: list[GitObject] = []
    for path in sorted(trees, key=_depth, reverse=True):
        if path in files:
            raise InvalidRequest(f"{path!r} is a file and a folder at once", part=path)
        tree = trees[path]
        if path:
            folder, _, name = path.rpartition("/")
            trees[folder].add(name.encode(), _FOLDER, tree.id)
        made.append(GitObject(tree.id.decode(), "tree", tree.as_raw_string()))
    return made


def read_tree(tree: GitObject) -> list[Child]:
    """Read a tree object. Raises `Corrupt` if it is not one."""
    made = git.Tree()
    try:
        made.set_raw_string(tree.content)
        return [
            Child(one.path.decode(), one.mode, one.sha.decode())
            for one in made.iteritems(name_order=True)
        ]
    except (ObjectFormatException, ValueError) as error:
        raise _unreadable(tree, error) from error


def build_commit(
    *, tree: str, parent: str | None, author: str, when: str, message: str
) -> GitObject:
    """Make a commit object. `when` is as `ids.utc_now` writes it; git keeps whole seconds.

    Raises `InvalidRequest` for a message that git cannot hold.
    """
    if "\0" in message or not _is_unicode(message):
        raise InvalidRequest("a commit's message is text without NUL characters", part="message")
    commit = git.Commit()
    commit.tree = git.ObjectID(tree.encode())
    commit.parents = [] if parent is None else [git.ObjectID(parent.encode())]
    commit.author = commit.committer = _identity(author)
    commit.author_time = commit.commit_time = int(epoch_s(when))
    commit.author_timezone = commit.commit_timezone = 0
    commit.message = message.rstrip("\n").encode() + b"\n"
    return GitObject(commit.id.decode(), "commit", commit.as_raw_string())


def read_commit(commit: GitObject) -> Commit:
    """Read a commit object. Raises `Corrupt` if it is not one."""
    made = git.Commit()
    try:
        made.set_raw_string(commit.content)
        return Commit(
            sha=commit.sha,
            tree=made.tree.decode(),
            parents=tuple(parent.decode() for parent in made.parents),
            author=made.author.decode("utf-8", "replace"),
            when=timestamp(made.author_time),
            message=made.message.decode("utf-8", "replace").rstrip("\n"),
        )
    except (ObjectFormatException, ValueError, AttributeError) as error:
        raise _unreadable(commit, error) from error


def _depth(path: str) -> int:
    return path.count("/") + 1 if path else 0


def _identity(author: str) -> bytes:
    """Spell an author the way git insists on: `Name <mail>`, the mail may be empty."""
    name, opening, rest = author.partition(" <")
    mail = rest[:-1] if opening and rest.endswith(">") else ""
    if not opening or not mail:
        name, mail = author, ""
    forbidden = dict.fromkeys(map(ord, "<>\n\r\0"))
    clean = name.encode("utf-8", "replace").decode().translate(forbidden).strip(" .,:;\"'")
    return f"{clean or 'unknown'} <{mail.translate(forbidden).strip()}>".encode("utf-8", "replace")


def _path_problem(path: str) -> str | None:
    if not path or path.startswith("/"):
        return "it is not a relative path"
    if "\0" in path or not _is_unicode(path):
        return "it is not text"
    if "\\" in path:
        return "a backslash would be a folder on some machines"
    if len(path.encode()) > MAX_PATH_BYTES:
        return f"its path is longer than {MAX_PATH_BYTES} bytes"
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return f"{part!r} is not the name of a file or folder"
        if len(part.encode()) > 255:
            return "a name in it is longer than 255 bytes"
        if _is_like_dot_git(part):
            return "git keeps its own data under such a name"
    return None


def _is_like_dot_git(part: str) -> bool:
    seen = unicodedata.normalize("NFC", part.translate(_UNSEEN)).casefold()
    return seen.split(":")[0].rstrip(" .") in (".git", "git~1")


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _unreadable(one: GitObject, error: Exception) -> Corrupt:
    return Corrupt(
        f"object {one.sha} cannot be read: {error}", expected=f"a {one.type}", found="other bytes"
    )
