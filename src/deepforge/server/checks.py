"""Prove that a connection works, step by step, and leave nothing behind."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from deepforge.compute.client import ComputeClient
from deepforge.compute.port import PYTHON, JobRequest, Resources
from deepforge.errors import Corrupt, DeepForgeError, NotFound, Unavailable
from deepforge.ids import new_id
from deepforge.storage.client import StorageClient
from deepforge.storage.port import ObjectRef

T = TypeVar("T")

SMALL_BYTES = 64 * 1024
LARGE_BYTES = 24 * 1024 * 1024
"""Above the size from which adapters cut objects into parts."""
JOB_WITHIN_S = 300.0

_UGLY = ("with space", "ünï/cödé 😀", "quote'\"`", "a+b&c=d%20#e", "-dash", "a-b", "a/b")


@dataclass(frozen=True)
class Check:
    """One step. `message` and `hint` say what went wrong, if it did, or what to know of it."""

    name: str
    ok: bool
    seconds: float
    message: str | None = None
    hint: str | None = None


async def check_storage(open: Callable[[], Awaitable[StorageClient]], *, deep: bool) -> list[Check]:
    """Open and reach a storage; with `deep`, use all of it under a scratch prefix.

    The first step that fails is the last one done; one for reading only is only reached.
    Removes what it wrote in any case, unless the storage keeps everything for ever; there it writes a
    few small objects.
    """
    steps = _Steps()
    storage = await steps.do("open", open)
    if storage is None or not await steps.passed("reach", storage.check):
        return steps.done
    if storage.read_only:
        steps.done[-1] = replace(steps.done[-1], message="nothing can be stored in it, only read")
        return steps.done
    if not deep:
        return steps.done
    scratch = _Scratch(storage)
    try:
        for name, step in scratch.steps():
            if not await steps.passed(name, step):
                break
    finally:
        with suppress(DeepForgeError):  # the step that failed said what is wrong
            await storage.delete(sorted(scratch.keys))
    return steps.done


async def check_compute(open: Callable[[], Awaitable[ComputeClient]], *, deep: bool) -> list[Check]:
    """Open and reach a compute; with `deep`, run a job that does nothing and see it end."""
    steps = _Steps()
    compute = await steps.do("open", open)
    if compute is None or not await steps.passed("reach", compute.check) or not deep:
        return steps.done
    await steps.passed("run a job", lambda: _run_job(compute))
    return steps.done


class _Steps:
    def __init__(self) -> None:
        self.done: list[Check] = []

    async def do(self, name: str, step: Callable[[], Awaitable[T]]) -> T | None:
        began = time.monotonic()
        try:
            result = await step()
        except DeepForgeError as error:
            seconds = time.monotonic() - began
            self.done.append(Check(name, False, seconds, error.message, error.hint))
            return None
        self.done.append(Check(name, True, time.monotonic() - began))
        return result

    async def passed(self, name: str, step: Callable[[], Awaitable[object]]) -> bool:
        await self.do(name, step)
        return self.done[-1].ok


class _Scratch:
    """What a deep check does in a storage, and the keys that must go afterwards."""

    def __init__(self, storage: StorageClient) -> None:
        self.keys: set[str] = set()
        self._storage = storage
        self._prefix = f"deepforge-check/{new_id()}"

    def steps(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        steps: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("write and read", self._small),
            ("an empty object", self._empty),
            ("names with spaces, quotes and emoji", self._ugly_names),
            ("replace", self._replace),
        ]
        able = self._storage.capabilities
        if able.deletion:  # where nothing goes away, only little is left
            steps.append(("a large object", self._large))
        if able.listing:
            steps.append(("list", self._list))
        if able.grants:
            steps.append(("grants", self._grants))
        if able.deletion:
            steps.append(("delete", self._delete))
        return steps

    async def _small(self) -> None:
        await self._round_trip("small", secrets.token_bytes(SMALL_BYTES))

    async def _empty(self) -> None:
        await self._round_trip("empty", b"")

    async def _large(self) -> None:
        block = secrets.token_bytes(1024 * 1024)

        async def chunks() -> AsyncGenerator[bytes, None]:
            for _ in range(LARGE_BYTES // len(block)):
                yield block

        ref = await self._storage.put_stream(self._key("large"), chunks(), size_bytes=LARGE_BYTES)
        self.keys.add(ref.key)
        await self._read(ref)

    async def _ugly_names(self) -> None:
        for name in _UGLY:
            await self._round_trip(f"names/{name}", name.encode())

    async def _list(self) -> None:
        found = {one.key async for one in self._storage.list(f"{self._prefix}/")}
        if not self.keys <= found:
            missing = ", ".join(sorted(self.keys - found))
            raise Corrupt(
                f"the listing lacks what was written: {missing}",
                expected=f"{len(self.keys)} objects",
                found=f"{len(found)} objects",
            )

    async def _replace(self) -> None:
        await self._round_trip("small", b"replaced")

    async def _grants(self) -> None:
        """Prove that the service signs, and accepts, what a job without keys will use."""
        content = secrets.token_bytes(SMALL_BYTES)
        key = self._key("granted")
        put = await self._storage.grant(key, "PUT", expires_s=600)
        if put.kind == "file":
            await self._round_trip("granted", content)
            return
        import httpx

        async with httpx.AsyncClient(timeout=60) as http:
            try:
                answer = await http.put(put.url or "", content=content, headers=dict(put.headers))
                answer.raise_for_status()
                get = await self._storage.grant(key, "GET", expires_s=600)
                answer = await http.get(get.url or "", headers=dict(get.headers))
                answer.raise_for_status()
            except httpx.HTTPStatusError as error:
                raise Unavailable(
                    f"a granted {error.request.method} was answered with {error.response.status_code}",
                    hint="do the endpoint, the region and the clock of this machine fit?",
                ) from error
            except httpx.TransportError as error:
                raise Unavailable(f"a granted request failed: {error!r}") from error
        if answer.content != content:
            raise Corrupt(
                "a granted GET gave other bytes than were put",
                expected=f"{len(content)} bytes",
                found=f"{len(answer.content)} bytes",
            )

    async def _delete(self) -> None:
        keys = sorted(self.keys)
        await self._storage.delete(keys)
        await self._storage.delete(keys)
        try:
            await self._storage.stat(keys[0])
        except NotFound:
            return
        raise Corrupt(
            "an object is still there after it was deleted", expected="none", found=keys[0]
        )

    async def _round_trip(self, name: str, content: bytes) -> None:
        ref = await self._storage.put_bytes(self._key(name), content)
        self.keys.add(ref.key)
        await self._read(ref)

    async def _read(self, ref: ObjectRef) -> None:
        stream = self._storage.get_stream(ref)
        async with aclosing(stream):
            async for _ in stream:
                pass  # the client verifies size and digest

    def _key(self, name: str) -> str:
        key = f"{self._prefix}/{name}"
        self.keys.add(key)
        return key


async def _run_job(compute: ComputeClient) -> None:
    request = JobRequest(
        key=f"check-{new_id()}",
        command=(PYTHON, "-c", "print('DeepForge was here')"),
        resources=Resources(walltime_s=60),
    )
    handle = await compute.submit(request)
    try:
        async with asyncio.timeout(JOB_WITHIN_S):
            while True:
                report = (await compute.poll([handle]))[0]
                if report.state not in ("queued", "running"):
                    break
                await asyncio.sleep(min(1.0, compute.capabilities.poll_every_s))
    except TimeoutError as error:
        raise Unavailable(
            f"the job did not end within {JOB_WITHIN_S:.0f} s: it is {report.state}",
            hint="is the compute busy? look at its queue",
        ) from error
    finally:
        await compute.cancel([handle])
        await compute.release(handle)
    if report.state != "exited" or report.exit_code != 0:
        code = "" if report.exit_code is None else f" with code {report.exit_code}"
        raise Unavailable(
            f"a job that does nothing ended as {report.state}{code}: {report.message or 'no reason'}"
        )
