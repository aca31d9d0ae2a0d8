"""The queue in a MongoDB: the same promises, asked once each."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mongo_server import MongoServer
from webgme.rig import OWNER, opened


async def test_the_queue_lives_in_mongodb_too(mongo_server: MongoServer, tmp_path: Path) -> None:
    async with opened(tmp_path / "home", database=mongo_server.new_database()) as rig:
        hashes = [await rig.submit(f"k{number}") for number in range(12)]
        assert hashes[0] == await rig.submit("k0", files={"job.json": b"other"})
        answers = await asyncio.gather(*(rig.ask(f"w{number}", slots=4) for number in range(5)))
        handed = [hash for answer in answers for hash in answer["jobsToStart"]]
        assert sorted(hashes) == sorted(handed)

        mine, other = answers[0]["jobsToStart"][:2]
        await rig.queue.add_output(OWNER, mine, 0, "text")
        await rig.queue.cancel(OWNER, other)
        asked = await rig.ask("w0", *answers[0]["jobsToStart"], slots=0)
        assert [other] == asked["jobsToCancel"]
        assert [other] == [job.hash for job in await rig.queue.to_cancel()]

        assert 200 == (await rig.post(f"update/{mine}", {"status": "SUCCESS"})).status_code
        assert b"text" == b"".join([one async for one in rig.queue.printed(OWNER, mine)])
        await rig.queue.release(OWNER, mine)
        assert 11 == len(await rig.queue.of_owner(OWNER))
        await rig.hand_out.silence.sweep()
