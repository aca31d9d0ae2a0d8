"""A process that commits until it is killed: `committer.py DATABASE PROJECT [STEP]`.

With a STEP it kills itself in its second commit, right before that write to the database. It prints
each commit after it was acknowledged.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import sys
from typing import Any

import structlog

from deepforge.documents.port import DocumentStore
from deepforge.documents.registry import open_documents
from deepforge.ids import utc_now
from deepforge.projects.history import COLLECTIONS, History
from deepforge.projects.objects import TreeEntry, blob_sha


def files_of(number: int) -> dict[str, bytes]:
    """The files of a commit: thirty small ones, and one so large that it lies in parts."""
    small = {f"d{file % 3}/f{file}": b"%d %d" % (number, file) for file in range(30)}
    return {**small, "large": random.Random(number).randbytes(200_000)}


async def main(database: str, project: str, step: int | None) -> None:
    async with open_documents(database, COLLECTIONS) as documents:
        history = History(documents)
        parent = await history.head(project)
        for number in itertools.count():
            if number == 1 and step is not None:
                _kill_before_write(documents, step)
            files = files_of(number)
            await history.put_blobs(project, files.values())
            entries = {path: TreeEntry(blob_sha(content)) for path, content in files.items()}
            parent = await history.commit(
                project, entries, message=f"{number}", author="x", when=utc_now(), parent=parent
            )
            sys.stdout.write(parent + "\n")
            sys.stdout.flush()


def _kill_before_write(documents: DocumentStore, step: int) -> None:
    writes = itertools.count()
    for name in ("insert", "insert_missing", "replace"):
        write = getattr(documents, name)

        async def killing(*arguments: Any, write: Any = write, **named: Any) -> Any:
            if next(writes) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return await write(*arguments, **named)

        setattr(documents, name, killing)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else None))
