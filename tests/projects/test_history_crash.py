"""A process that dies while it commits leaves objects nobody refers to, and nothing worse."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deepforge.documents.port import DocumentStore
from deepforge.ids import new_id, utc_now
from deepforge.projects.history import History
from deepforge.projects.objects import TreeEntry, blob_sha
from projects import committer
from projects.repository import export, git

# parts of the large file, the files, the trees and the commit, the branch
WRITES_OF_A_COMMIT = 4


def start_committer(database: str, project: str, *step: str) -> subprocess.Popen[str]:
    script = Path(committer.__file__)
    return subprocess.Popen(
        [sys.executable, str(script), database, project, *step],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def check_and_commit(documents: DocumentStore, project: str, folder: Path) -> None:
    """What was killed is done again as a client does it, and git finds nothing wrong."""
    history = History(documents)
    head = await history.head(project)
    assert head is not None
    assert len(await history.read_files(project, head)) == 31
    files = {**committer.files_of(1), "after the crash": b""}
    by_sha = {blob_sha(content): content for content in files.values()}
    missing = await history.missing(project, by_sha)
    await history.put_blobs(project, [by_sha[sha] for sha in missing])
    entries = {path: TreeEntry(blob_sha(content)) for path, content in files.items()}
    commit = await history.commit(
        project, entries, message="", author="x", when=utc_now(), parent=head
    )
    assert await history.head(project) == commit
    assert await history.read_files(project, commit) == files
    bare = await export(documents, project, folder)
    assert "error" not in git(bare, "fsck", "--strict")
    assert git(bare, "rev-parse", "main~1").strip() == head


@pytest.mark.parametrize("step", range(WRITES_OF_A_COMMIT))
async def test_a_commit_killed_before_any_of_its_writes_did_not_happen(
    database: str, documents: DocumentStore, tmp_path: Path, step: int
) -> None:
    project = new_id()
    with start_committer(database, project, str(step)) as process:
        printed, failed = process.communicate(timeout=30)

    assert process.returncode == -signal.SIGKILL, failed
    assert await History(documents).head(project) == printed.strip()
    await check_and_commit(documents, project, tmp_path)


async def test_a_step_later_the_commit_is_whole(database: str, documents: DocumentStore) -> None:
    """Shows that the steps above are all the steps there are."""
    project = new_id()
    with start_committer(database, project, str(WRITES_OF_A_COMMIT)) as process:
        printed, failed = process.communicate(timeout=30)

    assert process.returncode == -signal.SIGKILL, failed
    assert len(printed.split()) == 2
    assert await History(documents).head(project) == printed.split()[1]


async def test_a_kill_at_any_moment_loses_no_acknowledged_commit(
    database: str, documents: DocumentStore, tmp_path: Path
) -> None:
    project = new_id()
    for round in range(3):
        with start_committer(database, project) as process:
            assert process.stdout is not None
            acknowledged = [process.stdout.readline().strip() for _ in range(2 + round)]
            process.kill()
            acknowledged += process.stdout.read().split()
        head = await History(documents).head(project)
        assert head is not None
        commits = [one.sha for one in await History(documents).log(project, head, limit=2)]
        assert acknowledged[-1] in commits  # at most one more was done and not heard of

    await check_and_commit(documents, project, tmp_path)
