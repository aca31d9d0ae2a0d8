"""What a job of the executor framework leaves: its files as blobs, and the artifacts made of them."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from typing import Any, Callable, Dict, List, Sequence, Tuple

from deepforge.worker.patterns import matches
from deepforge.worker.server import Line, segment
from deepforge.worker.source import Artifact
from deepforge.worker.trouble import JobEnded, Trouble

ALL = "jobInfo_resultSuperSetHash"

Blob = Tuple[str, Dict[str, Any]]  # the hash of its metadata, and these
Patiently = Callable[[Callable[[], Blob]], Blob]
"""Calls the function until the server has answered it."""


def find_files(folder: str, artifacts: Sequence[Artifact]) -> Dict[str, List[str]]:
    """The relative paths, with `/`, that each artifact takes. Links are not followed."""
    everything = sorted(_walk(folder, ""))
    found: Dict[str, List[str]] = {}
    for one in artifacts:
        found.setdefault(one.name, []).extend(
            path
            for path in everything
            if not one.patterns or any(matches(path, pattern) for pattern in one.patterns)
        )
    return found


def store(
    line: Line, patiently: Patiently, folder: str, files: Dict[str, List[str]]
) -> Tuple[str, Dict[str, str]]:
    """Store all these files and the artifacts of them; return the hash of the artifact of all files
    and those of each artifact. The same files give the same hashes, so it is safe to repeat.

    Raises `JobEnded` when a file cannot be read.
    """
    stored: Dict[str, Tuple[str, int]] = {}
    for path in sorted({path for paths in files.values() for path in paths}):
        stored[path] = _store_file(line, patiently, os.path.join(folder, *path.split("/")))

    def artifact(name: str, paths: Sequence[str]) -> str:
        content = {
            path: {"content": stored[path][0], "contentType": "softLink"}
            for path in sorted(set(paths))
        }
        metadata = {
            "name": name + ".zip",
            "size": sum(stored[path][1] for path in content),
            "mime": "application/zip",
            "content": content,
            "contentType": "complex",
        }
        data = json.dumps(metadata, ensure_ascii=False).encode("utf-8")
        return patiently(lambda: _blob(line.upload_bytes("/rest/blob/createMetadata/", data)))[0]

    joint = artifact(ALL, list(stored))
    return joint, {name: artifact(name, paths) for name, paths in files.items()}


def _store_file(line: Line, patiently: Patiently, path: str) -> Tuple[str, int]:
    where = "/rest/blob/createFile/" + segment(os.path.basename(path))
    for _ in range(3):  # a process the job left behind may still have written to it
        try:
            size_bytes, digest = _hash(path)
            key, metadata = patiently(lambda: _blob(line.upload(where, path)))
        except OSError as error:
            raise JobEnded(
                "FAILED_TO_ARCHIVE_FILE", "%s cannot be stored: %s" % (path, error)
            ) from error
        if metadata.get("content") == digest and metadata.get("size") == size_bytes:
            return key, size_bytes
    raise JobEnded("FAILED_TO_ARCHIVE_FILE", "what the server stored is not what %s holds" % path)


def _blob(answer: Dict[str, Any]) -> Blob:
    found = [(key, value) for key, value in answer.items() if isinstance(value, dict)]
    if len(found) != 1:
        raise Trouble("the blob server did not say which blob it made", answered=True)
    return found[0]


def _hash(path: str) -> Tuple[int, str]:
    sha, size_bytes = hashlib.sha1(), 0
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1024 * 1024), b""):
            sha.update(block)
            size_bytes += len(block)
    return size_bytes, sha.hexdigest()


def _walk(folder: str, prefix: str) -> List[str]:
    found: List[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    entry.name.encode("utf-8")
                    mode = entry.stat(follow_symlinks=False).st_mode
                except (OSError, UnicodeEncodeError):
                    continue  # gone, or its name is no text that a blob could carry
                if stat.S_ISDIR(mode):
                    found += _walk(entry.path, prefix + entry.name + "/")
                elif stat.S_ISREG(mode):
                    found.append(prefix + entry.name)
    except OSError:
        pass  # the job closed this folder: it keeps it
    return found
