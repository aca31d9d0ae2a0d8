"""What a job of the executor framework consists of: a zip file with an `executor_config.json`."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Tuple

from deepforge.worker.trouble import JobEnded

CONFIG_FILE = "executor_config.json"
MOST_FILES = 100_000
LONGEST_BYTES = 64 * 1024**3


@dataclass(frozen=True)
class Artifact:
    """Files that are kept when the job has ended. Without patterns: all of them."""

    name: str
    patterns: Tuple[str, ...]


@dataclass(frozen=True)
class Config:
    """What to run in the job's folder, and what of it to keep."""

    command: Tuple[str, ...]
    artifacts: Tuple[Artifact, ...]
    output_every_s: float  # 0: only at the end
    output_lines: int  # 0: any number


def unpack(archive: str, folder: str, contents: Mapping[str, Any]) -> None:
    """Unpack an archive into an empty folder; no entry can end up elsewhere.

    `contents` are those of the job's metadata, where it is a complex artifact: the digests it names
    are checked. Raises `JobEnded`, and `OSError` for what the disk says.
    """
    digests = _digests(contents)
    try:
        with zipfile.ZipFile(archive) as file:
            entries = file.infolist()
            if len(entries) > MOST_FILES or sum(one.file_size for one in entries) > LONGEST_BYTES:
                raise _bad("it has more files or bytes than a job may have")
            for entry in entries:
                _refuse_odd(entry)
            for entry in entries:
                path = file.extract(entry, folder)
                if not entry.is_dir():
                    os.chmod(path, 0o700 if (entry.external_attr >> 16) & 0o111 else 0o600)
                    expected = digests.pop(entry.filename, None)
                    if expected is not None and expected != _sha1(path):
                        raise _bad("%r is not what was stored" % entry.filename)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise _bad("it is no proper zip file (%s)" % error) from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise _bad("two of its entries cannot both be: %s" % error) from error
    if digests:
        raise _bad("it lacks %r" % sorted(digests)[0])


def read_config(folder: str) -> Config:
    """Read what to run. Raises `JobEnded`."""
    try:
        with open(os.path.join(folder, CONFIG_FILE), "rb") as file:
            value = json.loads(file.read().decode("utf-8"))
    except FileNotFoundError:
        raise _bad_config("the job has no %s" % CONFIG_FILE) from None
    except (OSError, ValueError) as error:
        raise _bad_config("its %s cannot be read: %s" % (CONFIG_FILE, error)) from error
    if not isinstance(value, dict) or not isinstance(value.get("cmd"), str) or not value["cmd"]:
        raise _bad_config("its %s names no `cmd`" % CONFIG_FILE)
    arguments = value.get("args") or []
    if not _is_texts(arguments):
        raise _bad_config("the `args` in its %s are not a list of texts" % CONFIG_FILE)
    return Config(
        (value["cmd"], *arguments),
        _artifacts(value.get("resultArtifacts")),
        max(0.0, _number(value.get("outputInterval")) / 1000),
        max(0, int(_number(value.get("outputSegmentSize")))),
    )


def _artifacts(value: Any) -> Tuple[Artifact, ...]:
    if not isinstance(value, list):
        raise _bad_config("its %s has no list of `resultArtifacts`" % CONFIG_FILE)
    found: List[Artifact] = []
    for one in value:
        patterns = one.get("resultPatterns") or [] if isinstance(one, dict) else None
        if patterns is None or not _is_texts(patterns) or not isinstance(one.get("name"), str):
            raise _bad_config("one of the `resultArtifacts` in its %s is odd" % CONFIG_FILE)
        found.append(Artifact(one["name"], tuple(patterns)))
    return tuple(found)


def _digests(contents: Mapping[str, Any]) -> Dict[str, str]:
    """The SHA-1 of each file whose entry says it: a soft link names its metadata instead."""
    return {
        name: entry["content"]
        for name, entry in contents.items()
        if isinstance(entry, dict)
        and entry.get("contentType") == "object"
        and isinstance(entry.get("content"), str)
    }


def _refuse_odd(entry: zipfile.ZipInfo) -> None:
    """Refuse what could end up anywhere but in the folder, and what is neither file nor folder."""
    name, mode = entry.filename, entry.external_attr >> 16
    parts = name.rstrip("/").split("/")
    inside = all(part not in ("", ".", "..") for part in parts)
    if not inside or "\\" in name or "\0" in name or name[1:2] == ":":
        raise _bad("it has an entry named %.200r" % name)
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _bad("%.200r is neither a file nor a folder" % name)
    if entry.flag_bits & 1:
        raise _bad("%.200r is encrypted" % name)


def _sha1(path: str) -> str:
    sha = hashlib.sha1()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1024 * 1024), b""):
            sha.update(block)
    return sha.hexdigest()


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _number(value: Any) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else 0.0


def _bad(why: str) -> JobEnded:
    return JobEnded("FAILED_UNZIP", "the job's source cannot be unpacked: %s" % why)


def _bad_config(why: str) -> JobEnded:
    return JobEnded("FAILED_EXECUTOR_CONFIG", why)
