"""A second process for these tests:  python worker.py write|add URL

write   stores documents until somebody kills it; prints each id once it is acknowledged
add     opens the database and adds 1 to a counter, 25 times
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys

from deepforge.documents.port import DocumentStore
from deepforge.documents.registry import open_documents
from deepforge.errors import AlreadyExists, Conflict
from deepforge.testing.documents import CONTRACT_COLLECTIONS


async def write(store: DocumentStore) -> None:
    async def go_on(task: int) -> None:
        counter = (await store.insert("notes", f"counter-{task}", {"rank": 1})).revision
        for number in itertools.count():
            id = f"{task}-{number}"
            await store.insert("notes", id, {"state": "new", "rank": number}, id.encode())
            _say("inserted", id)
            body = {"rank": counter + 1}
            await store.replace("notes", f"counter-{task}", body, if_revision=counter)
            counter += 1
            _say("counted", f"counter-{task}", counter)

    await asyncio.gather(*(go_on(task) for task in range(6)))


async def add(store: DocumentStore) -> None:
    with contextlib.suppress(AlreadyExists):
        await store.insert("others", "counter", {"n": 0})
    added = 0
    while added < 25:
        found = await store.get("others", "counter")
        body = {"n": found.body["n"] + 1}
        try:
            await store.replace("others", "counter", body, if_revision=found.revision)
        except Conflict:
            continue
        added += 1


def _say(*words: object) -> None:
    """One write, so that a kill cannot leave half a line."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def main(what: str, url: str) -> None:
    async with open_documents(url, CONTRACT_COLLECTIONS) as store:
        await {"write": write, "add": add}[what](store)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
