"""Getting a job ready to start: its files in its folder, and what to run there."""

from __future__ import annotations

import os
from base64 import b64decode
from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, Tuple

from deepforge.runner.protocol import ENV_START, JOB_FILE
from deepforge.worker.ends import FAILED
from deepforge.worker.folder import STDOUT, Folder, JobFolder
from deepforge.worker.launcher import Launcher
from deepforge.worker.runners import Runners
from deepforge.worker.server import Line, Token, segment
from deepforge.worker.source import Config, read_config, unpack
from deepforge.worker.trouble import JobEnded, Refused, Trouble

PYTHON = "{python}"  # as the first word of a command: the interpreter of this worker


@dataclass(frozen=True)
class House:
    """What all jobs of a worker share."""

    url: str
    token: Token
    client_id: str
    instance: str
    folder: Folder
    runners: Runners
    launcher: Launcher
    environment: Mapping[str, str]  # of jobs that are programs
    settings: Mapping[str, str]  # of the runner
    python: str
    on_news: Callable[[str, Any], None]  # of a tender: "freed" its part of the machine, or "done"


@dataclass(frozen=True)
class Ask:
    """A line to the server, and a way to call until there is an answer."""

    line: Line
    patiently: Callable[[Callable[[], Any]], Any]


def prepare_ours(
    house: House, record: Mapping[str, Any], folder: JobFolder, ask: Ask
) -> Tuple[str, Dict[str, Any]]:
    """Prepare a job that our server handed out with all it needs; return the digest of the runner
    that starts it, and what to order.

    Raises `JobEnded`, `Trouble`, `Refused`, and `OSError` for what the disk says.
    """
    gpus = record["gpus"]
    order: Dict[str, Any] = {"gpus": gpus, "stderr": os.path.join(folder.work, STDOUT)}
    _write_files(folder, record["files"])
    if record.get("command"):
        words = [house.python if word == PYTHON else word for word in record["command"]]
        environment = {**_environment(house), "CUDA_VISIBLE_DEVICES": ",".join(gpus)}
        order.update(kind="command", command=words, environment=environment)
        return house.runners.own, order
    settings = {**house.settings, ENV_START: "fork"}
    order.update(kind="runner", job=JOB_FILE, settings=settings)
    return _find_runner(house, str(record["runner"]), ask), order


def prepare_source(
    house: House, folder: JobFolder, hash: str, ask: Ask
) -> Tuple[Dict[str, Any], Config, Dict[str, Any]]:
    """Fetch and unpack the source of a job of the executor framework; return what the server knows of
    the job, its config, and what to order. Raises `JobEnded`, and `OSError` for what the disk says.
    """
    id = segment(hash)
    info = _get(ask, "/rest/executor/info/" + id)
    metadata = _get(ask, "/rest/blob/metadata/" + id)
    archive = os.path.join(folder.root, "source.zip")
    wrong = "FAILED_SOURCE_COULD_NOT_BE_OBTAINED"
    view = "/rest/blob/view/%s/" % id
    try:
        digest = ask.patiently(lambda: ask.line.download(view, archive, magic=b"PK"))
    except (Refused, Trouble) as error:
        raise JobEnded(wrong, str(error)) from error
    content, kind = metadata.get("content"), metadata.get("contentType")
    if isinstance(content, str) and kind == "object" and content != digest:
        raise JobEnded(wrong, "the source that came is not what was stored")
    unpack(archive, folder.work, content if isinstance(content, dict) else {})
    os.remove(archive)
    config = read_config(folder.work)
    environment = _environment(house)
    order = {"kind": "command", "command": list(config.command), "environment": environment}
    return info, config, order


def _environment(house: House) -> Dict[str, str]:
    return {**house.environment, **house.settings}


def _write_files(folder: JobFolder, files: Mapping[str, Any]) -> None:
    for name, kept in files.items():
        data = kept.encode("utf-8") if isinstance(kept, str) else b64decode(kept["base64"])
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\0" in name:
            raise JobEnded(FAILED, "the job has a file named %.200r" % name)
        path = os.path.join(folder.work, *parts)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)


def _find_runner(house: House, digest: str, ask: Ask) -> str:
    if not house.runners.has(digest):
        path = "/rest/executor/runner/" + segment(digest)
        house.runners.keep(digest, ask.patiently(lambda: ask.line.fetch(path)))
    return digest


def _get(ask: Ask, path: str) -> Dict[str, Any]:
    try:
        found: Dict[str, Any] = ask.patiently(lambda: ask.line.ask("GET", path))
        return found
    except (Refused, Trouble) as error:
        raise JobEnded("FAILED_TO_GET_SOURCE_METADATA", str(error)) from error
