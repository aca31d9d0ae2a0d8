"""The exam is itself examined: adapters that are broken on purpose fail what was meant for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Self
from urllib.parse import quote, unquote

import pytest

from deepforge.errors import AlreadyExists, DeepForgeError, InvalidRequest, NotFound, Unavailable
from deepforge.ids import new_id, utc_now
from deepforge.settings import Choices, build
from deepforge.storage.local import LocalAdapter, LocalSettings
from deepforge.storage.memory import MemoryAdapter, MemorySettings
from deepforge.storage.port import Grant, Method, ObjectInfo, StorageAdapter
from deepforge.storage.s3 import S3Adapter, S3Settings
from deepforge.testing.storage import PROMISES, attempt, examine
from deepforge.testing.storage_exam import Opener, PromiseBroken, stream
from deepforge.testing.storage_grants import PROMISES as GRANTS
from seaweed import Seaweed


async def broken_promises(opener: Opener) -> set[str]:
    return {verdict.promise async for verdict in examine(opener) if verdict.outcome == "broken"}


class ForgetsTheLastByteOfLargeOnes(MemoryAdapter):
    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectInfo:
        data = b"".join([chunk async for chunk in chunks])
        if size_bytes is not None and len(data) > 1000:
            data = data[:-1]
        return await super().put(key, stream([data]), only_if_absent=only_if_absent)


class Puts(MemoryAdapter):
    """A memory storage whose breaker looks at the chunks of a put as a whole."""

    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectInfo:
        came = self.came([chunk async for chunk in chunks])
        return await super().put(key, stream(came), only_if_absent=only_if_absent)

    def came(self, chunks: list[bytes]) -> list[bytes]:
        return chunks


class LosesTheLastByteOfOddOnes(Puts):
    def came(self, chunks: list[bytes]) -> list[bytes]:
        data = b"".join(chunks)
        return [data[:-1] if 10_000 < len(data) < 1_000_000 and len(data) % 2 else data]


class LosesAChunkOfSeven(Puts):
    def came(self, chunks: list[bytes]) -> list[bytes]:
        return [chunk for chunk in chunks if len(chunk) != 7 or len(chunks) == 1]


class TellsSmallSizesWrong(MemoryAdapter):
    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectInfo:
        info = await super().put(key, chunks, only_if_absent=only_if_absent)
        return replace(info, size_bytes=0 if info.size_bytes == 5 else info.size_bytes)


class TakesNoChunksForNoObject(MemoryAdapter):
    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectInfo:
        came = [chunk async for chunk in chunks]
        info = await super().put(key, stream(came), only_if_absent=only_if_absent)
        if not came:
            await self.delete([key])
        return info


class IgnoresTheCondition(MemoryAdapter):
    def _refuse(self, key: str, only_if_absent: bool) -> None:
        return None


class ServesEight(MemoryAdapter):
    inside = 0

    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectInfo:
        if self.inside == 8:
            raise Unavailable("too many")
        self.inside += 1
        try:
            await asyncio.sleep(0)
            return await super().put(key, chunks, only_if_absent=only_if_absent)
        finally:
            self.inside -= 1


class StopsAtAnEmptyChunk(MemoryAdapter):
    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectInfo:
        async def until_empty() -> AsyncIterator[bytes]:
            async for chunk in chunks:
                if not chunk:
                    return
                yield chunk

        return await super().put(key, until_empty(), only_if_absent=only_if_absent)


class KeepsTheTailOfTheFormer(MemoryAdapter):
    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectInfo:
        data = b"".join([chunk async for chunk in chunks])
        former = b"" if only_if_absent else self._objects.get(key, (b"", None))[0]
        return await super().put(
            key, stream([data, former[len(data) :]]), only_if_absent=only_if_absent
        )


class KeepsWhatCameBeforeAFailure(MemoryAdapter):
    kind: type[BaseException] = Exception

    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectInfo:
        came: list[bytes] = []
        self._refuse(key, only_if_absent)
        try:
            async for chunk in chunks:
                came.append(chunk)
        except self.kind:
            await super().put(key, stream(came))
            raise
        return await super().put(key, stream(came), only_if_absent=only_if_absent)


class KeepsWhatCameBeforeACancel(KeepsWhatCameBeforeAFailure):
    kind = asyncio.CancelledError


class ShowsObjectsAsTheyGrow(MemoryAdapter):
    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectInfo:
        self._refuse(key, only_if_absent)
        former = self._objects.get(key)
        came: list[bytes] = []
        try:
            async for chunk in chunks:
                came.append(chunk)
                if not only_if_absent:
                    await super().put(key, stream(came))
        except BaseException:
            if former is None:
                self._objects.pop(key, None)
            else:
                self._objects[key] = former
            raise
        return await super().put(key, stream(came), only_if_absent=only_if_absent)


class LooksBeforeItWaits(MemoryAdapter):
    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectInfo:
        self._refuse(key, only_if_absent)
        await asyncio.sleep(0)
        return await super().put(key, chunks)


class RangesGoOneTooFar(MemoryAdapter):
    async def get(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        end = end + 1 if end is not None and 0 < start < end else end
        async for chunk in super().get(key, start=start, end=end):
            yield chunk


class RefusesRangesBehindTheEnd(MemoryAdapter):
    async def get(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        if start and start >= (await self.stat(key)).size_bytes:
            raise InvalidRequest("416")
        async for chunk in super().get(key, start=start, end=end):
            yield chunk


class GivesNothingForNothing(MemoryAdapter):
    async def get(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        if key in self._objects:
            async for chunk in super().get(key, start=start, end=end):
                yield chunk


class LosesConnections(MemoryAdapter):
    left = 16

    async def get(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        self._find(key)
        if not self.left:
            raise Unavailable("no connection left")
        self.left -= 1
        async for chunk in super().get(key, start=start, end=end):
            yield chunk
        self.left += 1

    async def delete(self, keys: Sequence[str]) -> None:
        self.left = 16  # so that the next promise is not broken too
        await super().delete(keys)


class TellsLocalTime(MemoryAdapter):
    async def stat(self, key: str) -> ObjectInfo:
        info = await super().stat(key)
        return replace(info, modified_at=info.modified_at.replace("Z", "+00:00"))


class ListsFoldersByName(MemoryAdapter):
    """As services do that keep keys as folders: `a/b` before `a-b`."""

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        found = [info async for info in super().list(prefix, after=after)]
        for info in sorted(found, key=lambda info: info.key.split("/")):
            yield info


class TakesAPrefixForAFolder(MemoryAdapter):
    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        async for info in super().list(prefix, after=after):
            if f"{info.key}/".startswith(prefix.rstrip("/") + "/"):
                yield info


class ResumesOnlyBehindWhatIsThere(MemoryAdapter):
    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        async for info in super().list(prefix, after=after if after in self._objects else None):
            yield info


class ListsOnePage(MemoryAdapter):
    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        number = 0
        async for info in super().list(prefix, after=after):
            number += 1
            if number <= 1000:
                yield info


class DecodesKeys(MemoryAdapter):
    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectInfo:
        return await super().put(unquote(key), chunks, only_if_absent=only_if_absent)


class TakesCapitalXForSmall(MemoryAdapter):
    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int | None = None,
        only_if_absent: bool = False,
    ) -> ObjectInfo:
        return await super().put(key.replace("X", "x"), chunks, only_if_absent=only_if_absent)


class MissesWhatIsNotThere(MemoryAdapter):
    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._find(key)
        await super().delete(keys)


class DeletesWhatIsBelow(MemoryAdapter):
    async def delete(self, keys: Sequence[str]) -> None:
        below = [one for one in self._objects for key in keys if one.startswith(key + "/")]
        await super().delete([*keys, *below])


class ForgetsWhenClosed(MemoryAdapter):
    async def __aenter__(self) -> Self:
        self._objects = {}
        return self


class CopiesByReference(MemoryAdapter):
    def __init__(self, settings: MemorySettings) -> None:
        super().__init__(settings)
        self._same: dict[str, str] = {}

    async def copy(self, source: str, target: str) -> ObjectInfo:
        self._same[target] = source
        return await super().copy(source, target)

    async def get(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        async for chunk in super().get(self._same.get(key, key), start=start, end=end):
            yield chunk


class HidesThatItCopies(MemoryAdapter):
    capabilities = replace(MemoryAdapter.capabilities, server_copy=False)


class PretendsToDelete(MemoryAdapter):
    capabilities = replace(MemoryAdapter.capabilities, deletion=False)


class LeavesATrace(MemoryAdapter):
    async def check(self) -> None:
        await self.put("check-was-here", stream([b""]))


class OffersForNothing(MemoryAdapter):
    capabilities = replace(MemoryAdapter.capabilities, choices=True)

    async def choices(self) -> dict[str, Choices]:
        return {"no such": Choices(())}


class OffersNothing(MemoryAdapter):
    capabilities = replace(MemoryAdapter.capabilities, choices=True)


BROKEN = {
    LosesTheLastByteOfOddOnes: {"gives_back_what_was_put", "serves_many_tasks"},
    LosesAChunkOfSeven: {"keeps_a_large_object"},
    TellsSmallSizesWrong: {"keeps_the_key_and_the_size"},
    TakesNoChunksForNoObject: {"keeps_an_empty_object", "gives_nothing_behind_the_end"},
    IgnoresTheCondition: {"refuses_to_replace_if_asked", "lets_one_of_many_win"},
    ServesEight: {"serves_many_tasks"},
    ForgetsTheLastByteOfLargeOnes: {"takes_a_known_size"},
    StopsAtAnEmptyChunk: {"joins_many_chunks"},
    KeepsTheTailOfTheFormer: {"replaces_an_object"},
    KeepsWhatCameBeforeAFailure: {"failed_put_changes_nothing"},
    KeepsWhatCameBeforeACancel: {"cancelled_put_changes_nothing"},
    ShowsObjectsAsTheyGrow: {"shows_whole_objects_only"},
    LooksBeforeItWaits: {"lets_one_of_many_win"},
    RangesGoOneTooFar: {"gives_ranges"},
    RefusesRangesBehindTheEnd: {"gives_nothing_behind_the_end"},
    GivesNothingForNothing: {"says_that_nothing_is_there"},
    LosesConnections: {"survives_an_early_close"},
    TellsLocalTime: {"tells_size_and_time"},
    ListsFoldersByName: {"lists_by_bytes", "resumes_a_listing"},
    TakesAPrefixForAFolder: {"lists_what_begins_with_a_text"},
    ResumesOnlyBehindWhatIsThere: {"resumes_a_listing"},
    ListsOnePage: {"lists_and_deletes_many"},
    DecodesKeys: {"keeps_ugly_keys"},
    TakesCapitalXForSmall: {"tells_alike_keys_apart"},
    MissesWhatIsNotThere: {"deletes_what_is_not_there"},
    DeletesWhatIsBelow: {"tells_alike_keys_apart", "deletes_no_more_than_asked"},
    ForgetsWhenClosed: {"keeps_objects_when_closed"},
    CopiesByReference: {"copies"},
    HidesThatItCopies: {"declares_what_it_does"},
    PretendsToDelete: {"refuses_what_it_cannot_do"},
    LeavesATrace: {"checks_without_a_trace"},
    OffersForNothing: {"offers_choices_for_its_settings"},
    OffersNothing: {"offers_choices_for_its_settings"},
}


@pytest.mark.parametrize("adapter", BROKEN, ids=lambda adapter: adapter.__name__)
async def test_a_broken_adapter_fails_what_was_meant_for_it(adapter: type[MemoryAdapter]) -> None:
    shelf = f"broken-{new_id()}"

    found = await broken_promises(lambda: adapter(MemorySettings(shelf)))

    assert found == BROKEN[adapter]


class MakesAnObjectOfAGrant(LocalAdapter):
    async def grant(self, key: str, method: Method, *, expires_s: float) -> Grant:
        with suppress(AlreadyExists):
            await self.put(key, stream([b""]), only_if_absent=True)
        return await super().grant(key, method, expires_s=expires_s)


class GrantsAnotherPath(LocalAdapter):
    method: Method = "PUT"

    async def grant(self, key: str, method: Method, *, expires_s: float) -> Grant:
        grant = await super().grant(key, method, expires_s=expires_s)
        return replace(grant, path=quote(grant.path or "")) if method == self.method else grant


class GrantsAnotherPathToReaders(GrantsAnotherPath):
    method = "GET"


class GrantsForever(S3Adapter):
    async def grant(self, key: str, method: Method, *, expires_s: float) -> Grant:
        return await super().grant(key, method, expires_s=max(expires_s, 300))


class CompletesOnce(S3Adapter):
    async def complete_parts(self, key: str, upload: str, etags: Sequence[str]) -> ObjectInfo:
        with suppress(NotFound):
            await self.stat(key)
            raise AlreadyExists("it is complete")
        return await super().complete_parts(key, upload, etags)


class GivesUpNothing(S3Adapter):
    async def abort_parts(self, key: str, upload: str) -> None:
        return None


BROKEN_GRANTS: dict[type[StorageAdapter], set[str]] = {
    MakesAnObjectOfAGrant: {"grants_for_nothing_are_harmless"},
    GrantsAnotherPath: {"grants_writing"},
    GrantsAnotherPathToReaders: {"grants_reading"},
    GrantsForever: {"grants_end"},
    CompletesOnce: {"grants_parts", "gives_up_parts"},
    GivesUpNothing: {"gives_up_parts"},
}


@pytest.mark.parametrize("adapter", BROKEN_GRANTS, ids=lambda adapter: adapter.__name__)
async def test_a_broken_grant_is_noticed(
    adapter: type[StorageAdapter],
    tmp_path: Path,
    seaweed: Seaweed,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deepforge.testing.storage_grants.ENDS_LATE_S", 3.0)
    settings: object = LocalSettings(str(tmp_path))
    if issubclass(adapter, S3Adapter):
        settings = build(S3Settings, seaweed.settings(bucket))

    def opener() -> StorageAdapter:
        return adapter(settings)

    found = set()
    async with opener() as opened:
        for promise in GRANTS:
            if promise.missing(opened) is None:
                try:
                    await attempt(promise, opened, opener)
                except (PromiseBroken, DeepForgeError):
                    found.add(promise.name)

    assert found == BROKEN_GRANTS[adapter]


class OpenDoor(MemoryAdapter):
    """Grants addresses at a server that asks nobody for a signature."""

    capabilities = replace(MemoryAdapter.capabilities, grants=True)

    async def __aenter__(self) -> Self:
        objects = self._objects

        class Serves(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                data, _ = objects[unquote(self.path.partition("?")[0])[1:]]
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Serves)
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    async def grant(self, key: str, method: Method, *, expires_s: float) -> Grant:
        address = f"http://127.0.0.1:{self._server.server_port}/{quote(key)}?Expires=300"
        return Grant("http", method, url=address, expires_at=utc_now())


async def test_an_open_door_is_noticed() -> None:
    promise = next(one for one in GRANTS if one.name == "grants_one_thing_only")

    def opener() -> OpenDoor:
        return OpenDoor(MemorySettings(f"door-{new_id()}"))

    async with opener() as opened:
        with pytest.raises(PromiseBroken, match="was answered with"):
            await attempt(promise, opened, opener)


def test_every_promise_has_somebody_who_breaks_it() -> None:
    broken = set().union(*BROKEN.values(), *BROKEN_GRANTS.values(), {"grants_one_thing_only"})

    assert broken == {promise.name for promise in PROMISES}


async def test_the_exam_tells_what_it_did_not_ask_and_leaves_nothing() -> None:
    shelf = f"good-{new_id()}"

    def opener() -> MemoryAdapter:
        return MemoryAdapter(MemorySettings(shelf))

    verdicts = [verdict async for verdict in examine(opener)]

    assert len(verdicts) == len(PROMISES)
    assert {one.outcome for one in verdicts} == {"kept", "not asked"}
    assert all("grants" in (one.message or "") for one in verdicts if one.outcome != "kept")
    assert all(one.sentence.endswith(".") for one in verdicts)
    assert [info async for info in opener().list("")] == []
