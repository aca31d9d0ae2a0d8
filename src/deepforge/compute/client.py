"""What the rest of DeepForge calls: one thick client over every compute adapter.

It adds what no author should write again: checks of the request, retries with growing pauses, a
deadline for every call, polls in batches, and the one error tree.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Self, TypeVar

from deepforge.compute.port import (
    JOB_KEY,
    Capabilities,
    ComputeAdapter,
    JobHandle,
    JobReport,
    JobRequest,
    Reach,
    Refusal,
)
from deepforge.errors import (
    AdapterBug,
    DeepForgeError,
    InvalidRequest,
    OutcomeUnknown,
    RateLimited,
    Unavailable,
)
from deepforge.settings import Choices

T = TypeVar("T")

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0


class ComputeClient:
    """One open compute under its name. An async context manager; safe for many tasks at once.

    Everything raises errors of `deepforge.errors` only. What is transient was tried `tries` times
    before it is raised; `NoCapacity` is raised at once, since only the caller knows what to do.
    """

    def __init__(
        self,
        adapter: ComputeAdapter,
        name: str,
        *,
        tries: int = 5,
        call_within_s: float = 120.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.adapter = adapter
        self.name = name
        self._tries = tries
        self._call_within_s = call_within_s
        self._sleep = sleep
        self._jitter = jitter

    async def __aenter__(self) -> Self:
        with self._discipline("open"):
            await self.adapter.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        with self._discipline("close"):
            await self.adapter.__aexit__(*exception)

    @property
    def capabilities(self) -> Capabilities:
        return self.adapter.capabilities

    @property
    def file_spaces(self) -> Mapping[str, str]:
        return self.adapter.file_spaces

    @property
    def endpoints(self) -> Mapping[str, str]:
        return self.adapter.endpoints

    @property
    def machine(self) -> str | None:
        return self.adapter.machine

    @property
    def reaches_server(self) -> Reach:
        return self.adapter.reaches_server

    async def check(self) -> None:
        """Prove that jobs can run here, and leave nothing behind. Tried once: somebody waits."""
        await self._once("check", self.adapter.check)

    async def choices(self) -> Mapping[str, Choices]:
        """What the service offers for settings, as in the port. Tried once: somebody waits."""
        return await self._once("choices", self.adapter.choices)

    async def why_not(self, request: JobRequest) -> list[Refusal]:
        """Return every reason why this request could never run here; empty when there is none."""
        refusals = await self._once("why_not", lambda: self.adapter.why_not(request))
        return [*_missing_spaces(request, self.file_spaces), *refusals]

    async def submit(self, request: JobRequest) -> JobHandle:
        """Hand a job over, at most once per key, however often this is called.

        After `OutcomeUnknown` it may or may not have been accepted: call again, the same key finds
        out. Raises `InvalidRequest` before anything is sent when the request is not well formed.
        """
        check_request(request)
        handle = await self._tried("submit", lambda: self.adapter.submit(request))
        try:
            json.dumps(handle)
        except (TypeError, ValueError) as error:
            raise AdapterBug(f"{self.name} returned a handle that is not JSON: {error}") from error
        return handle

    async def poll(self, handles: Sequence[JobHandle]) -> list[JobReport]:
        """One report per handle, in order, in as few questions as the adapter allows."""
        reports: list[JobReport] = []
        for batch in self._batches(handles):
            answer = await self._tried("poll", lambda batch=batch: self.adapter.poll(batch))  # type: ignore[misc]
            if len(answer) != len(batch):
                raise AdapterBug(
                    f"{self.name} returned {len(answer)} reports for {len(batch)} handles"
                )
            reports.extend(answer)
        return reports

    async def cancel(self, handles: Sequence[JobHandle]) -> None:
        """Ask for the end of these jobs. The fact arrives by `poll`. Safe to repeat."""
        for batch in self._batches(handles):
            await self._tried("cancel", lambda batch=batch: self.adapter.cancel(batch))  # type: ignore[misc]

    async def log(self, handle: JobHandle, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        """The platform's own output from byte `start` to what exists now; empty if it has none.

        Tried once: after an error go on from the byte you have.
        """
        if self.capabilities.log == "none":
            return
        with self._discipline("log"):
            async for chunk in self.adapter.log(handle, start=start):
                yield chunk

    async def release(self, handle: JobHandle) -> None:
        """Let the backend forget an ended job. A running one is not touched. Safe to repeat."""
        await self._tried("release", lambda: self.adapter.release(handle))

    def _batches(self, handles: Sequence[JobHandle]) -> Iterator[Sequence[JobHandle]]:
        size = max(1, self.capabilities.max_poll_batch)
        for start in range(0, len(handles), size):
            yield handles[start : start + size]

    async def _tried(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        """Call until it works, with pauses that grow. Only for what is safe to repeat."""
        unknown: OutcomeUnknown | None = None
        for number in range(1, self._tries + 1):
            try:
                return await self._once(verb, call)
            except (OutcomeUnknown, Unavailable, RateLimited) as error:
                if isinstance(error, OutcomeUnknown):
                    unknown = error
                if number < self._tries:
                    await self._sleep(self._pause_s(number, error))
                elif unknown is None or unknown is error:
                    raise
                else:  # once unknown, it stays unknown whatever the later errors say
                    raise unknown from error
        raise AssertionError("tries is at least 1")

    def _pause_s(self, number: int, error: DeepForgeError) -> float:
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** (number - 1))
        pause_s *= 0.5 + self._jitter()
        if isinstance(error, RateLimited) and error.retry_after_s is not None:
            return max(pause_s, error.retry_after_s)
        return pause_s

    async def _once(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        deadline = asyncio.timeout(self._call_within_s)
        try:
            async with deadline:
                with self._discipline(verb):
                    return await call()
        except TimeoutError as error:
            message = f"{self.name}: {verb} did not return within {self._call_within_s:.0f} s"
            if verb == "submit":
                raise OutcomeUnknown(message) from error
            raise Unavailable(message) from error

    @contextmanager
    def _discipline(self, verb: str) -> Iterator[None]:
        """Let only errors of our tree out of an adapter."""
        try:
            yield
        except DeepForgeError:
            raise
        except Exception as error:
            raise AdapterBug(f"{self.name}: {verb} raised {error!r}") from error


def check_request(request: JobRequest) -> None:
    """Refuse a request that no adapter can take. Raises `InvalidRequest` naming the part."""
    if not JOB_KEY.fullmatch(request.key):
        raise InvalidRequest(
            f"{request.key!r} is not a job key",
            part="key",
            hint="a key has 1 to 63 of the characters a-z, 0-9 and -",
        )
    if not request.command:
        raise InvalidRequest("the command is empty", part="command")
    if any("\0" in word for word in request.command):
        raise InvalidRequest("a word of the command contains a NUL character", part="command")
    for name in request.files:
        path = PurePosixPath(name)
        if not name or "\0" in name or path.is_absolute() or ".." in path.parts or not path.name:
            raise InvalidRequest(f"{name!r} is not a relative file name", part="files")
    walltime_s = request.resources.walltime_s
    if walltime_s is not None and not walltime_s > 0:
        raise InvalidRequest(f"a time limit of {walltime_s} s", part="resources.walltime_s")


def _missing_spaces(request: JobRequest, spaces: Mapping[str, str]) -> Iterator[Refusal]:
    missing = sorted({needed.space for needed in request.paths} - set(spaces))
    for space in missing:
        yield Refusal(
            "paths",
            f"jobs here do not see the files of {space}",
            hint="choose a storage that this compute can reach, or a compute on that machine",
        )
