"""The history of projects: git objects and refs kept as documents.

An object is written before the ref that leads to it, objects never change and are never removed, and
refs move by compare-and-set. So a crash leaves nothing worse than objects nobody refers to.
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dulwich.refs import check_ref_format

from deepforge.documents.port import Collection, Document, DocumentStore, Draft
from deepforge.errors import AlreadyExists, Conflict, Corrupt, InvalidRequest, NotFound
from deepforge.projects.objects import (
    Commit,
    GitObject,
    TreeEntry,
    Type,
    blob_sha,
    build_commit,
    build_trees,
    check_sha,
    object_sha,
    read_commit,
    read_tree,
)

OBJECTS = Collection("objects")
REFS = Collection("refs")
COLLECTIONS = (OBJECTS, REFS)

MAIN = "main"

# An object that is larger when compressed lies in parts beside its document. So documents stay below
# the port's limit, and asking whether objects exist never fetches a large one.
_INLINE_BYTES = 64 * 1024
_PART_BYTES = 4 * 1024 * 1024
_BATCH_BYTES = 16 * 1024 * 1024
_LEVEL = 1  # as git writes loose objects: a third of the time, a fifth larger


@dataclass(frozen=True)
class Tree:
    """All files of a tree, by their path from its root."""

    sha: str
    files: Mapping[str, TreeEntry]


class History:
    """Read and write the git repositories of projects. `project` is always a project's id.

    Reading verifies every object against its id and raises `Corrupt` if they disagree. An id that
    is not there raises `NotFound`.
    """

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents

    async def head(self, project: str, branch: str = MAIN) -> str | None:
        """Return the commit a branch is at. None: nothing was committed to it yet."""
        ref = await self._ref(project, branch)
        return None if ref is None else str(ref.body["value"])

    async def missing(self, project: str, shas: Iterable[str]) -> list[str]:
        """Return those blobs that must be put before a commit may name them, in order."""
        wanted = list(dict.fromkeys(check_sha(sha) for sha in shas))
        known = await self._documents.get_many(OBJECTS.name, [_id(project, sha) for sha in wanted])
        blobs = {one.id for one in known if one.body["type"] == "blob"}
        return [sha for sha in wanted if _id(project, sha) not in blobs]

    async def put_blobs(self, project: str, contents: Iterable[bytes]) -> list[str]:
        """Keep the contents of files and return their ids, in order. Safe to repeat."""
        blobs = await asyncio.to_thread(
            lambda: [GitObject(blob_sha(content), "blob", content) for content in contents]
        )
        await self._put(project, blobs)
        return [blob.sha for blob in blobs]

    async def commit(
        self,
        project: str,
        files: Mapping[str, TreeEntry],
        *,
        message: str,
        author: str,
        when: str,
        parent: str | None,
        branch: str = MAIN,
    ) -> str:
        """Record a folder of files as the next commit of a branch and return the commit's id.

        `parent` is the commit the branch is at (`head`), None for its first. When the files are those
        of the parent already, nothing is written and the parent is returned. `when` is UTC as
        `ids.utc_now` writes it. Raises `Conflict` if the branch is elsewhere by now: of many who race
        exactly one returns. Raises `NotFound` if a blob was not put before, and `InvalidRequest` for
        a path, branch or message that git cannot hold.
        """
        trees = await asyncio.to_thread(build_trees, files)
        root = trees[-1].sha
        ref = await self._ref(project, branch)
        at = None if ref is None else str(ref.body["value"])
        if at != parent:
            raise _moved(branch, parent, at)
        known: Iterable[str] = ()
        if parent is not None:
            before = await self.read_commit(project, parent)
            if before.tree == root:
                return parent
            tree = await self.read_tree(project, before.tree)
            known = {entry.sha for entry in tree.files.values()}
        await self._check_blobs(project, files, known)
        made = build_commit(tree=root, parent=parent, author=author, when=when, message=message)
        await self._put(project, [*trees, made])
        await self._move(project, branch, ref, made.sha)
        return made.sha

    async def read_commit(self, project: str, commit: str) -> Commit:
        """Read one commit. Raises `NotFound`, also when the id is something else's."""
        return read_commit(await self._get(project, commit, "commit"))

    async def tree_digest(self, project: str, commit: str) -> str:
        """Return the id of a commit's tree: equal exactly when all files are."""
        return (await self.read_commit(project, commit)).tree

    async def read_tree(self, project: str, commit_or_tree: str) -> Tree:
        """List all files of a commit, or of a tree. One query for each level of folders."""
        start = (await self._read(project, [commit_or_tree]))[commit_or_tree]
        if start.type == "commit":
            root = read_commit(start).tree
            start = await self._get(project, root, "tree")
        if start.type != "tree":
            raise NotFound(f"{commit_or_tree} is a {start.type}, neither a commit nor a tree")
        files: dict[str, TreeEntry] = {}
        level = [("", start)]
        while level:
            folders: list[tuple[str, str]] = []
            for prefix, tree in level:
                for child in read_tree(tree):
                    path = prefix + child.name
                    if child.is_folder:
                        folders.append((path + "/", child.sha))
                    else:
                        files[path] = TreeEntry(child.sha, _is_executable(path, child.mode))
            found = await self._read(project, {sha for _, sha in folders})
            level = [(prefix, found[sha]) for prefix, sha in folders]
        return Tree(start.sha, dict(sorted(files.items())))

    async def read_files(
        self, project: str, commit: str, paths: Iterable[str] | None = None
    ) -> dict[str, bytes]:
        """Return the contents of all files of a commit, or of these. One query for all of them.

        Raises `NotFound` naming the paths that the commit does not have.
        """
        files = (await self.read_tree(project, commit)).files
        wanted = list(files) if paths is None else list(paths)
        absent = [path for path in wanted if path not in files]
        if absent:
            raise NotFound(f"commit {commit} has no file {', '.join(map(repr, absent[:5]))}")
        blobs = await self._read(project, {files[path].sha for path in wanted})
        return {path: blobs[files[path].sha].content for path in wanted}

    async def log(self, project: str, commit: str, *, limit: int = 50) -> list[Commit]:
        """Return a commit and its ancestors along first parents, newest first."""
        commits: list[Commit] = []
        next_one: str | None = commit
        while next_one is not None and len(commits) < limit:
            commits.append(await self.read_commit(project, next_one))
            next_one = next(iter(commits[-1].parents), None)
        return commits

    async def _ref(self, project: str, branch: str) -> Document | None:
        try:
            return await self._documents.get(REFS.name, _ref_id(project, branch))
        except NotFound:
            return None

    async def _move(self, project: str, branch: str, ref: Document | None, commit: str) -> None:
        body = {"project": project, "name": f"refs/heads/{branch}", "value": commit}
        try:
            if ref is None:
                await self._documents.insert(REFS.name, _ref_id(project, branch), body)
            else:
                await self._documents.replace(REFS.name, ref.id, body, if_revision=ref.revision)
        except (AlreadyExists, Conflict) as error:
            before = None if ref is None else str(ref.body["value"])
            raise _moved(branch, before, await self.head(project, branch)) from error

    async def _check_blobs(
        self, project: str, files: Mapping[str, TreeEntry], known: Iterable[str]
    ) -> None:
        absent = set(await self.missing(project, {one.sha for one in files.values()} - set(known)))
        names = [path for path, entry in files.items() if entry.sha in absent]
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise NotFound(
                f"the contents of {', '.join(map(repr, names[:5]))}{more} were not put before",
                hint="ask which blobs are missing, put them, then commit again",
            )

    async def _put(self, project: str, made: Sequence[GitObject]) -> None:
        """Store what is not there yet, in batches, the parts of an object before its document."""
        todo = list({one.sha: one for one in made}.values())
        while todo:
            batch, size_bytes = [], 0
            while todo and size_bytes < _BATCH_BYTES:
                batch.append(todo.pop())
                size_bytes += len(batch[-1].content)
            parts, heads = await asyncio.to_thread(_packed, project, batch)
            if parts:
                await self._documents.insert_missing(OBJECTS.name, parts)
            await self._documents.insert_missing(OBJECTS.name, heads)

    async def _get(self, project: str, sha: str, type: Type) -> GitObject:
        found = (await self._read(project, [sha]))[sha]
        if found.type != type:
            raise NotFound(f"{sha} is a {found.type}, not a {type}")
        return found

    async def _read(self, project: str, shas: Iterable[str]) -> dict[str, GitObject]:
        """Read and verify objects in one query, and one more if some of them are large."""
        ids = {_id(project, check_sha(sha)): sha for sha in shas}
        if not ids:
            return {}
        heads = await self._documents.get_many(OBJECTS.name, list(ids))
        if len(heads) < len(ids):
            absent = next(iter(ids.keys() - {head.id for head in heads}))
            raise NotFound(f"there is no object {ids[absent]} in the project")
        part_ids = [part for head in heads for part in _part_ids(head)]
        found = await self._documents.get_many(OBJECTS.name, part_ids) if part_ids else []
        parts = {part.id: part.data or b"" for part in found}
        return await asyncio.to_thread(
            lambda: {ids[head.id]: _unpacked(ids[head.id], head, parts) for head in heads}
        )


