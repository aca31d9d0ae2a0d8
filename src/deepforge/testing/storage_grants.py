"""What storages promise that let processes without credentials read and write single objects."""

from __future__ import annotations

import asyncio
import random
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from deepforge.errors import NotFound
from deepforge.machine import machine_space
from deepforge.storage.port import Grant
from deepforge.testing.storage_exam import Catalogue, Exam, PromiseBroken, holds, raises, same

PROMISES = Catalogue()

ENDS_LATE_S = 15.0
"""How long after its time a grant may still be accepted: clocks differ a little."""

_PART_BYTES = 5 * 1024 * 1024  # the smallest part that S3 takes, but for the last
_NAMES = ("plain", "with space/ünï+100%?#'\"&=", "a", "a/b", "deep/er/still")


@PROMISES.promise("grants")
async def grants_reading(exam: Exam) -> None:
    """A grant is enough to read one object."""
    for name in _NAMES:
        info = await exam.put(name, name.encode())
        grant = await exam.adapter.grant(info.key, "GET", expires_s=300)
        holds(grant.method == "GET", "the grant is for another method")
        if _is_elsewhere(exam, grant):
            return
        same(name.encode(), await _read(grant), f"what the grant for {name!r} reads")


@PROMISES.promise("grants", "chosen_keys")
async def grants_writing(exam: Exam) -> None:
    """A grant is enough to write one object, that may or may not be there yet."""
    for name in _NAMES:
        for data in (b"first", b""):
            grant = await exam.adapter.grant(exam.key(name), "PUT", expires_s=300)
            if _is_elsewhere(exam, grant):
                return
            await _write(grant, data)
            same(data, await exam.read(exam.key(name)), f"what the grant for {name!r} wrote")
    same(sorted(_NAMES, key=str.encode), await exam.names(), "the listing")


@PROMISES.promise("grants", "chosen_keys")
async def grants_for_nothing_are_harmless(exam: Exam) -> None:
    """The object of a grant need not exist: granting makes none, reading then finds none."""
    grant = await exam.adapter.grant(exam.key("nothing"), "GET", expires_s=300)
    await exam.adapter.grant(exam.key("other"), "PUT", expires_s=300)
    same([], await exam.names(), "the listing")
    if not _is_elsewhere(exam, grant):
        same(404, await _status_of(grant), "the answer to reading what is not there")


@PROMISES.promise("grants", "chosen_keys")
async def grants_one_thing_only(exam: Exam) -> None:
    """A granted URL cannot be turned into another: not the method, the object, or the time."""
    key = (await exam.put("object", b"kept")).key
    await exam.put("objecs", b"secret")
    grant = await exam.adapter.grant(key, "GET", expires_s=300)
    if grant.kind == "file":
        return  # whoever sees the folder may do what the folder's owner allows
    url = grant.url or ""
    for what, method, forged in (
        ("writing with a grant to read", "PUT", url),
        ("deleting with a grant to read", "DELETE", url),
        ("reading another object", "GET", url.replace("/object?", "/objecs?")),
        ("living longer", "GET", url.replace("Expires=300", "Expires=3000")),
        ("reading without a signature", "GET", url.partition("?")[0]),
    ):
        status, _ = await _send(method, forged, grant.headers, b"x" if method == "PUT" else None)
        holds(status in (400, 401, 403), f"{what} was answered with {status}")
    same(b"kept", await exam.read(key), "the object")


@PROMISES.promise("grants")
async def grants_end(exam: Exam) -> None:
    """A grant over HTTP is refused after its time."""
    info = await exam.put("object", b"x")
    grant = await exam.adapter.grant(info.key, "GET", expires_s=1)
    if grant.kind == "file":
        return  # a path does not expire
    holds(grant.expires_at is not None, "the grant does not say when it ends")
    same(200, await _status_of(grant), "the answer in time")
    deadline = time.monotonic() + ENDS_LATE_S
    while await _status_of(grant) not in (400, 401, 403):
        holds(time.monotonic() < deadline, f"still accepted {ENDS_LATE_S:.0f} s after its end")
        await asyncio.sleep(0.25)


