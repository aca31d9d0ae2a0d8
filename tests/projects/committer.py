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

from projects.databases import open_database

from deepforge.documents.port import DocumentStore
from deepforge.ids import utc_now
from deepforge.projects.history import History, TreeEntry


async def main(database: str, project: str, step: int | None) -> None:
    async with open_database(database) as documents:
        history = History(documents)
        parent = await history.head(project)
        for number in itertools.count():
            if number == 1 and step is not None:
                _kill_before_write(documents, step)
            contents = [b"%d %d" % (number, file) for file in range(30)]
            contents.append(random.Random(number).randbytes(200_000))  # one that lies in parts
            shas = await history.put_blobs(project, contents)
            files = {f"d{at % 3}/f{at}": TreeEntry(sha) for at, sha in enumerate(shas)}
            parent = await history.commit(
                project, files, message=f"{number}", author="x", when=utc_now(), parent=parent
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
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else None))
