"""The WebGME Executor Framework for workers: the original's paths, shapes and words.

Better than the original where no client can mind: ids belong to their owner, larger output, questions
that wait (`Prefer: wait=25`), 401 for unknown tokens, a cancelled job that waits never starts.

Every job makes some of these calls, so they are plain Starlette routes: half the cost of a route with
declared models.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from deepforge.compute.port import Resources
from deepforge.errors import ConfigError, Conflict, Corrupt, InvalidRequest, NotFound
from deepforge.ids import epoch_s
from deepforge.server.auth import Principal, admit, worker_caller
from deepforge.server.body import BYTES, read_limited
from deepforge.webgme.hand_out import Answer, HandOut
from deepforge.webgme.jobs import CONFIG_FILE, RUNNING, Job, info
from deepforge.webgme.workers import Poll, read_poll

MAX_JSON_BYTES = 1024 * 1024
MAX_OUTPUT_BYTES = 17 * 1024 * 1024
"""16 MiB of text and what JSON adds to it."""

_LONGEST_ID = 128
_WORDS = {200: "OK", 413: "Payload Too Large"}  # the latter is spelled anew by newer Pythons
_MEDIA_TYPE = {"X-WebGME-Media-Type": "webgme.v1"}


class Call:
    """One call of a worker, and who makes it."""

    def __init__(self, request: Request, caller: Principal) -> None:
        self.request = request
        self.hand_out: HandOut = request.app.state.services.hand_out
        self.queue = self.hand_out.queue
        self.owner = caller.owner

    @property
    def hash(self) -> str:
        """The id of a job. Raises `NotFound` for what can be none."""
        text = str(self.request.path_params["hash"])
        if not 0 < len(text) <= _LONGEST_ID or not text.isprintable():
            raise NotFound("there is no such job")
        return text


class WorkerRoute(Route):
    """A route for workers, and for who may use the whole API. It says what goes wrong with the
    original's status and words."""

    caller = staticmethod(worker_caller)

    def __init__(
        self, path: str, method: str, handle: Callable[[Call], Awaitable[Response]]
    ) -> None:
        async def endpoint(request: Request) -> Response:
            caller = await self.caller(request)
            try:
                response = await handle(Call(request, caller))
            except NotFound:
                response = _said(404)
            except InvalidRequest:
                response = _said(400)
            except HTTPException as error:
                response = _said(error.status_code)
            response.headers.update(_MEDIA_TYPE)
            return response

        super().__init__(path, endpoint, methods=[method], name=handle.__name__.strip("_"))


def routes() -> list[WorkerRoute]:
    """All routes, those that are asked for most first."""
    base = "/rest/executor"
    return [
        WorkerRoute(f"{base}/worker", "POST", _ask_for_work),
        WorkerRoute(f"{base}/update/{{hash}}", "POST", _update_job),
        WorkerRoute(f"{base}/output/{{hash}}", "POST", _add_output),
        WorkerRoute(f"{base}/output/{{hash}}", "GET", _read_output),
        WorkerRoute(f"{base}/info/{{hash}}", "GET", _read_job),
        WorkerRoute(f"{base}/runner/{{sha256}}", "GET", _read_runner),
        WorkerRoute(f"{base}/create/{{hash}}", "POST", _create_job),
        WorkerRoute(f"{base}/cancel/{{hash}}", "POST", _cancel_job),
        WorkerRoute(f"{base}/worker", "GET", _list_workers),
        WorkerRoute(base, "GET", _list_jobs),
        WorkerRoute(f"{base}/", "GET", _list_jobs),
    ]


async def _list_jobs(call: Call) -> Response:
    status = call.request.query_params.get("status")
    found = await call.queue.of_owner(call.owner, status=status)
    return JSONResponse({job.hash: await _shown(call, job) for job in found})


async def _read_job(call: Call) -> Response:
    return JSONResponse(await _shown(call, await call.queue.job(call.owner, call.hash)))


async def _create_job(call: Call) -> Response:
    """Queue a job, or show the one that is there. Only a new one's answer has its `secret`."""
    job, is_new = await call.queue.create(call.owner, call.hash, await _json(call.request))
    return JSONResponse(info(job, secret=is_new))


async def _update_job(call: Call) -> Response:
    update = await _json(call.request)
    try:
        await call.queue.update(call.owner, call.hash, update)
    except Conflict:
        return await _lost(call)
    return _said(200)


async def _cancel_job(call: Call) -> Response:
    job = await call.queue.job(call.owner, call.hash)
    if (await _json(call.request)).get("secret") != job.secret:
        return _said(403)
    await call.queue.cancel(call.owner, job.hash)
    return _said(200)


async def _read_output(call: Call) -> Response:
    start, end = (_number(call.request, name) for name in ("start", "end"))
    found = await call.queue.output(call.owner, call.hash, start=start, end=end or None)
    return JSONResponse(
        [
            {
                "_id": f"{call.hash}+{number}",
                "hash": call.hash,
                "outputNumber": number,
                "output": text,
            }
            for number, text in found
        ]
    )