def _packed(project: str, made: Sequence[GitObject]) -> tuple[list[Draft], list[Draft]]:
    """Return the parts of large objects, and the documents of all."""
    parts: list[Draft] = []
    heads: list[Draft] = []
    for one in made:
        stream = zlib.compress(one.content, _LEVEL)  # exactly the body of a git pack entry
        body = {"type": one.type, "size": len(one.content)}
        if len(stream) <= _INLINE_BYTES:
            heads.append(Draft(_id(project, one.sha), body, stream))
            continue
        # Another zlib writes other bytes for the same content. With the stream's own digest in their
        # ids, the parts of two writers (one of which crashed) never mix.
        name = hashlib.sha256(stream).hexdigest()[:16]
        pieces = [stream[at : at + _PART_BYTES] for at in range(0, len(stream), _PART_BYTES)]
        head = Draft(_id(project, one.sha), {**body, "stream": name, "parts": len(pieces)})
        heads.append(head)
        parts += [
            Draft(part_id, {"part_of": head.id}, piece)
            for part_id, piece in zip(_part_ids(head), pieces, strict=True)
        ]
    return parts, heads


def _unpacked(sha: str, head: Document, parts: Mapping[str, bytes]) -> GitObject:
    part_ids = _part_ids(head)
    stream = b"".join(parts.get(one, b"") for one in part_ids) if part_ids else head.data or b""
    try:
        content = zlib.decompress(stream)
    except zlib.error as error:
        raise Corrupt(f"object {sha} is damaged: {error}", expected=sha, found="noise") from error
    found = object_sha(head.body["type"], content)
    if found != sha:
        raise Corrupt(f"object {sha} is damaged", expected=sha, found=found)
    return GitObject(sha, head.body["type"], content)