@PROMISES.promise("part_grants", "chosen_keys")
async def grants_parts(exam: Exam) -> None:
    """An object can be written in parts with grants alone, in any order; completing is repeatable."""
    parts = [random.Random(number).randbytes(_PART_BYTES) for number in (1, 2)] + [b"the last"]
    key = exam.key("in parts ü+")
    upload = await exam.adapter.begin_parts(key)
    etags = [""] * len(parts)
    for number in (3, 1, 2):
        grant = await exam.adapter.grant_part(key, upload, number, expires_s=300)
        status, headers = await _send("PUT", grant.url or "", grant.headers, parts[number - 1])
        same(200, status, f"the answer to part {number}")
        etags[number - 1] = _etag(headers)
    same([], await exam.names(), "the listing before it is complete")
    for _ in range(2):
        info = await exam.adapter.complete_parts(key, upload, etags)
        same((key, sum(map(len, parts))), (info.key, info.size_bytes), "key and size")
    same(b"".join(parts), await exam.read(key), "the content")


@PROMISES.promise("part_grants", "chosen_keys")
async def gives_up_parts(exam: Exam) -> None:
    """An upload that is given up leaves the former object, and giving up again is fine."""
    await exam.put("object", b"former")
    key = exam.key("object")
    upload = await exam.adapter.begin_parts(key)
    grant = await exam.adapter.grant_part(key, upload, 1, expires_s=300)
    _, headers = await _send("PUT", grant.url or "", grant.headers, b"part")
    await exam.adapter.abort_parts(key, upload)
    await exam.adapter.abort_parts(key, upload)
    action = exam.adapter.complete_parts(key, upload, [_etag(headers)])
    await raises(NotFound, action, "completing an upload that was given up")
    same(b"former", await exam.read(key), "the former object")


def _is_elsewhere(exam: Exam, grant: Grant) -> bool:
    """Whether it is a file of another machine, which only a compute there could try.

    That it is a full path within `file_root` is all that can be seen from here.
    """
    if grant.kind != "file" or exam.adapter.file_space == machine_space():
        return False
    root = exam.adapter.file_root.rstrip("/")
    holds((grant.path or "").startswith(f"{root}/"), f"{grant.path!r} does not lie in {root!r}")
    return True


async def _read(grant: Grant) -> bytes:
    if grant.kind == "file":
        try:
            return await asyncio.to_thread(Path(grant.path or "").read_bytes)
        except OSError as error:
            raise PromiseBroken(f"the granted file cannot be read: {error}") from error
    status, _, body = await asyncio.to_thread(_request, "GET", grant.url or "", grant.headers, None)
    same(200, status, "the answer to a granted GET")
    return body


async def _write(grant: Grant, data: bytes) -> None:
    if grant.kind == "file":
        await asyncio.to_thread(_replace, Path(grant.path or ""), data)
        return
    status, _ = await _send("PUT", grant.url or "", grant.headers, data)
    holds(status in (200, 201, 204), f"the answer to a granted PUT is {status}")


async def _status_of(grant: Grant) -> int:
    if grant.kind == "file":
        return 200 if Path(grant.path or "").exists() else 404
    return (await _send("GET", grant.url or "", grant.headers, None))[0]


async def _send(
    method: str, url: str, headers: Mapping[str, str], body: bytes | None
) -> tuple[int, Mapping[str, str]]:
    status, answered, _ = await asyncio.to_thread(_request, method, url, headers, body)
    return status, answered


def _etag(headers: Mapping[str, str]) -> str:
    return next((value for name, value in headers.items() if name.lower() == "etag"), "")


def _request(
    method: str, url: str, headers: Mapping[str, str], body: bytes | None
) -> tuple[int, Mapping[str, str], bytes]:
    request = urllib.request.Request(url, data=body, headers=dict(headers), method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()
    except OSError as error:
        raise PromiseBroken(f"a granted request could not be sent: {error}") from error


def _replace(path: Path, data: bytes) -> None:
    """Write as the port asks of those who are granted a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".deepforge-{random.randrange(10**12)}")
    draft.write_bytes(data)
    draft.replace(path)