async def _add_output(call: Call) -> Response:
    said = await _json(call.request, MAX_OUTPUT_BYTES)
    number, text, worker = (said.get(name) for name in ("outputNumber", "output", "worker"))
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 10**12:
        raise InvalidRequest("outputNumber is not a whole number", part="outputNumber")
    if not isinstance(text, str) or not isinstance(worker, str | None):
        raise InvalidRequest("output is not a text", part="output")
    try:
        await call.queue.add_output(call.owner, call.hash, number, text, worker=worker)
    except Conflict:
        return await _lost(call)
    except InvalidRequest:  # the job has printed too much
        return _said(413)
    return _said(200)


async def _list_workers(call: Call) -> Response:
    """The caller's connected workers, with what each runs."""
    running = await call.queue.of_owner(call.owner, status=RUNNING)
    found = await call.hand_out.registry.of_owner(call.owner)
    return JSONResponse(
        {
            one.id: {
                "clientId": one.id,
                "_id": hashlib.sha1(f"{call.owner} {one.id}".encode()).hexdigest()[:24],
                "lastSeen": epoch_s(one.seen_at),
                "labels": list(one.labels),
                "userId": [call.owner],
                "jobs": [info(job) for job in running if job.worker == one.id],
            }
            for one in found
            if one.is_connected
        }
    )


async def _ask_for_work(call: Call) -> Response:
    """Hand out jobs, now or, with `Prefer: wait=<seconds>`, when there are any."""
    poll = read_poll(await _json(call.request))
    wait_s = _wait_s(call.request)
    if not wait_s:
        return await _answer(call, poll, await call.hand_out.poll(call.owner, poll))
    call.hand_out.stop_with(call.request.app.state.stopping)
    gone = asyncio.create_task(_hung_up(call.request))
    try:
        answer = await call.hand_out.poll(
            call.owner,
            poll,
            wait_s=wait_s,
            gone=gone,
            still_admitted=lambda: admit(call.request),  # the token may be revoked by now
        )
    finally:
        gone.cancel()
    return await _answer(call, poll, answer)


async def _read_runner(call: Call) -> Response:
    """The runner that an answer named, for workers of ours to keep."""
    archive = await call.queue.runner(str(call.request.path_params["sha256"])[:_LONGEST_ID])
    return Response(archive, media_type=BYTES, headers={"Cache-Control": "max-age=31536000"})


async def _answer(call: Call, poll: Poll, answer: Answer) -> Response:
    said: dict[str, Any] = {
        "jobsToStart": [job.hash for job in answer.start],
        "refreshPeriod": answer.refresh_ms,
        "labelJobs": {},
        "jobsToCancel": list(answer.cancel),
    }
    if poll.machine is not None:
        runners = [job.runner for job in answer.start if job.runner is not None]
        jobs = {}
        for job in answer.start:
            if not job.is_attempt:
                continue
            try:
                jobs[job.hash] = _whole(job, call.queue.own_files(job))
            except (ConfigError, Corrupt) as error:  # the key of the server is another one by now
                said["jobsToStart"].remove(job.hash)
                await call.queue.lose(job.owner, job.hash, error.message)
        said["deepforge"] = {
            "jobs": jobs,
            "runner": runners[0] if runners else None,
            "leaseS": poll.lease_s,
        }
    return JSONResponse(said)


def _whole(job: Job, files: Mapping[str, Any]) -> dict[str, Any]:
    """All that a worker of ours needs to start the job, so that it asks for nothing more. Without a
    command it is the runner with its `job.json`."""
    asked: Resources = job.resources
    return {
        "key": job.key,
        "command": None if job.runner is not None else list(job.command),
        "files": {name: kept for name, kept in files.items() if name != CONFIG_FILE},
        "resources": {
            "cpus": asked.cpus,
            "memoryBytes": asked.memory_bytes,
            "gpus": asked.gpus,
            "walltimeS": asked.walltime_s,
        },
        "labels": dict(job.about),
    }


async def _shown(call: Call, job: Job) -> dict[str, Any]:
    """What a job is, with the number of what it printed last: clients follow that."""
    shown = info(job)
    if job.status == RUNNING:
        shown["outputNumber"] = await call.queue.last_output(job.owner, job.hash)
    return shown


async def _lost(call: Call) -> Response:
    """The job is over, or another worker's. The original would take it; ours is told."""
    job = await call.queue.job(call.owner, call.hash)
    return _said(409 if job.ours else 200)


async def _json(request: Request, limit_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The body, whatever type it says it has. None at all is an empty object."""
    data = await read_limited(request, limit_bytes)
    try:
        value = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("the body is not JSON", part="body") from error
    if not isinstance(value, dict):
        raise InvalidRequest("the body is not a JSON object", part="body")
    return value


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 13):
        raise InvalidRequest(f"{name} is not a number", part=name)
    return int(text)


def _wait_s(request: Request) -> float:
    match = re.search(r"(?:^|[,;\s])wait=([0-9]{1,4})", request.headers.get("prefer", ""))
    return 0.0 if match is None else float(match.group(1))


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _said(status: int) -> Response:
    return PlainTextResponse(_WORDS.get(status) or HTTPStatus(status).phrase, status)
