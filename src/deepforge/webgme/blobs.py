"""WebGME's blobs as they look on the wire: metadata and their hashes, media types, zip files.

A blob is known by its metadata hash: the SHA-1 of its metadata in the one form that `canonical`
writes. Content is known by the SHA-1 of its bytes, which is no address by itself.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
import zipfile
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

from deepforge.errors import InvalidRequest
from deepforge.webgme.mime import MIME_TYPES

Kind = Literal["object", "softLink", "complex"]

JOB_NAME = "job.zip"
"""The name of the artifact that a job of ours is."""

BYTES = "application/octet-stream"
ZIP = "application/zip"

_HASH = re.compile(r"[0-9a-f]{40}")
_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
_LARGEST_INDEX = 2**32 - 2
_LARGEST_NUMBER = 2**53 - 1  # that a JavaScript number tells from its neighbours
_LONGEST_NAME = 4096
_FIRST_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Entry:
    """One file of an artifact.

    An `object` names its content by the SHA-1 of the bytes, a `softLink` another blob by its hash.
    """

    content: str
    kind: Literal["object", "softLink"] = "object"
    kind_first: bool = False
    """Whether the client wrote the kind before the content. It is part of the hash."""


@dataclass(frozen=True)
class Metadata:
    """What is known of a blob. A name or content that was not given is None, and not written.

    `content` is the SHA-1 of the bytes (`object`), the hash of a blob (`softLink`), or the files of
    an artifact by their paths (`complex`).
    """

    name: str | None = None
    size_bytes: int = 0
    mime: str = ""
    content: str | Mapping[str, Entry] | None = None
    kind: Kind = "object"
    is_public: bool = False
    tags: Sequence[str] = ()

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The files of an artifact; none of any other blob."""
        return self.content if isinstance(self.content, Mapping) else {}

    @property
    def content_hash(self) -> str | None:
        """What a file or a soft link names; None for an artifact, and where it names nothing."""
        return self.content if isinstance(self.content, str) else None


def of_file(name: str, size_bytes: int, sha1: str) -> Metadata:
    """The metadata of a file that is uploaded under a name."""
    return Metadata(name, size_bytes, mime_of(name), sha1)


def of_files(name: str, files: Mapping[str, bytes]) -> Metadata:
    """The metadata of an artifact of these files, whose name ends in `.zip`."""
    entries = {path: Entry(hashlib.sha1(data).hexdigest()) for path, data in files.items()}
    return Metadata(name, sum(map(len, files.values())), ZIP, entries, "complex")


def is_hash(text: str) -> bool:
    return _HASH.fullmatch(text) is not None


def metadata_hash(metadata: Metadata) -> str:
    """The blob's address, equal on every server."""
    return hashlib.sha1(canonical(metadata)).hexdigest()


def canonical(metadata: Metadata) -> bytes:
    """The one text of the metadata that is hashed."""
    return json.dumps(to_json(metadata), ensure_ascii=False, separators=(",", ":")).encode()


def to_json(metadata: Metadata) -> dict[str, Any]:
    """The metadata as JSON values, everything in the order in which it is hashed."""
    value: dict[str, Any] = {} if metadata.name is None else {"name": metadata.name}
    value |= {
        "size": metadata.size_bytes,
        "mime": metadata.mime,
        "isPublic": metadata.is_public,
        "tags": sorted(metadata.tags, key=_code_units),
    }
    if isinstance(metadata.content, Mapping):
        ordered = sorted(metadata.content, key=_key_order)
        value["content"] = {path: _entry_to_json(metadata.content[path]) for path in ordered}
    elif metadata.content is not None:
        value["content"] = metadata.content
    return {**value, "contentType": metadata.kind}


def from_json(value: object) -> Metadata:
    """Read metadata as clients and servers send them; other keys are dropped.

    Raises `InvalidRequest` for what no blob can be, also for files of an artifact whose paths lead
    out of the folder that it is unpacked in.
    """
    if not isinstance(value, dict):
        raise _refused("metadata are not a JSON object", "metadata")
    kind = _get(value, "contentType", str, "object")
    if kind not in ("object", "softLink", "complex"):
        raise _refused(f"contentType {kind[:40]!r} is none there is", "contentType")
    content = value.get("content")
    if kind == "complex":
        content = _entries_from_json({} if content is None else content)
    elif content is not None and not (isinstance(content, str) and is_hash(content)):
        raise _refused("content is not the hash of anything", "content")
    size_bytes = _get(value, "size", int, 0)
    if not 0 <= size_bytes <= _LARGEST_NUMBER:
        raise _refused(f"a size of {size_bytes} bytes cannot be", "size")
    tags = _get(value, "tags", list, [])
    if not all(isinstance(one, str) and _is_text(one) for one in tags):
        raise _refused("tags are not all texts", "tags")
    return Metadata(
        name=_get(value, "name", str, "") if "name" in value else None,
        size_bytes=size_bytes,
        mime=_get(value, "mime", str, ""),
        content=content,
        kind=kind,
        is_public=_get(value, "isPublic", bool, False),
        tags=tuple(tags),
    )


