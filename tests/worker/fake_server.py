"""A server of jobs in a thread: the executor and blob protocols, as small as tests can do with.

With `ours` it speaks our dialect, long polls included; without it answers as the original does.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
import zipfile
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

from deepforge.runner.build import runner_archive
from runner.far_server import HangingUpServer

RUNNER = hashlib.sha256(runner_archive()).hexdigest()
REFRESH_S = 0.2


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answer = tuple[int, bytes, str]
"""Status, body, content type."""


@dataclass
class FakeServer:
    """Jobs are put into `waiting`; what became of them is in `updates` and `output`.

    `faults[path]` answer first, in order. `token`, where there is one, is asked for.
    """

    ours: bool = True
    token: str | None = None
    port: int = 0
    runner: str = RUNNER
    waiting: dict[str, dict[str, Any]] = field(default_factory=dict)
    info: dict[str, dict[str, Any]] = field(default_factory=dict)
    handed: dict[str, float] = field(default_factory=dict)
    updates: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    output: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    cancels: set[str] = field(default_factory=set)
    label_jobs: dict[str, str] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: dict[str, deque[Answer]] = field(default_factory=lambda: defaultdict(deque))
    always: Answer | None = None
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._changed = threading.Condition()
        self._newest = 0
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.fake = self
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._newest = -1
            self._changed.notify_all()
        self._server.shutdown()
        self._thread.join()
        self._server.close_connections()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def polls(self) -> list[Any]:
        """The questions so far."""
        return [one.json for one in list(self.requests) if one.path == "/rest/executor/worker"]

    def offer(self, hash: str, job: Mapping[str, Any]) -> None:
        """Put a job into the queue: what our dialect says of it."""
        self.info[hash] = new_info(hash)
        with self._changed:
            self.waiting[hash] = dict(job)
            self._changed.notify_all()

    def offer_zip(self, hash: str, archive: bytes) -> None:
        """Put a job of the executor framework into the queue, its source as a plain blob."""
        digest = hashlib.sha1(archive).hexdigest()
        self.contents[digest] = archive
        self.blobs[hash] = {"content": digest, "contentType": "object", "size": len(archive)}
        self.offer(hash, {})

    def offer_files(self, hash: str, files: Mapping[str, bytes]) -> None:
        """As `offer_zip`, as a complex artifact."""
        content = {}
        for name, data in files.items():
            digest = hashlib.sha1(data).hexdigest()
            self.contents[digest] = data
            content[name] = {"content": digest, "contentType": "object"}
        self.blobs[hash] = {"content": content, "contentType": "complex", "size": 0}
        self.offer(hash, {})

    def cancel(self, hash: str) -> None:
        with self._changed:
            self.cancels.add(hash)
            self._changed.notify_all()

    def status(self, hash: str) -> str | None:
        """What the last update of a job said."""
        return self.updates[hash][-1]["status"] if self.updates[hash] else None

    def text(self, hash: str) -> str:
        """All that a job has printed."""
        return "".join(text for _, text in sorted(self.output[hash].items()))

    def artifact(self, hash: str, name: str) -> dict[str, bytes]:
        """The files of a result artifact."""
        found = self.blobs[self.updates[hash][-1]["resultHashes"][name]]["content"]
        return {
            path: self.contents[self.blobs[entry["content"]]["content"]]
            for path, entry in found.items()
        }

    def answer(self, request: Request) -> Answer:
        path = request.path.split("?")[0]
        if self.always is not None:
            return self.always
        if self.faults[path]:
            return self.faults[path].popleft()
        if self.token is not None and request.headers.get("x-api-token") != self.token:
            return 401, b"Unauthorized", "text/html"
        parts = [unquote(one) for one in path.strip("/").split("/")]
        if parts[:2] == ["rest", "blob"]:
            return self._blob(request, parts[2], parts[3:])
        verb, *rest = parts[2:]
        if verb == "worker":
            return _json(self._poll(request))
        if verb == "runner":
            return 200, runner_archive(), "application/octet-stream"
        (hash,) = rest
        if hash not in self.info:
            return 404, b"Not Found", "text/plain"
        if verb == "info":
            return _json(self.info[hash])
        if verb == "output":
            self.output[hash][request.json["outputNumber"]] = request.json["output"]
        elif verb == "update":
            self.updates[hash].append(request.json)
        return 200, b"OK", "text/plain; charset=utf-8"

    def _poll(self, request: Request) -> dict[str, Any]:
        question = request.json
        answer: dict[str, Any] = {
            "jobsToStart": [],
            "jobsToCancel": [],
            "labelJobs": self.label_jobs,
            "refreshPeriod": int(REFRESH_S * 1000),
        }
        if not self.ours:
            self._fill(question, answer, {})
            return answer
        jobs: dict[str, Any] = {}
        answer["deepforge"] = {"jobs": jobs, "runner": self.runner, "leaseS": 4500}
        deadline = time.monotonic() + (25 if request.headers.get("prefer") == "wait=25" else 0)
        with self._changed:
            self._newest = mine = self._newest + 1
            self._changed.notify_all()
            while not self._fill(question, answer, jobs):
                self._changed.wait(max(0.0, deadline - time.monotonic()))
                if self._newest != mine or time.monotonic() >= deadline:
                    break
        return answer

    def _fill(self, question: Any, answer: dict[str, Any], jobs: dict[str, Any]) -> bool:
        free = question.get("deepforge", {}).get("free", {})
        answer["jobsToCancel"] = [one for one in question["runningJobs"] if one in self.cancels]
        for hash, job in list(self.waiting.items()):
            if len(answer["jobsToStart"]) >= question["availableProcesses"]:
                break
            if job.get("resources", {}).get("gpus", 0) > free.get("gpus", 0) and self.ours:
                continue
            answer["jobsToStart"].append(hash)
            if job:
                jobs[hash] = job
            self.handed[hash] = time.time()
            del self.waiting[hash]
        return bool(answer["jobsToStart"] or answer["jobsToCancel"])

    def _blob(self, request: Request, verb: str, rest: list[str]) -> Answer:
        if verb == "createFile":
            digest = hashlib.sha1(request.body).hexdigest()
            self.contents[digest] = request.body
            return self._made(
                {
                    "name": rest[0],
                    "size": len(request.body),
                    "content": digest,
                    "contentType": "object",
                }
            )
        if verb == "createMetadata":
            return self._made(request.json)
        metadata = self.blobs.get(rest[0])
        if metadata is None:
            return 404, b"Requested object does not exist: " + rest[0].encode(), "text/html"
        if verb == "metadata":
            return _json(metadata)
        content = metadata["content"]
        if isinstance(content, str):
            return 200, self.contents[content], "application/zip"
        files = {name: self.contents[entry["content"]] for name, entry in content.items()}
        return 200, zipped(files), "application/zip"

    def _made(self, metadata: dict[str, Any]) -> Answer:
        hash = hashlib.sha1(json.dumps(metadata, sort_keys=True).encode()).hexdigest()
        self.blobs[hash] = metadata
        return _json({hash: metadata})


def new_info(hash: str) -> dict[str, Any]:
    """What a server knows of a fresh job."""
    return {
        "hash": hash,
        "resultHashes": [],
        "resultSuperSet": None,
        "userId": ["guest"],
        "status": "CREATED",
        "createTime": "2026-11-22T17:08:59.666Z",
        "startTime": None,
        "finishTime": None,
        "worker": None,
        "labels": [],
        "outputNumber": None,
    }


def zipped(
    files: Mapping[str, bytes], change: Callable[[zipfile.ZipInfo], None] | None = None
) -> bytes:
    """A zip file of these files; `change` may make an entry odd."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            if change is not None:
                change(entry)
            archive.writestr(entry, data)
    return buffer.getvalue()


def _json(value: Any) -> Answer:
    return 200, json.dumps(value).encode(), "application/json; charset=utf-8"


class _Server(HangingUpServer):
    fake: FakeServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    disable_nagle_algorithm = True

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, body)
        self.server.fake.requests.append(request)
        status, data, kind = self.server.fake.answer(request)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if status == 302:
            self.send_header("Location", "/profile/login")
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET
