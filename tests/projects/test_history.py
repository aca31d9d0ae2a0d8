"""History is judged by git itself: what we keep must be a repository that git accepts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from deepforge.documents.port import Document, DocumentStore
from deepforge.errors import Conflict, Corrupt, InvalidRequest, NotFound
from deepforge.ids import new_id
from deepforge.projects.history import History
from deepforge.projects.objects import TreeEntry, blob_sha
from projects.repository import export, git

WHEN = "2026-11-23T04:05:06.000007Z"

FILES = {
    "deepforge.toml": b'name = "digits"\n',
    "operations/train.py": b"class Train:\n    def execute(self): ...\n",
    "operations/deep/er/still.py": b"x = 1\n",
    "operations.txt": b"sorts between a folder and its files",
    "run me.sh": b"#!/bin/sh\n",
    "empty": b"",
    "binary": bytes(range(256)),
}


async def record(
    history: History,
    project: str,
    files: Mapping[str, bytes],
    *,
    parent: str | None,
    executable: frozenset[str] = frozenset(),
    **more: str,
) -> str:
    """Put what is missing and commit, as a client does."""
    shas = await history.put_blobs(project, files.values())
    entries = {
        path: TreeEntry(sha, path in executable) for path, sha in zip(files, shas, strict=True)
    }
    details = {"message": "Record", "author": "Ada <ada@example.org>", "when": WHEN, **more}
    return await history.commit(project, entries, parent=parent, **details)


def write(folder: Path, files: Mapping[str, bytes], executable: frozenset[str]) -> None:
    for path, content in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        place.chmod(0o755 if path in executable else 0o644)


async def test_ids_are_those_git_gives_the_same_folder(
    documents: DocumentStore, tmp_path: Path
) -> None:
    history, project = History(documents), new_id()
    executable = frozenset({"run me.sh"})
    work = tmp_path / "work"
    work.mkdir()
    write(work, FILES, executable)
    git(work, "init", "-q")
    git(work, "add", "-A")

    commit = await record(history, project, FILES, parent=None, executable=executable)

    assert git(work, "write-tree").strip() == await history.tree_digest(project, commit)
    tree = await history.read_tree(project, commit)
    for path in FILES:
        assert git(work, "hash-object", path).strip() == tree.files[path].sha
    assert [path for path, entry in tree.files.items() if entry.executable] == ["run me.sh"]


async def test_git_accepts_and_shows_the_whole_history(
    documents: DocumentStore, tmp_path: Path
) -> None:
    history, project = History(documents), new_id()
    first = await record(history, project, FILES, parent=None, message="First\n\nWith a body")
    changed = {**FILES, "operations/train.py": b"changed\n", "nouveau/é.txt": "ü".encode()}
    del changed["empty"]
    second = await record(history, project, changed, parent=first, message="Zweiter Stand: ü")

    bare = await export(documents, project, tmp_path)

    assert "error" not in git(bare, "fsck", "--strict", "--full")
    logged = git(bare, "log", "--format=%H|%an|%ae|%s|%cI", "main").splitlines()
    assert logged == [
        f"{second}|Ada|ada@example.org|Zweiter Stand: ü|2026-11-23T04:05:06+00:00",
        f"{first}|Ada|ada@example.org|First|2026-11-23T04:05:06+00:00",
    ]
    listed = git(bare, "ls-tree", "-r", "--name-only", "main").splitlines()
    assert sorted(changed) == sorted(listed)
    assert git(bare, "show", "main:operations/train.py") == "changed\n"
    assert git(bare, "diff", "--name-status", first, second).split() == [
        *("D", "empty", "A", "nouveau/é.txt", "M", "operations/train.py")
    ]


async def test_files_come_back_as_they_were(documents: DocumentStore) -> None:
    history, project = History(documents), new_id()
    commit = await record(history, project, FILES, parent=None)

    assert await history.read_files(project, commit) == FILES
    assert await history.read_files(project, commit, ["empty"]) == {"empty": b""}
    with pytest.raises(NotFound, match="nothing"):
        await history.read_files(project, commit, ["empty", "nothing.py"])


async def test_a_project_may_be_empty(documents: DocumentStore, tmp_path: Path) -> None:
    history, project = History(documents), new_id()
    commit = await record(history, project, {}, parent=None)

    assert await history.read_files(project, commit) == {}
    assert "error" not in git(await export(documents, project, tmp_path), "fsck", "--strict")


async def test_unchanged_files_make_no_new_commit(documents: DocumentStore) -> None:
    history, project = History(documents), new_id()
    assert await history.head(project) is None
    first = await record(history, project, FILES, parent=None)

    again = await record(history, project, FILES, parent=first, message="Later", author="Bob")

    assert again == first
    assert await history.head(project) == first
    mode_changed = await record(
        history, project, FILES, parent=first, executable=frozenset({"empty"})
    )
    assert mode_changed != first


async def test_the_log_goes_from_new_to_old(documents: DocumentStore) -> None:
    history, project = History(documents), new_id()
    commits: list[str] = []
    for number in range(4):
        parent = commits[-1] if commits else None
        files = {"n": str(number).encode()}
        commits.append(await record(history, project, files, parent=parent, message=f"Nr {number}"))

    log = await history.log(project, commits[-1], limit=3)

    assert [one.sha for one in log] == commits[:0:-1]
    assert [one.message for one in log] == ["Nr 3", "Nr 2", "Nr 1"]
    assert log[0].parents == (commits[2],)
    assert log[0].author == "Ada <ada@example.org>"
    assert log[0].when == "2026-11-23T04:05:06.000000Z"


async def test_of_twenty_commits_on_one_parent_one_wins(
    documents: DocumentStore, tmp_path: Path
) -> None:
    history, project = History(documents), new_id()
    first: str | None = None
    for round in range(2):  # the branch is made, then moved
        racing = [
            record(history, project, {"n": f"{round} {number}".encode()}, parent=first)
            for number in range(20)
        ]
        done = await asyncio.gather(*racing, return_exceptions=True)

        winners = [one for one in done if isinstance(one, str)]
        assert len(winners) == 1
        assert sum(isinstance(one, Conflict) for one in done) == 19
        assert await history.head(project) == winners[0]
        first = winners[0]
    assert "error" not in git(await export(documents, project, tmp_path), "fsck", "--strict")


async def test_a_commit_on_an_old_parent_is_a_conflict(documents: DocumentStore) -> None:
    history, project = History(documents), new_id()
    first = await record(history, project, {"a": b"1"}, parent=None)
    second = await record(history, project, {"a": b"2"}, parent=first)

    for parent in (None, first):
        with pytest.raises(Conflict, match="'main' is at " + second):
            await record(history, project, {"a": b"3"}, parent=parent)


async def test_branches_and_projects_do_not_touch_each_other(documents: DocumentStore) -> None:
    history, project, other = History(documents), new_id(), new_id()
    first = await record(history, project, {"a": b"1"}, parent=None)
    aside = await record(history, project, {"a": b"2"}, parent=None, branch="try/this")

    assert await history.head(project) == first
    assert await history.head(project, "try/this") == aside
    assert await history.head(other) is None
    with pytest.raises(NotFound):
        await history.read_tree(other, first)


async def test_missing_names_what_was_not_put(documents: DocumentStore) -> None:
    history, project = History(documents), new_id()
    known, unknown = blob_sha(b"known"), blob_sha(b"unknown")
    await history.put_blobs(project, [b"known"])

    assert await history.missing(project, [unknown, known, unknown]) == [unknown]
    assert await history.missing(new_id(), [known]) == [known]
    assert await history.missing(project, []) == []
    with pytest.raises(InvalidRequest):
        await history.missing(project, ["../../etc/passwd"])


async def test_a_commit_of_files_that_were_not_put_changes_nothing(
    documents: DocumentStore,
) -> None:
    history, project = History(documents), new_id()
    files = {"there": TreeEntry(blob_sha(b"x")), "absent.py": TreeEntry(blob_sha(b"never"))}
    await history.put_blobs(project, [b"x"])

    with pytest.raises(NotFound, match=r"contents of 'absent\.py' were not put"):
        await history.commit(project, files, message="", author="", when=WHEN, parent=None)

    assert await history.head(project) is None


async def test_a_tree_cannot_pass_for_a_file(documents: DocumentStore) -> None:
    history, project = History(documents), new_id()
    commit = await record(history, project, {"a": b"1"}, parent=None)
    tree = await history.tree_digest(project, commit)

    with pytest.raises(NotFound):
        await history.commit(
            project, {"b": TreeEntry(tree)}, message="", author="", when=WHEN, parent=commit
        )
    with pytest.raises(NotFound, match="not a commit"):
        await history.read_commit(project, tree)


async def test_a_blob_far_above_the_document_limit_is_kept(
    documents: DocumentStore, tmp_path: Path
) -> None:
    history, project = History(documents), new_id()
    large = random.Random(7).randbytes(30 * 1024 * 1024)
    files = {"large.bin": large, "small": b"small"}

    commit = await record(history, project, files, parent=None)

    assert await history.missing(project, [blob_sha(large)]) == []
    found = await history.read_files(project, commit)
    assert found["large.bin"] == large
    assert found["small"] == b"small"
    bare = await export(documents, project, tmp_path)
    assert "error" not in git(bare, "fsck", "--strict")
    assert int(git(bare, "cat-file", "-s", "main:large.bin")) == len(large)


async def test_a_large_blob_cut_short_by_a_crash_is_put_again(documents: DocumentStore) -> None:
    """Another zlib writes other bytes: its parts must not complete those of the crashed writer."""
    history, project = History(documents), new_id()
    large = random.Random(8).randbytes(5 * 1024 * 1024)
    sha = (await History(documents).put_blobs(new_id(), [large]))[0]
    head = next(one for one in await documents.find("objects") if "parts" in one.body)
    for number in range(2):  # parts of an older stream, and no head
        foreign = f"{project}:{sha}:0123456789abcdef:{number}"
        await documents.insert("objects", foreign, {}, b"other bytes")
    assert head.body["parts"] == 2

    assert await history.missing(project, [sha]) == [sha]
    await history.put_blobs(project, [large])

    commit = await history.commit(
        project, {"l": TreeEntry(sha)}, message="", author="", when=WHEN, parent=None
    )
    assert await history.read_files(project, commit) == {"l": large}


async def test_damaged_objects_are_noticed(documents: DocumentStore) -> None:
    history, project = History(documents), new_id()
    commit = await record(history, project, {"a": b"right"}, parent=None)
    place = f"{project}:{blob_sha(b'right')}"
    good = await documents.get("objects", place)
    wrong = await documents.get(
        "objects", f"{project}:{(await history.put_blobs(project, [b'wrong']))[0]}"
    )

    async def damage(one: Document, data: bytes | None) -> Document:
        return await documents.replace(
            "objects", one.id, one.body, if_revision=one.revision, data=data
        )

    for data in (wrong.data, b"noise", b"", None):
        good = await damage(good, data)
        with pytest.raises(Corrupt, match="is damaged"):
            await history.read_files(project, commit)


@pytest.mark.parametrize(
    "path",
    [
        "../outside.py",
        "a/../../b",
        "/etc/passwd",
        "",
        ".",
        "a//b",
        "a/",
        "a\0b",
        "a\\b",
        ".git/config",
        "a/.GIT/hooks/post-checkout",
        "git~1",
        ".g\u200cit/config",
        ".git. ",
        "\ud800",
        "x" * 256,
        "d/" * 600 + "f",
    ],
)
async def test_paths_that_could_do_harm_are_refused(documents: DocumentStore, path: str) -> None:
    history, project = History(documents), new_id()

    with pytest.raises(InvalidRequest, match="a project cannot hold the file"):
        await record(history, project, {path: b""}, parent=None)

    assert await history.head(project) is None


async def test_unusual_names_are_kept(documents: DocumentStore, tmp_path: Path) -> None:
    history, project = History(documents), new_id()
    paths = [
        "with space.py",
        "quote\"'`.py",
        "new\nline",
        "🦜/😀.txt",
        "-rf",
        "a;b$(c)",
        "..a/b..",
        ".gitignore",
        "git",
        "%2e%2e",
        "é" * 100,
        "C:drive",
        "d/" * 50 + "f",
    ]
    files = {path: path.encode() for path in paths}

    commit = await record(history, project, files, parent=None)

    assert await history.read_files(project, commit) == files
    bare = await export(documents, project, tmp_path)
    assert "error" not in git(bare, "fsck", "--strict")
    listed = git(bare, "ls-tree", "-r", "-z", "--name-only", "main").split("\0")
    assert sorted(paths) == sorted(listed[:-1])


async def test_a_file_cannot_also_be_a_folder(documents: DocumentStore) -> None:
    history, project = History(documents), new_id()

    with pytest.raises(InvalidRequest, match="'a/b' is a file and a folder"):
        await record(history, project, {"a/b": b"", "a/b/c": b""}, parent=None)


@pytest.mark.parametrize(
    ("author", "shown"),
    [
        ("ada", "ada <>"),
        ("Ada Lovelace <ada@example.org>", "Ada Lovelace <ada@example.org>"),
        ("", "unknown <>"),
        ("<>", "unknown <>"),
        ("evil\nparent 0000 <x>", "evilparent 0000 <x>"),
        ("a <b> <c\0>", "a <b c>"),
        ("\ud800", "? <>"),
    ],
)
async def test_authors_become_what_git_can_hold(
    documents: DocumentStore, tmp_path: Path, author: str, shown: str
) -> None:
    history, project = History(documents), new_id()

    commit = await record(history, project, {"a": b""}, parent=None, author=author)

    assert (await history.read_commit(project, commit)).author == shown
    assert "error" not in git(await export(documents, project, tmp_path), "fsck", "--strict")


@pytest.mark.parametrize("message", ["nul\0", "\udcff"])
async def test_messages_git_cannot_hold_are_refused(documents: DocumentStore, message: str) -> None:
    with pytest.raises(InvalidRequest, match="message"):
        await record(History(documents), new_id(), {"a": b""}, parent=None, message=message)


@pytest.mark.parametrize("branch", ["", "a..b", "/a", "a b", "a~1", "x.lock", "é" * 101, "\ud800"])
async def test_branch_names_git_cannot_hold_are_refused(
    documents: DocumentStore, branch: str
) -> None:
    with pytest.raises(InvalidRequest, match="name of a branch"):
        await History(documents).head(new_id(), branch)


async def test_the_number_of_questions_does_not_grow_with_the_files(
    documents: DocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    history, project = History(documents), new_id()
    files = {f"d{n % 25}/f{n}.py": b"%d" % n for n in range(500)}
    commit = await record(history, project, files, parent=None)
    asked: list[int] = []
    get_many = documents.get_many

    async def counted(collection: str, ids: Sequence[str]) -> list[Document]:
        asked.append(len(ids))
        return await get_many(collection, ids)

    monkeypatch.setattr(documents, "get_many", counted)
    assert await history.missing(project, map(blob_sha, files.values())) == []
    assert asked == [500]
    asked.clear()
    assert len(await history.read_files(project, commit)) == 500
    assert asked == [1, 1, 25, 500]  # the commit, its tree, the folders, the files