def mime_of(name: str) -> str:
    """The media type by the end of a file's name, as the original server tells it."""
    last = re.sub(r"(?s)^.*[/\\]", "", name)
    ending = re.sub(r"(?s)^.*\.", "", last)
    if len(ending) >= len(last) - 1 and len(last) < len(name):
        return BYTES  # in a folder, only what is before a dot can have an ending
    return MIME_TYPES.get(ending.lower(), BYTES)


def check_path(path: str) -> str:
    """Return the path of a file in an artifact if unpacking it stays in its folder.

    Raises `InvalidRequest`.
    """
    wrong = (
        not path
        or len(path) > _LONGEST_NAME
        or not _is_text(path)
        or any(letter == "\\" or unicodedata.category(letter) == "Cc" for letter in path)
        or re.match("[A-Za-z]:", path)
        or any(part in ("", ".", "..") for part in path.split("/"))
    )
    if wrong:
        raise _refused(f"{path[:80]!r} cannot be the path of a file in an artifact", "content")
    return path


@dataclass(frozen=True)
class ZipEntry:
    """A file to be zipped. `read` is called once, when its turn has come."""

    path: str
    size_bytes: int
    read: Callable[[], AsyncGenerator[bytes, None]]


async def zipped(entries: Iterable[ZipEntry]) -> AsyncGenerator[bytes, None]:
    """A zip file of these, made while it is read and with no more in memory than one chunk.

    Entries are stored as they are; equal entries make equal bytes.
    """
    output = _Output()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for one in entries:
            info = zipfile.ZipInfo(one.path, _FIRST_ZIP_DATE)
            info.create_system = 3  # Unix, wherever this runs
            info.external_attr = 0o644 << 16
            info.file_size = one.size_bytes  # from 2 GiB on headers are larger
            with archive.open(info, "w") as file:
                async with aclosing(one.read()) as chunks:
                    async for chunk in chunks:
                        file.write(chunk)
                        yield output.take()
            yield output.take()
    yield output.take()


@dataclass
class _Output:
    """What a zip file is written to: it can neither seek nor tell."""

    _pieces: list[bytes] = field(default_factory=list)

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


def _entry_to_json(entry: Entry) -> dict[str, str]:
    value = {"content": entry.content, "contentType": entry.kind}
    return dict(reversed(value.items())) if entry.kind_first else value


def _entries_from_json(value: object) -> dict[str, Entry]:
    if not isinstance(value, dict):
        raise _refused("the content of an artifact is not a JSON object", "content")
    entries = {}
    for path, one in value.items():
        check_path(path)
        if not isinstance(one, dict) or set(one) != {"content", "contentType"}:
            raise _refused(f"{path[:80]!r} is not described by content and contentType", "content")
        content, kind = one["content"], one["contentType"]
        if not isinstance(content, str) or not is_hash(content):
            raise _refused(f"the content of {path[:80]!r} is not a hash", "content")
        if kind not in ("object", "softLink"):
            raise _refused(f"{path[:80]!r} is neither an object nor a soft link", "content")
        entries[path] = Entry(content, kind, kind_first=next(iter(one)) == "contentType")
    return entries


def _get(value: dict[str, Any], name: str, kind: type[Any], default: Any) -> Any:
    found = value.get(name, default)
    if found is not default and (
        not isinstance(found, kind) or (kind is int and isinstance(found, bool))
    ):
        raise _refused(f"{name} is {type(found).__name__}, not {kind.__name__}", name)
    if isinstance(found, str) and (not _is_text(found) or len(found) > _LONGEST_NAME):
        raise _refused(f"{name} is too long, or no text", name)
    return found


def _key_order(name: str) -> tuple[int, int, bytes]:
    """How JavaScript orders the keys of an object whose keys were sorted first."""
    if _INDEX.fullmatch(name) and int(name) <= _LARGEST_INDEX:
        return 0, int(name), b""
    return 1, 0, _code_units(name)


def _code_units(text: str) -> bytes:
    return text.encode("utf-16-be")


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character
        return False
    return True


def _refused(problem: str, part: str) -> InvalidRequest:
    return InvalidRequest(f"this cannot be a blob: {problem}", part=part)
