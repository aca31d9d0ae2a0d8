"""`job.json` and `result.json`: the whole agreement with the far side.

Standard library only, Python 3.8 or newer: this file is part of the runner. The server reads it too.

Layout of what one attempt leaves in its storage, under `executions/<execution>/<job>/<attempt>/`:

    <name>             each output, serialised (a name of Python: no other file is called so)
    log.txt            what the operation printed, if it printed anything
    events.jsonl       figures and metrics (a later version writes it)
    result.json        written last: its presence says that the attempt has ended

With a channel, the file handed to the runner is a `Ticket`; `POST <channel>/start` answers with the
`Job`. Without one, the file is the complete `Job`. `read_handed` tells them apart.

The channel (all requests carry `Authorization: Bearer <token>`, bodies are JSON unless said):

    POST  /start                     {"runner", "protocol"} -> 200 Job | 409 somebody else runs it
    POST  /heartbeat                 {} -> {"cancel": bool}; every `heartbeat_s`
    POST  /log?start=<byte>          body: the next bytes of the log -> {"cancel": bool}; bytes the
                                     server has already are ignored, so a repeat is harmless
    POST  /outputs/<name>/parts      {"size_bytes"} -> {"upload", "part_bytes", "parts": [Grant]}
                                     or {"grant": Grant}: one PUT is enough
    POST  /outputs/<name>/complete   {"upload", "etags": [...]} -> {}
    POST  /outputs/<name>/abort      {"upload"} -> {}
    POST  /grants                    {"names": [...]} -> {"grants": {name: Grant}}: fresh ones
    POST  /finished                  {} -> {}: a hint that result.json is there
    GET|PUT /objects/<name>          the bytes themselves, where the pair has no better way

Object names in grants: `code`, `inputs/<name>` (of variadic parts `inputs/<name>.<position>`),
`outputs/<name>`, `log`, `events`, `result`.
`runner` names one runner process: when it asks again, because the answer was lost, it gets the same
200 again. A token is good for one attempt. 401 and 410 mean that the attempt is over: stop and exit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple, Type, TypeVar, Union

T = TypeVar("T")

PROTOCOL = 1

# A hint only: `result.json` says what became of the attempt.
EXIT_SUCCEEDED = 0  # or there was nothing to do: another runner has the attempt, or it is over
EXIT_FAILED = 1
EXIT_TRY_AGAIN = 75  # failed in a way that may pass
EXIT_CANCELLED = 130

JOB_FILE = "job.json"
RESULT_FILE = "result.json"
LOG_FILE = "log.txt"
EVENTS_FILE = "events.jsonl"

# How the machine that starts the runner tells it about itself (the adapter sets them, all optional):
ENV_CACHE = "DEEPFORGE_RUNNER_CACHE"  # folder of the data cache; unpacked code lies there too
ENV_CACHE_BYTES = "DEEPFORGE_RUNNER_CACHE_BYTES"  # its size limit
ENV_PYTHON = "DEEPFORGE_RUNNER_PYTHON"  # interpreter of operations; default: the runner's own
ENV_START = "DEEPFORGE_RUNNER_START"  # "fork": operations are forked from a warm interpreter
ENV_PATIENCE = "DEEPFORGE_RUNNER_PATIENCE_S"  # how long to try while nobody is reached
ENV_PREFIX = "DEEPFORGE_"  # nothing with this prefix reaches user code


def log_marks(attempt: str) -> Tuple[bytes, bytes]:
    """What a runner without a channel prints before and behind the log of the operation.

    Its platform shows the log so while the job runs, among other words. What stands between the marks
    is a prefix of `log.txt`, all of it when the second mark is there; without a log there are no marks.
    """
    name = attempt.encode()
    return b"\n[deepforge] " + name + b" prints:\n", b"[deepforge] " + name + b" has printed.\n"


class ProtocolError(ValueError):
    """A document of the far side, or for it, is not what this version understands."""


@dataclass(frozen=True)
class Grant:
    """As `deepforge.storage.port.Grant`: a file path, or one HTTP request."""

    kind: str  # "file" or "http"
    method: str  # "GET" or "PUT"
    path: Optional[str] = None
    url: Optional[str] = None
    headers: Dict[str, str] = field(default_factory=dict)
    expires_at: Optional[str] = None


@dataclass(frozen=True)
class Channel:
    """Where and how to call our server. `address_file`, where it exists, holds the base URL of a
    server that restarted elsewhere; it replaces what stands before `/api/` in `url`."""

    url: str  # …/api/v1/attempts/<attempt key>
    token: str
    address_file: Optional[str] = None
    heartbeat_s: float = 5.0
    proxied: bool = False  # honour the far side's HTTP proxy settings


@dataclass(frozen=True)
class Ticket:
    """What is handed over when a channel exists: only how to ask for the job."""

    attempt: str
    channel: Channel
    protocol: int = PROTOCOL


@dataclass(frozen=True)
class Operation:
    """Which class to run: `operations/train.py` is module `operations.train`."""

    module: str
    name: str  # the class
    file: str


@dataclass(frozen=True)
class Argument:
    """One attribute of the operation, passed to the constructor by keyword.

    `literal` is Python literal text (`ast.literal_eval` reads it). A resource instead names a
    function of the project that is called with `arguments` (names to literal texts).
    """

    name: str
    literal: Optional[str] = None
    resource_module: Optional[str] = None
    resource_name: Optional[str] = None
    arguments: Dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Input:
    """One input of `execute`, passed by keyword `name`, or by position when it is part of `*parts`.

    Without a grant the value is None (an unconnected input).
    """

    name: str
    position: Optional[int] = None  # place among the variadic parts, from 0
    grant: Optional[Grant] = None
    size_bytes: Optional[int] = None
    digest: Optional[str] = None
    type: Optional[str] = None  # as Output.type
    format: Optional[str] = None  # as Output.format

    @property
    def object_name(self) -> str:
        """Its name in grants."""
        return "inputs/" + self.name + ("" if self.position is None else ".%d" % self.position)


@dataclass(frozen=True)
class OutputSlot:
    """One output the operation must return, and where it goes."""

    name: str
    grant: Optional[Grant] = None
    max_grant_bytes: Optional[int] = None  # above it, ask the channel for parts
    part_above_bytes: Optional[int] = None  # from here on parts are better, if there is a channel


@dataclass(frozen=True)
class Code:
    """The project at the commit, as a zip file."""

    digest: str
    size_bytes: int
    grant: Grant


@dataclass(frozen=True)
class Limits:
    """What the runner itself holds the operation to. None: no limit."""

    time_s: Optional[float] = None
    log_bytes: int = 64 * 1024 * 1024  # what is printed beyond is counted, not kept


@dataclass(frozen=True)
class Job:
    """Everything one attempt needs."""

    attempt: str
    operation: Operation
    arguments: List[Argument]
    inputs: List[Input]
    outputs: List[OutputSlot]
    code: Code
    result: Grant
    log: Grant
    events: Optional[Grant] = None
    channel: Optional[Channel] = None
    limits: Limits = field(default_factory=Limits)
    protocol: int = PROTOCOL


@dataclass(frozen=True)
class Output:
    """One output that was stored and verified.

    `type` is `module.Class` of the value; `format` is `registered`, `file`, `npy` or `pickle`: how the
    bytes were written and which reader to use.
    """

    name: str
    type: str
    format: str
    size_bytes: int
    digest: str


@dataclass(frozen=True)
class InputRead:
    """An input whose digest was not known before. `name` as in grants."""

    name: str
    size_bytes: int
    digest: str


@dataclass(frozen=True)
class Failure:
    """Why an attempt did not succeed.

    `kind`: `exception` (the operation raised), `exit` (its process ended by itself, `exit_code`),
    `signal` (killed by `exit_code` = -signal), `outputs` (wrong number of outputs), `serialization`
    (an output cannot be stored), `input` (an input cannot be loaded), `import` (the code cannot be
    imported), `time_limit`, `transfer` (data could not be moved), `corrupt` (an input is not what was
    stored), `grants_expired`, `storage_full`, `runner` (our own fault).
    `transient` says whether another attempt may succeed.
    """

    kind: str
    message: str
    type: Optional[str] = None  # class of the exception, module.Class
    traceback: Optional[str] = None  # from the user's own first line on, the user's line numbers
    file: Optional[str] = None  # innermost place within the project
    line: Optional[int] = None
    exit_code: Optional[int] = None
    transient: bool = False
    hint: Optional[str] = None


@dataclass(frozen=True)
class Log:
    size_bytes: int
    lines: int
    digest: Optional[str] = None  # None: nothing was printed, there is no object
    dropped_bytes: int = 0


@dataclass(frozen=True)
class Result:
    """What became of the attempt. `status` is `succeeded`, `failed` or `cancelled`."""

    attempt: str
    status: str
    outputs: List[Output] = field(default_factory=list)
    failure: Optional[Failure] = None
    log: Optional[Log] = None
    started_at: Optional[str] = None
    ended_at: Optional[str] = None
    seconds: Dict[str, float] = field(default_factory=dict)  # fetch, run, store
    environment: Dict[str, str] = field(default_factory=dict)  # python, platform, runner
    inputs_from_cache: int = 0
    inputs: List[InputRead] = field(default_factory=list)
    protocol: int = PROTOCOL


def to_json(document: Union[Job, Ticket, Result, Grant]) -> bytes:
    """Write one of the documents as UTF-8 JSON, leaving out what is None."""
    text = json.dumps(document, default=_fields, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")  # a lone half of a character is no text


def read_handed(data: bytes) -> Union[Job, Ticket]:
    """Read what the runner was started with. Raises `ProtocolError`."""
    value = _load(data)
    if "operation" in value:
        return _read_job(value)
    return _made(Ticket, {**value, "channel": _made(Channel, value.get("channel"))})


def read_job(data: bytes) -> Job:
    """Read a complete job. Raises `ProtocolError`."""
    return _read_job(_load(data))


def read_result(data: bytes) -> Result:
    """Read a result. Raises `ProtocolError`: it may be cut short or not ours at all."""
    value = _load(data)
    value["outputs"] = [_made(Output, one) for one in _list(value, "outputs")]
    value["inputs"] = [_made(InputRead, one) for one in _list(value, "inputs")]
    if value.get("failure") is not None:
        value["failure"] = _made(Failure, value["failure"])
    if value.get("log") is not None:
        value["log"] = _made(Log, value["log"])
    return _made(Result, value)


def read_grant(value: Any) -> Grant:
    """Read a grant from decoded JSON. Raises `ProtocolError`."""
    return _made(Grant, value)


def _read_job(value: Dict[str, Any]) -> Job:
    code = dict(value.get("code") or {})
    code["grant"] = _made(Grant, code.get("grant"))
    return _made(
        Job,
        {
            **value,
            "operation": _made(Operation, value.get("operation")),
            "arguments": [_made(Argument, one) for one in _list(value, "arguments")],
            "inputs": [_with_grant(Input, one) for one in _list(value, "inputs")],
            "outputs": [_with_grant(OutputSlot, one) for one in _list(value, "outputs")],
            "code": _made(Code, code),
            "result": _made(Grant, value.get("result")),
            "log": _made(Grant, value.get("log")),
            "events": _optional(Grant, value.get("events")),
            "channel": _optional(Channel, value.get("channel")),
            "limits": _made(Limits, value.get("limits") or {}),
        },
    )


def _load(data: bytes) -> Dict[str, Any]:
    try:
        value = json.loads(data.decode("utf-8"))
    except ValueError as error:
        raise ProtocolError("not JSON: %s" % error) from None
    if not isinstance(value, dict):
        raise ProtocolError("not a JSON object")
    if value.get("protocol") != PROTOCOL:
        raise ProtocolError(
            "protocol %r is not spoken here, only %d" % (value.get("protocol"), PROTOCOL)
        )
    return value


def _list(value: Dict[str, Any], name: str) -> List[Any]:
    found = value.get(name) or []
    if not isinstance(found, list):
        raise ProtocolError("%s is not a list" % name)
    return found


def _with_grant(cls: Type[T], value: Any) -> T:
    if not isinstance(value, dict):
        raise ProtocolError("%s is not an object" % cls.__name__)
    return _made(cls, {**value, "grant": _optional(Grant, value.get("grant"))})


def _optional(cls: Type[T], value: Any) -> Optional[T]:
    return None if value is None else _made(cls, value)


def _made(cls: Type[T], value: Any) -> T:
    """Make the dataclass; what a newer server adds is ignored, what is missing is an error."""
    if not isinstance(value, dict):
        raise ProtocolError("%s is missing or not an object" % cls.__name__)
    known: Dict[str, Any] = cls.__dataclass_fields__  # type: ignore[attr-defined]
    try:
        return cls(**{name: one for name, one in value.items() if name in known})
    except TypeError as error:
        raise ProtocolError("%s: %s" % (cls.__name__, error)) from None


def _fields(value: Any) -> Dict[str, Any]:
    found = ((name, getattr(value, name)) for name in value.__dataclass_fields__)
    return {name: one for name, one in found if one is not None}