def _part_ids(head: Document | Draft) -> list[str]:
    count = head.body.get("parts", 0)
    return [f"{head.id}:{head.body['stream']}:{number}" for number in range(count)]


def _id(project: str, sha: str) -> str:
    return f"{project}:{sha}"


def _ref_id(project: str, branch: str) -> str:
    name = f"refs/heads/{branch}"
    if len(branch) > 100 or not _is_branch(name):
        raise InvalidRequest(f"{branch[:100]!r} cannot be the name of a branch", part="branch")
    return f"{project}:{name}"


def _is_branch(name: str) -> bool:
    try:
        return check_ref_format(name.encode())  # type: ignore[arg-type]  # any bytes are checked
    except UnicodeEncodeError:
        return False


def _is_executable(path: str, mode: int) -> bool:
    kind = mode & 0o170000
    if kind != 0o100000:
        what = {0o120000: "a symbolic link", 0o160000: "a submodule"}.get(
            kind, "of an unknown kind"
        )
        raise InvalidRequest(f"{path!r} is {what}; a project holds files only", part=path)
    return bool(mode & 0o100)


def _moved(branch: str, expected: str | None, found: str | None) -> Conflict:
    return Conflict(
        f"branch {branch!r} is at {found or 'no commit'}, not at {expected or 'no commit'}",
        hint="somebody else committed first: read the branch again, then commit on top of it",
    )
