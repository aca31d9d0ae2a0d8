"""A worker of some 100 lines that runs in the process of a test: the far side of the exam."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import httpx

from deepforge.compute.environment import clean_environment

Fetch = Callable[[str], Awaitable[dict[str, bytes]]]
"""Gives the files of a job."""


class SmallWorker:
    """Speaks our dialect. Use with `async with`: it asks for jobs within the block."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        fetch: Fetch,
        *,
        client_id: str = "small",
        slots: int = 2,
        labels: tuple[str, ...] = (),
    ) -> None:
        self._http = http
        self._fetch = fetch
        self._client_id = client_id
        self._slots = slots
        self._labels = labels
        self._instance = secrets.token_hex(8)
        self._held: dict[str, asyncio.Task[None]] = {}
        self._ended: set[str] = set()
        self._changed = asyncio.Event()
        self._is_ending = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._is_ending = True
        tasks = [self._task, *self._held.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def question(self) -> dict[str, Any]:
        free = self._slots - len(self._held)
        return {
            "clientId": self._client_id,
            "availableProcesses": free,
            "labels": list(self._labels),
            "runningJobs": list(self._held),
            "deepforge": {
                "instance": self._instance,
                "name": "a small worker",
                "version": "1",
                "cpus": self._slots,
                "memoryBytes": 2**30,
                "gpus": 0,
                "free": {"cpus": free, "memoryBytes": 2**30, "gpus": 0},
                "python": "3",
                "platform": "test",
            },
        }

    async def _work(self) -> None:
        """A question is always open; when a job ended, a new one overtakes it."""
        waiting: set[asyncio.Task[Any]] = set()
        while True:
            if not waiting or self._changed.is_set():
                self._changed.clear()
                waiting.add(asyncio.create_task(self._ask()))
            news = asyncio.create_task(self._changed.wait())
            try:
                done, _ = await asyncio.wait({*waiting, news}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()
                if self._is_ending:
                    for one in waiting:
                        one.cancel()
                    await asyncio.gather(*waiting, return_exceptions=True)
            for one in done & waiting:
                waiting.discard(one)
                self._hear(one.result())

    def _hear(self, answer: dict[str, Any]) -> None:
        for hash in answer["jobsToStart"]:
            if hash not in self._held:
                self._held[hash] = asyncio.create_task(self._run(hash))
                self._changed.set()
        for hash in answer["jobsToCancel"]:
            if hash in self._held and hash not in self._ended:
                self._held[hash].cancel()

    async def _ask(self) -> dict[str, Any]:
        answer = await self._http.post(
            "/rest/executor/worker", json=self.question(), headers={"Prefer": "wait=25"}
        )
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    async def _run(self, hash: str) -> None:
        try:
            update = await self._prepare_and_execute(hash)
        except asyncio.CancelledError:
            if self._is_ending:
                raise
            update = {"status": "CANCELED"}
        self._ended.add(hash)
        answer = await self._http.post(
            f"/rest/executor/update/{hash}", json={"worker": self._client_id, **update}
        )
        assert answer.status_code in (200, 404, 409), answer.text
        self._held.pop(hash)
        self._changed.set()

    async def _prepare_and_execute(self, hash: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="small-worker-") as folder:
            files = await self._fetch(hash)
            config = json.loads(files.pop("executor_config.json"))
            for name, data in files.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            command = [config["cmd"], *config["args"]]
            if command[0] == "python3":
                command[0] = sys.executable
            return await self._execute(hash, command, folder)

    async def _execute(self, hash: str, command: list[str], folder: str) -> dict[str, Any]:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=folder,
                env=clean_environment(os.environ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return {"status": "FAILED_TO_EXECUTE", "deepforge": {"message": str(error)}}
        try:
            await self._pass_on(hash, process)
            code = await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            process._transport.close()  # type: ignore[attr-defined]
        status = "SUCCESS" if code == 0 else "FAILED_TO_EXECUTE"
        return {"status": status, "exitCode": code}

    async def _pass_on(self, hash: str, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        number = 0
        while chunk := await process.stdout.read(65536):
            body = {"outputNumber": number, "output": chunk.decode("utf-8", "surrogateescape")}
            answer = await self._http.post(
                f"/rest/executor/output/{hash}",
                content=json.dumps({"worker": self._client_id, **body}),
            )
            answer.raise_for_status()
            number += 1
